"""The recorded sweep finds the true best and comes back from disk as it was."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from builders.race import answer, benchmark, write_world_model

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, read_tuned
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.planners.sweep import sweep, tune_planners
from vj2_ddim_benchmark.tuning import PlanScore
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.spec import ActionSpec

SPACE = {"lr": (0.1, 1.0, 10.0), "start": ("zeros", "centre")}
PLANNER = Planner("planner", lambda assets, settings: None, SPACE)


def test_success_chooses_then_cost_then_order():
    scored = ((0.2, 0.0), (0.7, 9.0), (0.7, 8.0), (0.7, 8.0), (0.6, 1.0), (0.0, 0.0))
    scores = dict(zip(itertools.product(*SPACE.values()), scored, strict=True))
    found = sweep(SPACE, lambda settings: scores[tuple(settings.values())])
    assert found.winner == {"lr": 1.0, "start": "zeros"}
    assert {tuple(t.settings.values()): (t.success, t.cost) for t in found.trials} == scores
    assert found.at_edge == ()


def test_a_winner_at_the_edge_of_the_space_is_told_and_an_empty_setting_refused():
    for best in (0.1, 1.0, 10.0):
        found = sweep(SPACE, lambda settings, best=best: (-abs(settings["lr"] - best), 0.0))
        assert found.winner["lr"] == best
        assert found.at_edge == (() if best == 1.0 else ("lr",))
    with pytest.raises(ConfigError, match="'lr'"):
        sweep({"lr": ()}, lambda settings: (0.0, 0.0))


def test_a_sweep_comes_back(tmp_path):
    found = sweep(SPACE, lambda settings: (settings["lr"], 0.0))
    path = found.write(tmp_path, "planner", {"seed": 3})
    assert read_tuned(tmp_path, PLANNER) == {"lr": 10.0, "start": "zeros"}
    written = json.loads(path.read_text())
    assert written["provenance"] == {"seed": 3}
    assert written["search_space"] == {name: list(values) for name, values in SPACE.items()}
    assert len(written["trials"]) == 6


def test_what_was_never_tuned_says_how_and_a_broken_file_is_named(tmp_path):
    assert read_tuned(tmp_path, replace(PLANNER, search_space={})) == {}  # nothing to tune
    with pytest.raises(ConfigError, match="benchmark tune --planners planner"):
        read_tuned(tmp_path, PLANNER)
    for text in ("", "[]", "{}", '{"winner": {"lr": 1.0}}', '{"winner": 3}'):
        (tmp_path / "planner.json").write_text(text)
        with pytest.raises(DataError, match=r"planner\.json"):
            read_tuned(tmp_path, PLANNER)


class Seeing:
    """A world model that encodes nothing, for planners that look at nothing."""

    def encode(self, frames):
        return np.zeros((len(frames), 1, 1), np.float32)


class Answers:
    """Returns given actions, as many rows at a time as it is asked for."""

    def __init__(self, actions):
        self.actions, self.seeds = actions, []

    def optimize(self, problem):
        num = len(problem.context["state"])
        self.seeds.append(problem.seed)
        chosen, self.actions = self.actions[:num], self.actions[num:]
        return answer(chosen, num, cost=2.0)


def no_cost(world_model, state, goal):
    return lambda candidates: np.zeros(candidates.shape[:2])


def test_the_score_is_of_the_executed_plans():
    problems = one_gesture_problems(7, split="validation", seed=0)
    score = PlanScore(Seeing(), problems, seed=5, make_cost=no_cost)
    actions = problems.actions.copy()
    actions[:2] = 0.0
    answers = Answers(actions)
    success, cost = score(answers)
    assert success == pytest.approx(5 / 7)
    assert cost == 2.0
    assert answers.seeds == list(range(5, 12))


def test_only_what_can_be_tuned_is_tuned(tmp_path):
    problems = one_gesture_problems(4, split="validation", seed=0)
    score = PlanScore(Seeing(), problems, make_cost=no_cost)

    def build(assets, settings):
        return Answers(problems.actions * settings["gain"])

    planner, told = Planner("gain", build, {"gain": (0.0, 1.0)}), []
    asked = (*planners_of(["random-gestures-16"]), planner), PlannerAssets(ActionSpec()), score, {}
    sweeps = tune_planners(tmp_path, *asked, lambda *progress: told.append(progress))
    assert list(sweeps) == ["gain"]
    assert [path.name for path in tmp_path.iterdir()] == ["gain.json"]
    assert read_tuned(tmp_path, planner) == {"gain": 1.0}
    assert told == [("tune gain", 1, 2), ("tune gain", 2, 2)]


def test_tuning_from_the_shell(tmp_path, capsys):
    model = write_world_model(tmp_path / "world_model.pt")
    out, planners = tmp_path / "tuned", "gradient-descent-sgd-10,random-gestures-16"
    options = ("--num-problems", 2, "--planners", planners, "--threads", 1)
    assert benchmark("tune", "--world-model", model, "--out", out, *options) == 0
    written = json.loads((out / "gradient-descent-sgd-10.json").read_text())
    assert written["provenance"]["split"] == "validation"
    assert written["winner"] in [trial["settings"] for trial in written["trials"]]
    assert "gradient-descent-sgd-10" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["gradient-descent-sgd-10.json"]
