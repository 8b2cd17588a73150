"""The comparison on TwoRoom: that its recordings, problems and evaluation mean what they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_worldmodel import World

from vj2_ddim_benchmark.two_room import ENVIRONMENT, lewm
from vj2_ddim_benchmark.two_room.compare import best_settings, markdown_table, row_of, verdict
from vj2_ddim_benchmark.two_room.episodes import (
    Episodes,
    Recording,
    collect_episodes,
    cut_windows,
    load_episodes,
)
from vj2_ddim_benchmark.two_room.evaluation import (
    PUBLISHED,
    EvaluationSettings,
    OneByOne,
    choose_problems,
    evaluate,
    time_in_turns,
)
from vj2_ddim_benchmark.two_room.lewm import LeWMConfig, LeWMTraining, WorldModel
from vj2_ddim_benchmark.two_room.prepare import DENOISER_TRAINING, Preparation, prepare
from vj2_ddim_plugin.bundle import read_bundle

SPEED, WALL = 5.0, 112.0


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return collect_episodes(tmp_path_factory.mktemp("run"), "small", Recording("test", 0.5, 30, 9))


@pytest.fixture(scope="module")
def episodes(recording):
    return load_episodes([recording])


def test_an_action_leads_from_its_image_to_the_next(episodes):
    """Away from the walls the agent moves by 5 pixels times its action, clipped to 1."""
    first = episodes.windows(1)
    moved = episodes.positions[first + 1] - episodes.positions[first]
    wanted = SPEED * episodes.actions[first]
    free = (np.abs(episodes.positions[first, 0] - WALL) > 25) & (
        np.abs(episodes.positions[first] - WALL).max(axis=1) < 80
    )
    assert free.sum() > 50
    np.testing.assert_allclose(moved[free], wanted[free], atol=1e-3)


def test_standing_still_is_exact():
    world = World(ENVIRONMENT, num_envs=1, image_shape=(64, 64))
    world.reset(seed=3)
    before = {key: world.infos[key].copy() for key in ("state", "pixels")}
    world.envs.step(np.zeros((1, 2), np.float32))
    for key, value in before.items():
        np.testing.assert_array_equal(world.infos[key], value)


def test_windows_stay_within_episodes_and_then_stand_still():
    """Two episodes of 4 and 6 steps whose actions are the steps' own numbers."""
    steps = np.arange(1.0, 11.0, dtype=np.float32)
    actions = np.stack([steps, -steps], axis=1)
    small = Episodes(torch.zeros(10, 3, 1, 1), actions, actions, np.array([4, 6]))
    np.testing.assert_array_equal(small.starts, [0, 4])
    np.testing.assert_array_equal(small.windows(3), [0, 4, 5, 6])
    images, taken = cut_windows(small, 5, 400, np.random.default_rng(0))
    assert taken.shape == (400, 5, 2)
    for (start, goal), window in zip(images, taken, strict=True):
        assert (start < 4) == (goal < 4)
        length = goal - start
        assert 1 <= length <= 5
        np.testing.assert_array_equal(window[:length], actions[start:goal])
        np.testing.assert_array_equal(window[length:], 0)
    lengths = np.diff(images, axis=1)
    assert set(lengths.ravel()) == {1, 2, 3, 4, 5}
    assert 0.5 < (lengths == 5).mean() < 0.7  # half of them, and a fifth of the other half


def world_model_of(model):
    return WorldModel(model, LeWMConfig(), np.zeros(2), np.ones(2))


class PerfectModel:
    """A world model whose latents are positions; an image is one pixel that holds its position."""

    def encode(self, info):
        return {"emb": info["pixels"][:, :, :2, 0, 0]}

    def rollout(self, info, actions):
        moved = (5 * actions.unflatten(-1, (-1, 2))).sum(dim=-2).cumsum(dim=2)
        return {"predicted_emb": torch.cat([info["emb"], info["emb"] + moved], dim=2)}


