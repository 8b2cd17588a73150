"""Planners on pages that do as they are told: no browser is needed."""

import itertools
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from builders.race import benchmark

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.assets.settings import AmortiseSettings
from vj2_ddim_benchmark.browser import judge as pages_judge
from vj2_ddim_benchmark.browser import race as pages_race
from vj2_ddim_benchmark.browser import tune as pages_tune
from vj2_ddim_benchmark.browser.chromium import BrowserError, PageError
from vj2_ddim_benchmark.browser.episode import (
    asking,
    assets_of,
    made_ready,
    plan_between,
    plan_on,
    reaches,
    reaches_in_turn,
)
from vj2_ddim_benchmark.browser.oracle import draw_chain, draw_problem
from vj2_ddim_benchmark.browser.pages import KINDS
from vj2_ddim_benchmark.race.tasks import SPARE_GESTURES, ReadyPlanner
from vj2_ddim_benchmark.settings import BrowserFiles, BrowserRaceSettings, BrowserTuneSettings
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.touch import tap
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.interface import PlanResult
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
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

    def __init__(self, problem, num_idle=0, num_failing=0, error=BrowserError):
        self.problem, self.num_idle, self.num_failing = problem, num_idle, num_failing
        self.error = error
        self.touches = 0

    def show(self, page, state):
        assert page is self.problem.page
        self.state, self.idle = state, self.num_idle
        return self._picture()

    def touch(self, action):
        self.touches += 1
        if self.num_failing:
            self.num_failing -= 1
            raise self.error("it died")
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


def walked(monkeypatch, length, **how):
    """Whether a chain of that length ends in its goal, and how."""
    problem = draw_chain("validation", length, np.random.default_rng(3))
    session, optimizer = Walking(problem, **how), Planning()
    model, encode = WorldModel.load(shipped_assets().world_model), WorldModel.encode
    session.encoded = 0

    def counted(self, frames):
        session.encoded += len(frames)
        return encode(self, frames)

    monkeypatch.setattr(WorldModel, "encode", counted)
    ask = asking(model, ReadyPlanner("walker", optimizer, with_cost=False), 5)
    reached = reaches_in_turn(session, model, problem, ask, length, 1e-6)
    return reached, session, optimizer


def test_a_chain_is_planned_anew_after_every_touch_and_ends_where_page_and_goal_look_alike(
    monkeypatch,
):
    reached, session, optimizer = walked(monkeypatch, 3, num_idle=1)
    assert reached
    assert session.touches == 4  # one of them in vain
    assert session.encoded == 2 + 4  # goal and page, then the page after each touch
    assert len(set(optimizer.seeds)) == 4
    same = [np.array_equal(one, other) for one, other in itertools.pairwise(optimizer.seen)]
    assert same == [True, False, False]


def test_a_chain_ends_where_its_touches_run_out(monkeypatch):
    reached, session, _ = walked(monkeypatch, 2, num_idle=9)
    assert not reached
    assert session.touches == 2 + SPARE_GESTURES


def test_a_chain_with_a_lost_touch_begins_again(monkeypatch):
    reached, session, optimizer = walked(monkeypatch, 2, num_failing=1)
    assert reached
    assert session.touches == 1 + 2
    np.testing.assert_array_equal(optimizer.seen[0], optimizer.seen[1])


def test_a_plan_that_makes_the_page_throw_leads_nowhere(monkeypatch):
    """However often it is tried: a page, unlike a browser, fails again."""
    reached, session, _ = walked(monkeypatch, 2, num_failing=10**6, error=PageError)
    assert not reached
    problem = draw_chain("validation", 1, np.random.default_rng(3))
    assert not reaches(
        Walking(problem, num_failing=10**6, error=PageError), problem, tap(0.5, 0.5, 10, 30)
    )
    assert reaches(Walking(problem, num_failing=1, error=PageError), problem, tap(0.5, 0.5, 10, 30))
    with pytest.raises(BrowserError, match="it died"):
        reaches(Walking(problem, num_failing=10**6), problem, tap(0.5, 0.5, 10, 30))
    assert session.touches == 3


