"""The race: fair turns, no peeking, success judged apart, and runs that resume."""

import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from builders.race import Seeing, answer, latents_of

from vj2_ddim_benchmark.race.folder import RaceFolder, gather, todo_list
from vj2_ddim_benchmark.race.records import Record, read_records
from vj2_ddim_benchmark.race.tasks import Race, ReadyPlanner, most_generous, problem_seed
from vj2_ddim_benchmark.race.workers import Worker, in_this_process
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_plugin.cli.console import silent
from vj2_ddim_plugin.interface import PlanningProblem

PROBLEMS = one_gesture_problems(7, split="validation", seed=1)
TARGETS = latents_of(PROBLEMS.goal.render())


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
        return answer(actions, projection=0.25)


def run(out, planners, progress=silent, budgets=(None,)):
    race = Race(Seeing(), PROBLEMS, seed=3, make_cost=press_time)
    executor = in_this_process(Worker(race, planners, budgets))
    names, folder = [planner.name for planner in planners], RaceFolder(out)
    return gather(folder, names, budgets, len(PROBLEMS), executor, progress, kind=Record)


def test_success_is_what_the_screen_says(tmp_path):
    twin = Solver({0})
    solver = ReadyPlanner("solver", Solver({0, 2, 5}), unprojected=twin)
    records = run(tmp_path, [solver])
    assert [record.problem for record in records if record.success] == [0, 2, 5]
    assert [r.problem for r in records if r.success_before_projection] == [0]
    assert [record.kind for record in records] == list(PROBLEMS.kind)
    for record in records:
        pressed = PROBLEMS.actions[record.problem, :, 2].sum() if record.success else 0.0
        assert record.final_cost == pytest.approx(pressed)
        assert (record.cost_evaluations, record.denoiser_evaluations) == (5, 9)
        assert record.projection_distance == 0.25
        assert record.wall_ms > 0.0
    assert read_records(tmp_path / "results.jsonl", Record) == records
    alone = ReadyPlanner("alone", Solver({0}), with_cost=False)  # without a twin, and no ranking
    records = run(tmp_path / "alone", [alone])
    assert {record.success_before_projection for record in records} == {None}
    assert all(problem.cost is None for problem in alone.optimizer.asked)


def test_a_planner_sees_pictures_and_nothing_else(tmp_path):
    solver = Solver(set())
    run(tmp_path, [ReadyPlanner("solver", solver)], budgets=(5000.0,))
    asked = solver.asked[-len(PROBLEMS) :]
    pictures = PROBLEMS.start.render(), PROBLEMS.goal.render()
    for problem, start, goal in zip(asked, *pictures, strict=True):
        assert isinstance(problem, PlanningProblem)
        assert set(problem.context) == {"state", "goal"}
        np.testing.assert_array_equal(problem.context["state"].ravel(), start.ravel())
        np.testing.assert_array_equal(problem.context["goal"].ravel(), goal.ravel())
        assert problem.init_action is None
        assert 0.0 < problem.deadline_s <= 5.0
    assert [problem.seed for problem in asked] == [problem_seed(3, i) for i in range(7)]
    assert len({problem.seed for problem in asked}) == 7


def test_turns_rotate_after_the_warm_up_and_every_planner_races_under_every_budget(tmp_path):
    log = []
    names, budgets = "abc", (10.0, 50.0, None)
    run(tmp_path / "free", [ReadyPlanner(name, Solver(set(), log, name)) for name in names])
    warm_up, turns = log[:-21], log[-21:]
    assert Counter(warm_up) == {"a": 2, "b": 2, "c": 2}
    assert "".join(turns) == "abcbcacababcbcacababc"
    log.clear()
    planners = [ReadyPlanner(name, Solver({1}, log, name)) for name in names]
    records = run(tmp_path, planners, budgets=budgets)
    warm_up, turns = log[:-63], log[-63:]
    assert Counter(warm_up) == {"a": 4, "b": 4, "c": 4}  # the first plan, then one a budget
    assert "".join(turns[:18]) == "abcabcabc" + "bcabcabca"
    keys = [(record.planner, record.problem, record.budget_ms) for record in records]
    assert keys[:4] == [("a", 0, 10.0), ("b", 0, 10.0), ("c", 0, 10.0), ("a", 0, 50.0)]
    assert len(set(keys)) == len(keys) == 63
    deadlines = [problem.deadline_s for problem in planners[0].optimizer.asked]
    assert deadlines[0] is None  # the cold plan is a full one
    assert [d and round(d, 2) for d in deadlines[1:4]] == [0.01, 0.05, None]