def test_the_error_of_a_perfect_world_model_is_the_grid(monkeypatch):
    """Predicted positions are told by the nearest known one; off by half a pixel, error a half."""
    monkeypatch.setattr(lewm, "image_transform", lambda: lambda images: images)
    actions = np.tile(np.array([[1.0, 0.0]], np.float32), (11, 1))
    positions = np.cumsum(5 * actions, axis=0).astype(np.float32)

    def made_of(where):
        images = torch.nn.functional.pad(torch.from_numpy(where), (0, 1))[..., None, None]
        return Episodes(images, actions[: len(where)], where, np.array([len(where)]))

    model = world_model_of(PerfectModel())
    known = made_of(positions + np.array([0.5, 0.0], np.float32))
    measured = lewm.prediction_error(model, known, made_of(positions), 2)
    assert measured["moved"] == [25.0, 50.0]
    np.testing.assert_allclose(measured["error"], [0.5, 0.5])


SETTINGS = EvaluationSettings(goal_offset=12, eval_budget=40, num_envs=4)


def test_problems_are_within_their_episodes_and_not_solved_yet(recording, episodes):
    problems = choose_problems(recording, 8, SETTINGS)
    assert len(set(problems.episodes)) == 8
    for episode, start in zip(problems.episodes, problems.starts, strict=True):
        assert start + SETTINGS.goal_offset < episodes.lengths[episode]
        row = episodes.starts[episode] + start
        between = episodes.positions[row] - episodes.positions[row + SETTINGS.goal_offset]
        assert np.linalg.norm(between) > 16


class Straight:
    """Heads straight for the goal's true position, or stands still."""

    def __init__(self, speed):
        self.speed = speed

    def configure(self, *, action_space, n_envs, config):
        self.n_envs, self.horizon, self.action_dim = n_envs, config.horizon, 10

    def __call__(self, info, init_action=None):
        return self.solve(info, init_action)

    def solve(self, info, init_action=None):
        away = (info["goal_state"] - info["state"])[:, 0].float()
        step = self.speed * away / torch.linalg.norm(away, dim=-1, keepdim=True).clamp(min=1e-6)
        return {"actions": step.repeat(1, 5)[:, None].repeat(1, self.horizon, 1)}


def test_success_is_reaching_the_goal(recording, episodes):
    """Who walks straight gets there, where no wall is between; who stands still never does."""
    problems = choose_problems(recording, 8, SETTINGS)
    rows = episodes.starts[problems.episodes] + problems.starts
    sides = [episodes.positions[rows + step, 0] > WALL for step in (0, SETTINGS.goal_offset)]
    world_model = world_model_of(None)
    outcome = evaluate(Straight(1.0), world_model, problems, SETTINGS)
    same_room = sides[0] == sides[1]
    assert same_room.sum() >= 3
    assert np.array(outcome.successes)[same_room].all()
    still = evaluate(Straight(0.0), world_model, problems, SETTINGS)
    assert still.successes == [False] * 8
    assert len(still.plan_seconds) == 8 * 2  # 40 steps, 25 a plan


def test_one_by_one_asks_for_each_environment():
    solver = Straight(1.0)
    solver.configure(action_space=None, n_envs=3, config=SETTINGS)
    info = {"state": torch.zeros(3, 1, 2), "goal_state": torch.eye(3)[:, None, :2]}
    timed = OneByOne(solver)
    torch.testing.assert_close(timed(info)["actions"], solver(info)["actions"])
    assert len(timed.seconds) == 3


def test_turns_are_taken():
    asked = []
    solvers = {
        name: lambda info, init_action, name=name: asked.append((name, info["n"])) for name in "ab"
    }
    seconds = time_in_turns(solvers, [{"n": 0}, {"n": 1}], 3)
    assert asked == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 0), ("b", 0)]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}


def row(solver, variant, successes, seconds, settings=None):
    outcome = type("Outcome", (), {"successes": successes, "plan_seconds": [seconds]})
    entry = {"solver": solver, "variant": variant, "settings": settings or {}}
    return {**row_of(entry, outcome), "p95_plan_s": seconds}