@pytest.mark.parametrize("name", ["ddim-1", "random-gestures-16"])
def test_a_plan_from_latents_is_the_one_from_pictures(name):
    parts = shipped_assets()
    model = WorldModel.load(parts.world_model)
    (planner,) = made_ready([name], assets_of(parts.bundle, 1, 0), model)
    seen, goal = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = plan_on(model, planner, seen, goal, 4)
    found = plan_between(model, planner, model.encode(seen[None]), model.encode(goal[None]), 4)
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_array_equal(found.cost, expected.cost)


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


def test_an_amortised_planner_is_trained_on_latents_tuned_and_raced(monkeypatch, tmp_path):
    monkeypatch.setattr(pages_tune, "Session", Reading)
    monkeypatch.setattr(pages_race, "session_of", lambda pages, size: Reading(size))
    parts, rng = shipped_assets(), np.random.default_rng(0)
    config = WorldModel.load(parts.world_model).config
    latents = rng.normal(size=(24, 2, config.num_tokens, config.token_dim)).astype(np.float32)
    actions = tap(*rng.uniform(size=(2, 24)), 10, 30)[:, None]
    write_trajectories_h5(
        tmp_path / "data", latents, actions, {"train": range(24)}, layer_normed=False
    )
    words = ["--data-dir", tmp_path / "data", "--bundle", parts.bundle, "--steps", 10]
    words += ["--batch-size", 8, "--d-model", 8, "--longest-goal", 1, "--seed", 2]
    file = tmp_path / "mixture.pt"
    assert benchmark("amortise", "mixture", *words, "--out", file) == 0
    assert [path.name for path in tmp_path.iterdir() if "training" in path.name] == []
    saved = torch.load(file, weights_only=True)
    assert (saved["config"]["kind"], saved["config"]["d_model"]) == ("mixture", 8)
    training = saved["training"]
    assert (training["seed"], training["batch_size"], training["num_threads"]) == (2, 8, 1)
    assert len(saved["provenance"]["loss_by_epoch"]) == 5  # of two steps each
    files = BrowserFiles(amortised={"mixture": str(file)})
    how = BrowserTuneSettings(planners=("mixture-16",), num_problems=1)
    asked = parts.bundle, parts.world_model
    found = pages_tune.tune_on_pages(*asked, how, tmp_path / "tuned", files=files)["mixture-16"]
    assert len(found.trials) == 8
    race = BrowserRaceSettings(planners=("mixture-16",), num_problems=1)
    with pytest.raises(ConfigError, match="mixture=None; give mixture=FILE as amortised"):
        pages_race.race_on_pages(*asked, race, tuned=tmp_path / "tuned")
    raced = pages_race.race_on_pages(*asked, race, tuned=tmp_path / "tuned", files=files)
    assert raced["planners"]["mixture-16"]["with_cost"]
    assert raced["mixture_sha256"] == sha256_of(file)


def test_amortised_models_that_there_are_not_are_told_before_anything_else(tmp_path, capsys):
    assert benchmark("browser", "race", "--amortised", "vae=x.pt") == 1
    assert "amortised has 'vae'; use some of regression, gaussian" in capsys.readouterr().err
    assert benchmark("browser", "tune", "--out", tmp_path, "--amortised", "flow=nowhere.pt") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "vj2-ddim benchmark amortise flow --out nowhere.pt" in said
    words = "--data-dir", tmp_path, "--out", tmp_path / "it.pt"
    assert benchmark("amortise", "ddim", *words) == 1
    assert "kind must be one of regression, gaussian" in capsys.readouterr().err


def test_an_amortised_planner_is_trained_in_whole_epochs():
    for steps, num, epochs, share in ((12720, 169_600, 5, 0.96), (10, 8, 10, 1.0)):
        training = AmortiseSettings(steps=steps, batch_size=64 if num > 8 else 8).training(num)
        assert (training.num_epochs, training.epoch_share) == (epochs, pytest.approx(share))


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
