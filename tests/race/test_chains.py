"""Chains: one rule for all planners, judged at the end, resumed where a run was cut."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from builders import race as builders
from builders.race import answer, latents_of, worker_settings, write_world_model

from vj2_ddim_benchmark.race.folder import RaceFolder, gather
from vj2_ddim_benchmark.race.records import ChainRecord, read_records
from vj2_ddim_benchmark.race.tasks import (
    ChainRace,
    Race,
    ReadyPlanner,
    picture_distance,
    problem_seed,
    stop_distance_of,
)
from vj2_ddim_benchmark.race.workers import Worker, in_this_process
from vj2_ddim_benchmark.world.problems import chain_problems, one_gesture_problems
from vj2_ddim_plugin.cli.console import silent

CHAINS = chain_problems(4, split="validation", seed=2)
LENGTH = CHAINS.length.tolist()
GOALS = latents_of(CHAINS.goal.render())
SEEDS = [[problem_seed(problem_seed(3, chain), step) for step in range(7)] for chain in range(4)]
SILENT = np.zeros((250, 3), np.float32)


class Seeing(builders.Seeing):
    """A world model whose latents are the pictures, and whose cost is their distance."""

    config = SimpleNamespace(cost_kind="mse")


class Planner:
    """Knows the chain by the goal's picture, and which gesture it is by the seed."""

    def __init__(self, gestures=lambda chain, step: SILENT):
        self.gestures, self.asked = gestures, []

    def optimize(self, problem):
        self.asked.append(problem)
        goal, action = problem.context["goal"], SILENT
        if goal.shape == GOALS[:1].shape and (goal == GOALS).all(axis=(1, 2)).any():
            chain = int((goal == GOALS).all(axis=(1, 2)).argmax())
            action = self.gestures(chain, SEEDS[chain].index(problem.seed))
        return answer(action[None])


def reference(chain, step):
    return CHAINS.actions[chain, step]


def blind_reference(chain, step):
    """Goes on after the last gesture with the first one again."""
    return CHAINS.actions[chain, step % LENGTH[chain]]


def race(stop_distance=0.0, seed=3):
    cost = lambda *_: lambda c: c[..., 2].sum(-1)  # noqa: E731
    return ChainRace(Seeing(), CHAINS, seed, cost, stop_distance)


def run(folder, planners, budgets=(None,), stop_distance=0.0, progress=silent):
    executor = in_this_process(Worker(race(stop_distance), planners, budgets))
    names, out = [planner.name for planner in planners], RaceFolder(folder)
    return gather(out, names, budgets, len(CHAINS), executor, progress, "chain", kind=ChainRecord)


def attempts(gestures, stop_distance=0.0):
    planner = ReadyPlanner("planner", Planner(gestures))
    return [race(stop_distance).attempt(planner, i) for i in range(len(CHAINS))]


def test_the_reference_reaches_every_goal_with_no_gesture_too_many():
    records = attempts(reference)
    assert all(record.success and record.stopped for record in records)
    assert [record.num_gestures for record in records] == LENGTH
    assert {record.state_distance for record in records} == {0.0}
    for record, goal in zip(records, CHAINS.goal.state.tolist(), strict=True):
        assert record.states[-1] == goal
        assert record.latent_distances[-1] == 0.0
        assert min(record.latent_distances[:-1]) > 0.0
        evaluations = record.cost_evaluations, record.denoiser_evaluations
        assert evaluations == (5 * record.length, 9 * record.length)
        assert len(record.wall_ms) == record.length


def test_doing_nothing_reaches_nothing_and_is_asked_two_times_more_than_needed():
    records = attempts(lambda chain, step: SILENT)
    assert not any(record.success or record.stopped for record in records)
    assert [record.num_gestures for record in records] == [length + 2 for length in LENGTH]
    apart = CHAINS.start.state_distance(CHAINS.goal.state)
    assert [record.state_distance for record in records] == apart.tolist()
    assert all(record.strokes == [[]] * record.num_gestures for record in records)


class Offering(Planner):
    """Takes of three gestures the one that its cost prefers; the last of them leads on."""

    def optimize(self, problem):
        onward = super().optimize(problem).actions[0]
        offered = np.stack([SILENT, np.full_like(SILENT, 0.02), onward])
        return answer(offered[[np.argmin(problem.cost(offered[None])[0])]])


def test_a_planner_may_ask_the_screen_itself_in_place_of_a_learned_model():
    for true_dynamics in (False, True):  # the race's own cost prefers silence
        planner = ReadyPlanner("planner", Offering(blind_reference), true_dynamics=true_dynamics)
        reached = [race().attempt(planner, i).success for i in range(len(CHAINS))]
        assert reached == [true_dynamics] * len(CHAINS)


def test_a_detour_is_forgiven_as_long_as_gestures_last():
    late = lambda wait: lambda chain, step: SILENT if step < wait else reference(chain, step - wait)  # noqa: E731
    assert all(record.success for record in attempts(late(2)))
    assert not any(record.success for record in attempts(late(3)))


