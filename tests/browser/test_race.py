"""Planners on pages that do as they are told: no browser is needed."""

import itertools
import json
from typing import ClassVar

import numpy as np
import pytest

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.browser import judge as pages_judge
from vj2_ddim_benchmark.browser import race as pages_race
from vj2_ddim_benchmark.browser import tune as pages_tune
from vj2_ddim_benchmark.browser.chromium import BrowserError
from vj2_ddim_benchmark.browser.episode import asking, reaches_in_turn
from vj2_ddim_benchmark.browser.oracle import draw_chain, draw_problem
from vj2_ddim_benchmark.browser.pages import KINDS
from vj2_ddim_benchmark.race.tasks import SPARE_GESTURES, ReadyPlanner
from vj2_ddim_benchmark.settings import BrowserRaceSettings, BrowserTuneSettings
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanResult
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.diffusion_model import DiffusionModel


class Obliging:
    """A session that fails at each page's first touch; every second of the others succeeds."""

    def __init__(self, size):
        self.size, self.shown, self.touches = size, [], 0

    def show(self, page, state):
        if not self.shown or self.shown[0][0] is not page:
            self.shown, self.failed = [], False
        self.shown.append((page, state))
        return np.full((self.size, self.size, 3), 10 * len(self.shown), np.uint8)

    def touch(self, action):
        assert action.shape == (250, 3)
        if not self.failed:
            self.failed = True
            raise BrowserError("it died")
        self.touches += 1
        assert self.shown[-1][1] is self.shown[1][1]  # it begins at the start, every time
        return None, self.shown[0 if self.touches % 2 else -1][1]  # the goal, or nothing happens

    def close(self):
        self.touches = None


def test_planners_race_on_pages_and_a_lost_touch_is_made_again(monkeypatch):
    monkeypatch.setattr(pages_race, "session_of", lambda pages, size: Obliging(size))
    parts, names = shipped_assets(), ("ddim-1", "random-gestures-16")
    how = BrowserRaceSettings(planners=names, num_problems=4, split="validation")
    found = pages_race.race_on_pages(parts.bundle, parts.world_model, how)
    first, second = (found["planners"][name] for name in names)
    assert (first["success"], second["success"]) == (1.0, 0.0)
    assert (first["with_cost"], second["with_cost"]) == (False, True)
    assert first["low"] < 1.0 == first["high"]
    assert set(first["kinds"]) <= set(KINDS)
    assert set(first["kinds"].values()) == {1.0}


class Walking:
    """A session in which every touch brings one more widget into its goal's state, or none."""

    def __init__(self, problem, num_idle=0, num_failing=0):
        self.problem, self.num_idle, self.num_failing = problem, num_idle, num_failing
        self.touches = 0

    def show(self, page, state):
        assert page is self.problem.page
        self.state, self.idle = state, self.num_idle
        return self._picture()

    def touch(self, action):
        self.touches += 1
        if self.num_failing:
            self.num_failing -= 1
            raise BrowserError("it died")
        if self.idle:
            self.idle -= 1
        else:
            apart = np.flatnonzero(self.state != self.problem.goal)
            value = self.problem.page.widgets[apart[0]].value
            shown = [at for at, each in enumerate(self.problem.page.widgets) if each.value == value]
            self.state = self.state.copy()
            self.state[shown] = self.problem.goal[shown]
        return self._picture(), self.state

    def _picture(self):
        """Bars as bright as the states are."""
        picture = np.zeros((64, 64, 3), np.uint8)
        for place, number in enumerate(self.state):
            picture[12 * place : 12 * place + 12] = 40 * (number + 1)
        return picture


class Planning:
    """An optimizer that plans nothing, and remembers what it saw."""

    def __init__(self):
        self.seen, self.seeds = [], []

    def optimize(self, problem):
        self.seen.append(problem.context["state"])
        self.seeds.append(problem.seed)
        zeros, actions = np.zeros(1), np.zeros((1, 250, 3), np.float32)
        return PlanResult(
            actions, zeros, zeros[None], 0, 0, {"total": 0.0}, "fake", "finished", zeros
        )


def walked(length, **how):
    """Whether a chain of that length ends in its goal, and how."""
    problem = draw_chain("validation", length, np.random.default_rng(3))
    session, optimizer = Walking(problem, **how), Planning()
    model = WorldModel.load(shipped_assets().world_model)
    ask = asking(model, ReadyPlanner("walker", optimizer, with_cost=False), 5)
    reached = reaches_in_turn(session, model, problem, ask, length, 1e-6)
    return reached, session, optimizer


