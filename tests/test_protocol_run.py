"""The race: fair turns, no peeking, success judged apart, and runs that resume."""

import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.records import read_records
from vj2_ddim_benchmark.protocol.run import Race, problem_seed, read_cold
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult

PROBLEMS = one_gesture_problems(7, split="validation", seed=1)
TARGETS = PROBLEMS.goal.render().reshape(7, 1, -1).astype(np.float32)


class Seeing:
    """A world model whose latents are the pictures."""

    def encode(self, frames):
        return frames.reshape(len(frames), 1, -1).astype(np.float32)


def press_time(world_model, state, goal):
    """A cost that counts pressed steps, so that it can be checked by hand."""
    return lambda candidates: candidates[..., 2].sum(axis=-1)


class Solver:
    """Knows the answer of every problem by its goal picture; solves those it is told to."""

    def __init__(self, solves, log=None, name="", unprojected=None):
        self.solves, self.log, self.name, self.asked = solves, log, name, []
        self.unprojected = unprojected

    def optimize(self, problem):
        self.asked.append(problem)
        if self.log is not None:
            self.log.append(self.name)
        match = (problem.context["goal"] == TARGETS).all(axis=(1, 2))
        actions = np.zeros((1, 250, 3), np.float32)
        if match.any() and match.argmax() in self.solves:
            actions = PROBLEMS.actions[[match.argmax()]]
        zeros = np.zeros(1)
        return PlanResult(
            actions, zeros, zeros[None], 5, 9, {"total": 0.0}, "fake", "finished", zeros + 0.25
        )


def race(**settings):
    return Race(Seeing(), PROBLEMS, seed=3, make_cost=press_time, **settings)


def test_success_is_what_the_screen_says(tmp_path):
    twin = Solver({0})
    solver = Competitor("solver", Solver({0, 2, 5}), unprojected=twin)
    records = race().run(tmp_path, [solver])
    assert [record.problem for record in records if record.success] == [0, 2, 5]
    assert [r.problem for r in records if r.success_before_projection] == [0]
    assert [record.kind for record in records] == list(PROBLEMS.kind)
    for record in records:
        pressed = PROBLEMS.actions[record.problem, :, 2].sum() if record.success else 0.0
        assert record.final_cost == pytest.approx(pressed)
        assert (record.cost_evaluations, record.denoiser_evaluations) == (5, 9)
        assert record.projection_distance == 0.25
        assert record.wall_ms > 0.0
    assert read_records(tmp_path / "results.jsonl") == records


def test_without_a_twin_the_plan_before_projection_is_unknown(tmp_path):
    records = race().run(tmp_path, [Competitor("solver", Solver({0}))])
    assert {record.success_before_projection for record in records} == {None}


def test_a_planner_sees_pictures_and_nothing_else(tmp_path):
    solver = Solver(set())
    race(budget_ms=5000.0).run(tmp_path, [Competitor("solver", solver)])
    asked = solver.asked[-len(PROBLEMS) :]
    for problem, start, goal in zip(
        asked, PROBLEMS.start.render(), PROBLEMS.goal.render(), strict=True
    ):
        assert isinstance(problem, PlanningProblem)
        assert set(problem.context) == {"state", "goal"}
        np.testing.assert_array_equal(problem.context["state"].ravel(), start.ravel())
        np.testing.assert_array_equal(problem.context["goal"].ravel(), goal.ravel())
        assert problem.init_action is None
        assert 0.0 < problem.deadline_s <= 5.0
    assert [problem.seed for problem in asked] == [problem_seed(3, i) for i in range(7)]
    assert len({problem.seed for problem in asked}) == 7


def test_the_cost_is_withheld_where_the_planner_must_not_rank(tmp_path):
    solver = Solver(set())
    race().run(tmp_path, [Competitor("solver", solver, with_cost=False)])
    assert all(problem.cost is None for problem in solver.asked)


def test_turns_rotate_after_the_warm_up(tmp_path):
    log = []
    names = "abc"
    race().run(tmp_path, [Competitor(name, Solver(set(), log, name)) for name in names])
    warm_up, turns = log[:-21], log[-21:]
    assert Counter(warm_up) == {"a": 2, "b": 2, "c": 2}
    assert "".join(turns) == "abcbcacababcbcacababc"


def test_warm_up_screens_are_not_the_problems(tmp_path):
    solver = Solver(set())
    race().run(tmp_path, [Competitor("solver", solver)])
    seen = {problem.context["state"].tobytes() for problem in solver.asked[:2]}
    assert not seen & {problem.context["state"].tobytes() for problem in solver.asked[2:]}


def test_a_run_resumes_where_it_was_cut(tmp_path):
    first = race().run(tmp_path, [Competitor("a", Solver({0, 1}))])
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:4]))
    cold = read_cold(tmp_path)
    solver, told = Solver({0, 1}), []
    again = race().run(tmp_path, [Competitor("a", solver)], lambda *progress: told.append(progress))
    assert len(solver.asked) == 2 + 3  # warm-up, then the three that were missing
    assert told == [("plan", 1, 3), ("plan", 2, 3), ("plan", 3, 3)]
    assert [replace(r, wall_ms=0.0) for r in again] == [replace(r, wall_ms=0.0) for r in first]
    assert read_cold(tmp_path) == cold


def test_a_complete_run_plans_nothing_and_others_can_join(tmp_path):
    race().run(tmp_path, [Competitor("a", Solver({0}))])
    done, new = Solver({0}), Solver({1})
    records = race().run(tmp_path, [Competitor("a", done), Competitor("b", new)])
    assert done.asked == []
    assert Counter(record.planner for record in records) == {"a": 7, "b": 7}
    only = race().run(tmp_path, [Competitor("b", new)])
    assert {record.planner for record in only} == {"b"}


def test_the_first_plan_is_recorded_apart(tmp_path):
    class SlowAtFirst(Solver):
        def optimize(self, problem):
            time.sleep(0.0 if self.asked else 0.2)
            return super().optimize(problem)

    records = race().run(tmp_path, [Competitor("slow", SlowAtFirst(set()), build_ms=7.0)])
    cold = json.loads((tmp_path / "cold.json").read_text())["slow"]
    assert cold["build_ms"] == 7.0
    assert cold["first_plan_ms"] >= 200.0
    assert len(records) == 7
