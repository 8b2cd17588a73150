"""The comparison on TwoRoom: that its recordings, physics and evaluation mean what they say."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_worldmodel import World

from vj2_ddim_benchmark.two_room import ENVIRONMENT, lewm
from vj2_ddim_benchmark.two_room.compare import RANDOM, markdown_table, rate, verdict
from vj2_ddim_benchmark.two_room.episodes import (
    Episodes,
    Recording,
    collect_episodes,
    cut_windows,
    load_episodes,
    load_positions,
)
from vj2_ddim_benchmark.two_room.evaluation import (
    EvaluationSettings,
    OneByOne,
    build_solver,
    evaluate,
    policy_of,
    time_in_turns,
)
from vj2_ddim_benchmark.two_room.geometry import Rooms
from vj2_ddim_benchmark.two_room.lewm import LeWMConfig, LeWMTraining, WorldModel
from vj2_ddim_benchmark.two_room.prepare import DENOISER_TRAINING, Preparation, prepare
from vj2_ddim_benchmark.two_room.rules import choose_pairs, judge
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


def test_no_recorded_move_is_illegal(episodes):
    crossings = 0
    for first, length in zip(episodes.starts, episodes.lengths, strict=True):
        route = episodes.positions[first : first + length].tolist()
        for before, at in pairwise(route):
            assert Rooms().is_legal(before, at)
            crossings += (before[0] > WALL) != (at[0] > WALL)
    assert crossings > 3


def moved(name, start, action, speed):
    """Where an environment's agent is after one action of a given speed."""
    env = gym.make(name).unwrapped
    env.reset(seed=0)
    env.variation_space["agent"]["speed"].set_value(np.array([speed], np.float32))
    env._set_state(start)
    env._set_goal_state((150.0, 150.0))
    env.step(np.array(action, np.float32))
    return tuple(env.agent_position.tolist())


def test_what_the_host_admits_and_the_swept_disk_does_not():
    """It looks at the end alone: out of the doorway through its side, and into the doorway's."""
    host = "swm/TwoRoom-v1"
    for start, action in (((99.0, 65.0), (1.0, -0.2)), ((103.0, 56.0), (1.0, 0.8))):
        admitted, ours = (moved(name, start, action, 10.5) for name in (host, ENVIRONMENT))
        meant = tuple(np.add(start, 10.5 * np.array(action)))
        assert admitted == pytest.approx(meant, abs=1e-3)
        assert not Rooms().is_legal(start, admitted)
        assert math.dist(ours, meant) > 0.5
        assert Rooms().is_legal(ours, ours)


def test_what_neither_hinders_is_the_same_in_both():
    for start, action in (((60.0, 150.0), (0.7, -0.3)), ((108.0, 49.0), (1.0, 0.1))):
        both = [moved(name, start, action, 5.0) for name in ("swm/TwoRoom-v1", ENVIRONMENT)]
        assert both[0] == pytest.approx(both[1], abs=1e-5)


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


SETTINGS = EvaluationSettings(goal_offset=12, eval_budget=40)


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


def test_routes_are_those_of_the_pairs(recording):
    """Who walks straight for the goal succeeds where the door is in line; who stands still never.

    No move is illegal, whoever makes it: what is in the way is not gone through.
    """
    manifest = choose_pairs(load_positions(recording), 6, 0, SETTINGS.goal_offset)
    for speed in (1.0, 0.0):
        timed = OneByOne(Straight(speed))
        policy = policy_of(timed, world_model_of(None), SETTINGS)
        routes = evaluate(policy, recording, manifest, SETTINGS)
        verdicts = [judge(of, pair.goal) for of, pair in zip(routes, manifest.pairs, strict=True)]
        for route, pair, told in zip(routes, manifest.pairs, verdicts, strict=True):
            assert route[0] == pair.start
            assert told.illegal_moves == 0
            in_line = Rooms().is_legal(pair.start, pair.goal)
            assert (told.strict is not None) or not (speed and in_line)
            assert len(route) == 1 + (told.strict or SETTINGS.eval_budget)
        if speed == 0:
            assert {(told.moderate, told.crossings) for told in verdicts} == {(None, 0)}
            assert len(timed.seconds) == 6 * 2  # 40 steps, 25 a plan
        else:
            assert any(told.strict for told in verdicts)


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
    seconds = time_in_turns(solvers, [{"n": 0}, {"n": 1}], 3)["processor"]
    assert asked == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 0), ("b", 0)]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}


def row(policy, seed, moderate, strict):
    return {"policy": policy, "seed": seed, "moderate": moderate, "strict": strict}


def test_the_table_and_the_verdict():
    """Two seeds of two pairs each."""
    rows = [
        row("CEM", 0, [10, None], [None, None]), row("CEM", 1, [20, 30], [25, None]),
        row("ours, 1 sample", 0, [5, 6], [7, 8]), row("ours, 1 sample", 1, [7, None], [9, None]),
        row(RANDOM, 0, [None, None], [None, None]), row(RANDOM, 1, [None, None], [None, None]),
    ]  # fmt: skip
    assert [rate(rows[0], rule) for rule in ("moderate", "strict")] == [0.5, 0]
    assert [(told["rule"], told["difference"]) for told in verdict(rows)] == [
        ("moderate", 0),
        ("strict", 0.5),
    ]
    seconds = {"CEM": [0.1, 0.3], "ours, 1 sample": [0.01, 0.01]}
    lines = markdown_table(rows, seconds).splitlines()
    assert lines[2].startswith("| CEM | 75.0% (50 / 100; ")
    assert lines[2].endswith(" | 20 / 25 | 200.0 | 290.0 |")
    assert lines[-1].startswith(f"| {RANDOM} | 0.0% (0 / 0; ")


def test_the_hosts_solver_is_what_the_rules_ask_for():
    solver = build_solver("CEM", world_model_of(torch.nn.Linear(1, 1)), {}, 0)
    assert (solver.batch_size, solver.num_samples, solver.n_steps, solver.topk) == (1, 300, 30, 30)


def test_what_was_recorded_is_read_as_it_was():
    results = Path(__file__).parents[2] / "benchmark" / "results" / "two_room.json"
    recorded = json.loads(results.read_text())
    for kind, told in recorded["verdict"].items():
        rows = [one for one in recorded["rows"] if one["set"] == kind]
        assert verdict(rows) == told
        assert all(one["illegal_moves"] == 0 for one in rows)
        assert {len(one["moderate"]) for one in rows} == {100}


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
        denoisers={"a sampler": "train"},
        lewm=SMALL,
        lewm_training=FEW_STEPS,
        num_windows=(40, 8),
        denoiser_training=replace(DENOISER_TRAINING, num_epochs=1, batch_size=20),
    )
    said = []
    world_model, bundles = prepare(tmp_path, what, said.append)
    assert bundles == {"a sampler": tmp_path / "a_sampler" / "bundle"}
    assert any("LeWM, step 0 of 2" in line for line in said)
    spec = read_bundle(bundles["a sampler"]).action_spec
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