def test_a_chain_is_planned_anew_after_every_touch_and_ends_where_page_and_goal_look_alike():
    reached, session, optimizer = walked(3, num_idle=1)
    assert reached
    assert session.touches == 4  # one of them in vain
    assert len(set(optimizer.seeds)) == 4
    same = [np.array_equal(one, other) for one, other in itertools.pairwise(optimizer.seen)]
    assert same == [True, False, False]


def test_a_chain_ends_where_its_touches_run_out():
    reached, session, _ = walked(2, num_idle=9)
    assert not reached
    assert session.touches == 2 + SPARE_GESTURES


def test_a_chain_with_a_lost_touch_begins_again():
    reached, session, optimizer = walked(2, num_failing=1)
    assert reached
    assert session.touches == 1 + 2
    np.testing.assert_array_equal(optimizer.seen[0], optimizer.seen[1])


class Reading:
    """A session in which gestures that begin in the left half lead to the goal."""

    def __init__(self, size):
        self.size, self.goals = size, {}

    def show(self, page, state):
        self.goals.setdefault(id(page), state)  # the goal is shown first
        self.page, self.state = page, state
        return np.full((self.size, self.size, 3), 10 * len(self.goals), np.uint8)

    def touch(self, action):
        left = action[action[:, 2] > 0.5][0, 0] < 0.5
        return None, self.goals[id(self.page)] if left else self.state

    def close(self):
        self.goals.clear()


def test_a_planner_is_tuned_by_what_it_reaches(monkeypatch, tmp_path):
    monkeypatch.setattr(pages_tune, "Session", Reading)
    monkeypatch.setattr(pages_race, "session_of", lambda pages, size: Reading(size))
    parts, reached = shipped_assets(), []
    plan = pages_tune.plan

    def planned(*args, **asked):
        result = plan(*args, **asked)
        pressed = result.actions[0, result.actions[0, :, 2] > 0.5]
        reached.append(pressed[0, 0] < 0.5)
        return result

    monkeypatch.setattr(pages_tune, "plan", planned)
    how = BrowserTuneSettings(planners=("ddim-1",), num_problems=4)
    found = pages_tune.tune_on_pages(parts.bundle, parts.world_model, how, tmp_path)["ddim-1"]
    shares = np.reshape(reached, (-1, 4)).mean(axis=1)
    assert [trial.success for trial in found.trials] == shares.tolist()
    assert max(shares) > 0.0
    written = json.loads((tmp_path / "ddim-1.json").read_text())
    assert written["winner"] == found.winner
    assert written["provenance"]["split"] == "validation"
    race = BrowserRaceSettings(planners=("ddim-1",), num_problems=1)
    with pytest.raises(ConfigError, match="ddim-1 is not tuned"):
        pages_race.race_on_pages(parts.bundle, parts.world_model, race, tuned=tmp_path / "empty")
    pages_race.race_on_pages(parts.bundle, parts.world_model, race, tuned=tmp_path)


def test_only_planners_of_the_race_go_through_chains():
    with pytest.raises(ConfigError, match="chain_planners must be among planners; found ddim-16"):
        BrowserRaceSettings(planners=("ddim-1",), chain_planners=("ddim-16",))


class Remembering(Reading):
    """One that knows the goals that an earlier one has shown."""

    known: ClassVar = {}

    def __init__(self, size):
        self.size, self.goals = size, self.known

    def close(self):
        pass


def test_a_judge_says_how_many_pages_one_sample_solves_and_of_which_kind(monkeypatch):
    monkeypatch.setattr(pages_judge, "Session", Remembering)
    world_model = WorldModel.load(shipped_assets().world_model)
    tokens = (world_model.config.num_tokens, world_model.config.token_dim)
    shapes = {"state": tokens, "goal": tokens}
    spec = read_bundle(shipped_assets().bundle).action_spec
    config = ModelConfig(condition="latents", d_model=16, num_layers=1, nhead=2)
    model = DiffusionModel(config, spec, NoiseSchedule(), shapes).eval()
    judge = pages_judge.pages_success(str(shipped_assets().world_model), num_problems=12)
    reached = judge(model)
    assert reached == judge(model)  # the same pages and noises, whenever it is asked
    rng = seeded("validation", pages_judge.SEED, pages_judge.PURPOSE)
    kinds = [draw_problem("validation", rng).kind for _ in range(12)]
    shares = {kind: reached[f"success_{kind}"] for kind in set(kinds)}
    assert reached["success"] == pytest.approx(np.mean([shares[kind] for kind in kinds]))
    assert 0.0 < reached["success"] < 1.0  # both halves of the page are touched
    assert set(reached) == {"success", *(f"success_{kind}" for kind in kinds)}