def test_the_best_settings_and_the_verdict():
    rows = [
        row("CEM", "tuned", [True, False], 0.3, {"topk": 10}),
        row("CEM", "tuned", [True, False], 0.2, {"topk": 30}),
        row("CEM", "tuned", [False, False], 0.1, {"topk": 50}),
        row("MPPI", "tuned", [True, True], 9.0),
    ]
    assert best_settings(rows, "CEM") == {"topk": 30}
    ours = row("ours", "ours", [True, True], 0.03)
    (told,) = verdict([ours, *rows])
    assert told["best_of_the_host"] == "MPPI, tuned"
    assert told["success_difference"] == 0
    assert told["time_ratio"] == pytest.approx(0.03 / 9)
    lines = markdown_table([ours, *rows]).splitlines()
    assert lines[2].startswith("| ours | ours | 100.0% |")
    assert "tuned: topk 50 | 0.0%" in lines[-1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_that_tuning_tries_can_be_built(name):
    world_model, kind = world_model_of(torch.nn.Linear(1, 1)), PUBLISHED[name]
    for settings in [{}, *kind.candidates()]:
        solver = kind.build(settings, world_model)
        assert solver.batch_size == 1
        rounds = settings.get("n_steps", settings.get("budget", (0, 30))[1])
        assert solver.n_steps == rounds


def test_what_was_recorded_is_read_as_it_was():
    results = Path(__file__).parents[2] / "benchmark" / "results" / "two_room.json"
    recorded = json.loads(results.read_text())
    assert verdict(recorded["rows"]) == recorded["verdict"]
    best = markdown_table(recorded["rows"]).splitlines()[2]
    assert best.startswith("| ours, 16 candidates, 4 steps | ours | 97.0% | 91.5% to 99.0% |")


SMALL = LeWMConfig(width=16, encoder_depth=1, predictor_depth=1, num_heads=2)
FEW_STEPS = LeWMTraining(num_steps=2, batch_size=4, num_projections=8)


def test_a_training_that_was_cut_short_goes_on_to_the_last_bit(tmp_path, episodes):
    def interrupt(line):
        raise KeyboardInterrupt

    file = tmp_path / "lewm-training.pt"
    with pytest.raises(KeyboardInterrupt):
        lewm.train_lewm(episodes, SMALL, FEW_STEPS, file, interrupt)
    resumed = lewm.train_lewm(episodes, SMALL, FEW_STEPS, file).model.state_dict()
    whole = lewm.train_lewm(episodes, SMALL, FEW_STEPS).model.state_dict()
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_a_small_preparation_ends_in_a_bundle(tmp_path):
    """Collect, train, encode, train, export; and what is there is not made again."""
    what = Preparation(
        {"a": Recording("train", 1.0, 12, 0), "b": Recording("validation", 1.0, 6, 50)},
        lewm=SMALL,
        lewm_training=FEW_STEPS,
        num_windows=(40, 8),
        denoiser_training=replace(DENOISER_TRAINING, num_epochs=1, batch_size=20),
    )
    said = []
    world_model, bundle = prepare(tmp_path, what, said.append)
    assert any("LeWM, step 0 of 2" in line for line in said)
    spec = read_bundle(bundle).action_spec
    assert (spec.length, spec.channels, spec.press_channel) == (25, ("vx", "vy"), None)
    scaler = world_model.action_scaler()
    bounds = np.array([spec.action_low, spec.action_high])
    np.testing.assert_allclose(scaler.inverse_transform(bounds), [[-1, -1], [1, 1]], atol=1e-6)
    pixels = torch.rand(2, 1, 3, 64, 64)
    before = world_model.model.encode({"pixels": pixels})["emb"]
    said.clear()
    again, _ = prepare(tmp_path, what, said.append)
    assert not any("LeWM" in line or "exporting" in line for line in said)
    torch.testing.assert_close(again.model.encode({"pixels": pixels})["emb"], before)
    assert lewm.load_lewm(tmp_path / "lewm.pt").config == what.lewm
