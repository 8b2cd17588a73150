"""The gymnasium environment, and the pictures with gestures on them."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vj2_ddim_benchmark.world import (
    TouchScreen,
    TouchScreenEnv,
    draw_gesture,
    one_gesture_problems,
)
from vj2_ddim_benchmark.world.pictures import PRESS, RELEASE
from vj2_ddim_benchmark.world.touch import drag, tap
from vj2_ddim_plugin.errors import ActionError, ConfigError, DataError


def test_the_checker_finds_nothing_wrong():
    env = gymnasium.make("TouchScreen-v0", render_mode="rgb_array")
    check_env(env.unwrapped)


def test_a_seed_names_the_episode():
    env = gymnasium.make("TouchScreen-v0", split="test")
    first, info = env.reset(seed=5)
    second, _ = env.reset()
    again, same = env.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(info["goal"], same["goal"])
    assert (first != second).any()


def test_reaching_the_goal_is_rewarded_and_ends_the_episode():
    problem = one_gesture_problems(1, split="validation", seed=3)
    env = gymnasium.make("TouchScreen-v0", split="validation", render_mode="rgb_array")
    options = {"screen": problem.start, "goal_state": problem.goal.state[0]}
    frame, info = env.reset(options=options)
    np.testing.assert_array_equal(frame, problem.start.render()[0])
    assert info["state_distance"] == 1
    _, reward, terminated, truncated, _ = env.step(np.zeros((250, 3), np.float32))
    assert (reward, terminated, truncated) == (0.0, False, False)
    frame, reward, terminated, _, info = env.step(problem.actions[0])
    assert (reward, terminated) == (1.0, True)
    np.testing.assert_array_equal(info["state"], info["goal_state"])
    np.testing.assert_array_equal(frame, info["goal"])
    np.testing.assert_array_equal(env.render(), frame)


def test_bad_requests_are_refused():
    env = gymnasium.make("TouchScreen-v0").unwrapped
    screens = TouchScreen.generate(2, split="train", seed=0)
    with pytest.raises(ConfigError, match="'scren'"):
        env.reset(options={"scren": screens, "goal_state": screens.state[0]})
    with pytest.raises(ConfigError, match="found 2 of size 64"):
        env.reset(options={"screen": screens, "goal_state": screens.state[0]})
    large = TouchScreen.generate(1, split="train", seed=0, size=128)
    with pytest.raises(ConfigError, match="found 1 of size 128"):
        env.reset(options={"screen": large, "goal_state": large.state[0]})
    with pytest.raises(ConfigError, match="render_mode"):
        TouchScreenEnv(render_mode="human")
    env.reset(seed=0)
    with pytest.raises(ActionError, match="250"):
        env.step(np.zeros((3, 250)))


def test_a_drag_is_drawn_from_press_to_release():
    frame = np.full((64, 64, 3), 90, np.uint8)
    picture = draw_gesture(frame, drag(0.25, 0.5, 0.75, 0.25, 10, 40)[0])
    assert picture.shape == (320, 320, 3)
    assert tuple(picture[160, 80]) == PRESS
    assert tuple(picture[80, 240]) == RELEASE
    assert (picture[120, 160] == 255).all()
    assert (picture[300] == 90).all()
    assert (frame == 90).all()


def test_a_tap_is_a_dot_in_a_ring_even_in_a_corner_and_no_press_is_nothing():
    frame = np.zeros((100, 50, 3), np.uint8)
    picture = draw_gesture(frame, tap(0.5, 0.5, 0, 10)[0])
    assert picture.shape == (700, 350, 3)
    assert tuple(picture[350, 175]) == RELEASE
    assert tuple(picture[350, 182]) == PRESS
    assert draw_gesture(frame, tap(1.0, 1.0, 0, 10)[0]).any()
    assert not draw_gesture(frame, np.zeros((250, 3))).any()
    with pytest.raises(DataError, match="uint8"):
        draw_gesture(frame / 255, np.zeros((250, 3)))