def test_who_passes_the_goal_unnoticed_is_judged_by_where_the_screen_ends():
    """The true state is reached on the way, the host does not see it, and a later touch spoils it:
    a judge who looked on would call it solved."""
    records = attempts(blind_reference, stop_distance=-1.0)  # a host that never stops by itself
    spoiled = 0
    for record, goal in zip(records, CHAINS.goal.state.tolist(), strict=True):
        assert record.num_gestures == record.length + 2
        assert record.states[record.length - 1] == goal
        assert record.success == (record.states[-1] == goal)
        spoiled += not record.success
    assert spoiled > 0


def test_a_wrong_stop_even_one_gesture_early_is_a_failure():
    records, early = attempts(reference, stop_distance=1e9), 0
    assert all(record.stopped and not record.success for record in records)
    assert {record.num_gestures for record in records} == {0}
    for whole in attempts(reference):
        *before, near, _ = whole.latent_distances
        if near < min(before):
            planner = ReadyPlanner("planner", Planner(reference))
            record = race(near).attempt(planner, whole.problem)
            assert (record.stopped, record.success) == (True, False)
            assert record.num_gestures == whole.length - 1
            assert record.state_distance >= 1.0
            early += 1
    assert early > 0


def test_a_planner_sees_pictures_of_the_screen_and_of_the_final_goal_and_nothing_else():
    planner = Planner(reference)
    record = race().attempt(ReadyPlanner("planner", planner), 0, 5000.0)
    states = [CHAINS.start.state[:1].tolist()[0], *record.states][: record.num_gestures]
    for asked, state in zip(planner.asked, states, strict=True):
        assert set(asked.context) == {"state", "goal"}
        shown = CHAINS.start.select(0).with_state([state]).render()
        np.testing.assert_array_equal(asked.context["state"], latents_of(shown))
        np.testing.assert_array_equal(asked.context["goal"], GOALS[:1])
        assert 0.0 < asked.deadline_s <= 5.0
    seeds = [asked.seed for asked in planner.asked]
    assert seeds == SEEDS[0][: record.num_gestures]
    assert len(set(seeds)) == len(seeds)


def test_the_host_stops_by_the_races_world_model_even_if_the_planner_brings_one():
    class Blind(Seeing):
        def encode(self, frames):
            return np.zeros((len(frames), 1, 2), np.float32)

    planner = Planner()
    record = race().attempt(ReadyPlanner("p", planner, world_model=Blind(), with_cost=False), 0)
    assert not record.stopped
    assert {asked.context["goal"].shape for asked in planner.asked} == {(1, 1, 2)}
    assert {asked.cost for asked in planner.asked} == {None}


def timeless(records):
    return [replace(record, wall_ms=[0.0] * record.num_gestures) for record in records]


def pair():
    return [ReadyPlanner("good", Planner(reference)), ReadyPlanner("idle", Planner())]


def test_a_run_that_was_cut_gives_the_same_records(tmp_path):
    whole = run(tmp_path / "whole", pair())
    assert read_records(tmp_path / "whole" / "results.jsonl", ChainRecord) == whole
    lines = (tmp_path / "whole" / "results.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "results.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
    told = []
    resumed = run(tmp_path / "cut", pair(), progress=lambda *words: told.append(words))
    assert told == [("chain", i, 3) for i in range(1, 4)]
    assert timeless(resumed) == timeless(whole)
    again = pair()
    assert run(tmp_path / "cut", again) == resumed
    assert again[0].optimizer.asked == again[1].optimizer.asked == []


def test_turns_rotate_and_each_planner_is_warmed_up_once(tmp_path):
    planners = pair()
    records = run(tmp_path, planners, budgets=(1e6, None))
    assert [(r.planner, r.problem, r.budget_ms) for r in records[:8]] == [
        ("good", 0, 1e6), ("idle", 0, 1e6), ("good", 0, None), ("idle", 0, None),
        ("idle", 1, 1e6), ("good", 1, 1e6), ("idle", 1, None), ("good", 1, None),
    ]  # fmt: skip
    idle = planners[1].optimizer
    assert len(idle.asked) == 3 + 2 * sum(length + 2 for length in LENGTH)


def test_the_stop_distance_is_below_what_one_gesture_changes():
    limit = stop_distance_of(Seeing(), num_pairs=100)
    pairs = one_gesture_problems(60, split="train", seed=9)
    apart = picture_distance(Seeing(), pairs.start.render(), pairs.goal.render())
    assert 0.0 < limit < apart.min()
    moved = latents_of(pairs.start.render()) - latents_of(pairs.goal.render())
    np.testing.assert_allclose(apart, np.square(moved).mean(axis=(1, 2)), rtol=1e-5)


def test_a_worker_of_chains_has_the_planners_models_and_seed_of_the_race(tmp_path):
    path = write_world_model(tmp_path / "model.pt")
    base = worker_settings(path, (), {}, 5, budgets=(50.0, None))
    race, worker = base.make().race, replace(base, stop_distance=0.25).make()
    chains = worker.race
    assert isinstance(race, Race)
    assert isinstance(chains, ChainRace)
    assert (len(race.problems), len(chains.problems), chains.stop_distance) == (5, 5, 0.25)
    assert (chains.seed, worker.budgets) == (race.seed, [50.0, None])
    drawn = chain_problems(5, split="validation", seed=0)
    np.testing.assert_array_equal(chains.problems.goal.state, drawn.goal.state)
