"""n environments in one batch do what n single environments do."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vj2_ddim_benchmark.world import TouchScreenVectorEnv
from vj2_ddim_benchmark.world.policies import random_policy, touch_slots
from vj2_ddim_plugin.errors import ActionError, ConfigError

NUM = 3


def make(mode=None, **settings):
    return gymnasium.make_vec("TouchScreen-v0", NUM, vectorization_mode=mode, size=32, **settings)


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = ([part[key] for key in sorted(part)] for part in (one, other))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        return np.testing.assert_array_equal(one, other)
    for left, right in zip(one, other, strict=True):
        assert_same(left, right)
    return None


def gestures(envs, rng):
    """The first environment reaches its goal, the second touches anywhere, the third never."""
    screens, goals = envs.unwrapped.screens, envs.unwrapped.goals
    actions = random_policy(NUM, rng)
    slot = (screens.state != goals.state).argmax(axis=1)[:1]
    actions[:1] = touch_slots(screens.select([0]), slot, rng)
    actions[2] = 0.0
    return actions


def test_it_agrees_with_single_environments_step_by_step():
    settings = {"split": "test", "render_mode": "rgb_array", "max_episode_steps": 4}
    batch, single = make(**settings), make("sync", **settings)
    assert isinstance(batch, TouchScreenVectorEnv)
    assert_same(batch.reset(seed=11), single.reset(seed=11))
    rng, ends = np.random.default_rng(0), np.zeros((2, NUM), int)
    for _ in range(9):
        actions = gestures(batch, rng)
        result = batch.step(actions)
        assert_same(result, single.step(actions))
        assert_same(batch.render(), single.render())
        ends += np.stack(result[2:4])
    assert ends[0, 0] >= 2  # goals reached, and fresh ones after them
    assert ends[1, 2] >= 1  # and an episode cut short
    assert_same(batch.reset(), single.reset())
    assert_same(batch.reset(seed=[3, None, 8]), single.reset(seed=[3, None, 8]))


def test_its_spaces_and_modes_are_the_single_ones():
    envs = make()
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert envs.spec.id == "TouchScreen-v0"
    assert envs.unwrapped.max_episode_steps == 20
    assert envs.single_observation_space.shape == (32, 32, 3)
    frames, _ = envs.reset(seed=0)
    assert frames in envs.observation_space
    actions = envs.action_space.sample()
    assert actions.shape == (NUM, 250, 3)
    frames, reward, *_ = envs.step(actions)
    assert frames in envs.observation_space
    assert reward.shape == (NUM,)
    assert envs.render() is None
    envs.close()


def test_what_it_returns_is_not_changed_by_later_steps():
    envs = make()
    _, info = envs.reset(seed=5)
    goal, state = info["goal"].copy(), info["state"].copy()
    rng = np.random.default_rng(0)
    for _ in range(3):
        envs.step(gestures(envs, rng))
    np.testing.assert_array_equal(info["goal"], goal)
    np.testing.assert_array_equal(info["state"], state)


def test_bad_requests_are_refused():
    envs = make()
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(np.zeros((NUM, 250, 3)))
    with pytest.raises(ConfigError, match="3 seeds; found 2"):
        envs.reset(seed=[1, 2])
    with pytest.raises(ConfigError, match="screen"):
        envs.reset(options={"screen": None})
    envs.reset(seed=0)
    with pytest.raises(ActionError, match=r"\(3, 250, 3\)"):
        envs.step(np.zeros((250, 3)))
    with pytest.raises(ConfigError, match="num_envs"):
        TouchScreenVectorEnv(0)
    with pytest.raises(ConfigError, match="'dev'"):
        TouchScreenVectorEnv(2, split="dev")