def test_a_run_is_resumed_by_planner_problem_and_budget(tmp_path):
    run(tmp_path, [ReadyPlanner("a", Solver({1}))], budgets=(10.0,))
    again = [ReadyPlanner("a", Solver({1})), ReadyPlanner("b", Solver({2}))]
    told = []
    progress = lambda *words: told.append(words)  # noqa: E731
    records = run(tmp_path, again, progress, budgets=(10.0, None))
    assert told[-1] == ("plan", 21, 21)  # of 28, 7 were there
    assert len(records) == 28
    assert len(run(tmp_path, again[1:], budgets=(None,))) == 7


def test_what_is_left_to_do_and_the_most_generous_budget():
    todos = todo_list("ab", (1.0, None), 2, {("a", 0, 1.0), ("b", 1, None), ("a", 7, None)})
    assert [(todo.problem, todo.turns) for todo in todos] == [
        (0, (("b", 1.0), ("a", None), ("b", None))),
        (1, (("b", 1.0), ("a", 1.0), ("a", None))),
    ]
    assert todo_list("a", (None,), 1, {("a", 0, None)}) == []
    assert most_generous([10.0, 50.0]) == 50.0
    assert most_generous([10.0, None]) is None
    assert most_generous([None]) is None


def test_a_planner_may_bring_a_world_model_but_is_judged_by_the_races(tmp_path):
    class Blind(Seeing):
        def encode(self, frames):
            return np.zeros_like(super().encode(frames))

    solver = Solver(set())
    records = run(tmp_path, [ReadyPlanner("blind", solver, world_model=Blind())])
    assert not any(problem.context["goal"].any() for problem in solver.asked)
    assert {record.final_cost for record in records} == {0.0}  # press_time of no press


def test_warm_up_screens_are_not_the_problems(tmp_path):
    solver = Solver(set())
    run(tmp_path, [ReadyPlanner("solver", solver)])
    seen = {problem.context["state"].tobytes() for problem in solver.asked[:2]}
    assert not seen & {problem.context["state"].tobytes() for problem in solver.asked[2:]}


def test_a_run_resumes_where_it_was_cut(tmp_path):
    first = run(tmp_path, [ReadyPlanner("a", Solver({0, 1}))])
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:4]))
    cold = RaceFolder(tmp_path).read_cold()
    solver, told = Solver({0, 1}), []
    again = run(tmp_path, [ReadyPlanner("a", solver)], lambda *progress: told.append(progress))
    assert len(solver.asked) == 2 + 3  # warm-up, then the three that were missing
    assert told == [("plan", 1, 3), ("plan", 2, 3), ("plan", 3, 3)]
    assert [replace(r, wall_ms=0.0) for r in again] == [replace(r, wall_ms=0.0) for r in first]
    assert RaceFolder(tmp_path).read_cold() == cold


def test_a_complete_run_plans_nothing_and_others_can_join(tmp_path):
    run(tmp_path, [ReadyPlanner("a", Solver({0}))])
    done, new = Solver({0}), Solver({1})
    records = run(tmp_path, [ReadyPlanner("a", done), ReadyPlanner("b", new)])
    assert done.asked == []
    assert Counter(record.planner for record in records) == {"a": 7, "b": 7}
    only = run(tmp_path, [ReadyPlanner("b", new)])
    assert {record.planner for record in only} == {"b"}


def test_the_first_plan_is_recorded_apart(tmp_path):
    class SlowAtFirst(Solver):
        def optimize(self, problem):
            time.sleep(0.0 if self.asked else 0.2)
            return super().optimize(problem)

    records = run(tmp_path, [ReadyPlanner("slow", SlowAtFirst(set()), build_ms=7.0)])
    cold = json.loads((tmp_path / "cold.json").read_text())["slow"]
    assert cold["build_ms"] == 7.0
    assert cold["first_plan_ms"] >= 200.0
    assert len(records) == 7
