"""The gymnasium environment, alone and many at once, and the pictures with gestures on them."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from vj2_ddim_benchmark.world import TouchScreen, TouchScreenEnv, draw_gesture, one_gesture_problems
from vj2_ddim_benchmark.world.pictures import PRESS, RELEASE
from vj2_ddim_benchmark.world.policies import random_policy, touch_slots
from vj2_ddim_benchmark.world.touch import drag, tap
from vj2_ddim_plugin.errors import ActionError, ConfigError, DataError


def test_the_checker_finds_nothing_wrong_and_a_seed_names_the_episode():
    check_env(gymnasium.make("TouchScreen-v0", render_mode="rgb_array").unwrapped)
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
    large = TouchScreen.generate(1, split="train", seed=0, size=128)
    for name, screen, message in (
        ("scren", screens, "'scren'"), ("screen", screens, "found 2 of size 64"),
        ("screen", large, "found 1 of size 128"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            env.reset(options={name: screen, "goal_state": screen.state[0]})
    for wrong, message in (({"render_mode": "human"}, "render_mode"), ({"split": "dev"}, "'dev'")):
        with pytest.raises(ConfigError, match=message):
            TouchScreenEnv(**wrong)
    env.reset(seed=0)
    with pytest.raises(ActionError, match="250"):
        env.step(np.zeros((3, 250)))


def gestures(singles, rng):
    """The first environment reaches its goal, the second touches anywhere, the third never."""
    actions = random_policy(3, rng)
    first = singles[0].unwrapped
    slot = (first.screen.state != first.goal.state).argmax(axis=1)
    actions[:1] = touch_slots(first.screen, slot, rng)
    actions[2] = 0.0
    return actions


def begun_anew(single):
    frame, info = single.reset()
    return frame, 0.0, False, False, info


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_many_at_once_are_single_environments_step_by_step(mode):
    settings = {"split": "test", "size": 32, "max_episode_steps": 4}
    many = gymnasium.make_vec("TouchScreen-v0", 3, vectorization_mode=mode, **settings)
    singles = [gymnasium.make("TouchScreen-v0", **settings) for _ in range(3)]
    assert many.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    frames, infos = many.reset(seed=11)
    rows = [single.reset(seed=11 + index) for index, single in enumerate(singles)]
    first_goal, first_state = infos["goal"].copy(), infos["state"].copy()
    kept, over, rng, ends = infos, [False] * 3, np.random.default_rng(0), np.zeros((2, 3), int)
    for step in range(10):
        assert frames in many.observation_space
        for index, (frame, *_, info) in enumerate(rows):
            np.testing.assert_array_equal(frames[index], frame)
            for name, value in info.items():
                np.testing.assert_array_equal(infos[name][index], value)
        if step == 9:
            break
        actions = gestures(singles, rng)
        frames, rewards, *flags, infos = many.step(actions)
        rows = [
            begun_anew(single) if done else single.step(action)
            for single, done, action in zip(singles, over, actions, strict=True)
        ]
        np.testing.assert_array_equal(rewards, [row[1] for row in rows])
        np.testing.assert_array_equal(flags, np.array([row[2:4] for row in rows]).T)
        over = np.any(flags, axis=0)
        ends += flags
    assert ends[0, 0] >= 2  # goals reached, and fresh ones after them
    assert ends[1, 2] >= 1  # and an episode cut short
    np.testing.assert_array_equal(kept["goal"], first_goal)  # what it returned does not change
    np.testing.assert_array_equal(kept["state"], first_state)
    many.close()


def test_gestures_are_drawn_from_press_to_release():
    frame = np.full((64, 64, 3), 90, np.uint8)
    picture = draw_gesture(frame, drag(0.25, 0.5, 0.75, 0.25, 10, 40)[0])
    assert picture.shape == (320, 320, 3)
    assert tuple(picture[160, 80]) == PRESS
    assert tuple(picture[80, 240]) == RELEASE
    assert (picture[120, 160] == 255).all()
    assert (picture[300] == 90).all()
    assert (frame == 90).all()
    # A tap is a dot in a ring, even in a corner, and no press is nothing.
    frame = np.zeros((100, 50, 3), np.uint8)
    picture = draw_gesture(frame, tap(0.5, 0.5, 0, 10)[0])
    assert picture.shape == (700, 350, 3)
    assert tuple(picture[350, 175]) == RELEASE
    assert tuple(picture[350, 182]) == PRESS
    assert draw_gesture(frame, tap(1.0, 1.0, 0, 10)[0]).any()
    assert not draw_gesture(frame, np.zeros((250, 3))).any()
    with pytest.raises(DataError, match="uint8"):
        draw_gesture(frame / 255, np.zeros((250, 3)))
