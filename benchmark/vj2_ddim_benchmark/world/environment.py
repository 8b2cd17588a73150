"""The `gymnasium` environment `TouchScreen-v0`: one screen, one goal, one action block a step."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.layouts import require_split
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import NUM_STEPS
from vj2_ddim_plugin.errors import ConfigError

__all__ = ["TouchScreenEnv"]

MAX_SEED = 2**31


class TouchScreenEnv(gymnasium.Env[Images, NDArray[np.float32]]):
    """A phone screen to be brought into a goal state.

    Observations are pictures, uint8 `[size, size, 3]`; actions are blocks, float32 `[250, 3]` of x,
    y, press in [0, 1] at 500 Hz. The reward is 1 in the goal state, which ends the episode, and 0
    elsewhere. `info` holds `state` and `goal_state` (int `[S]`), `goal` (the goal's picture) and
    `state_distance`.

    Args:
        split: Whose layouts to draw: `"train"`, `"validation"` or `"test"`.
        size: Width and height of the picture, in pixels.
        render_mode: `"rgb_array"` or None.

    Raises:
        ConfigError: The split or the render mode is unknown, or the size out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self, split: str = "train", size: int = 64, render_mode: str | None = None
    ) -> None:
        require_split(split)
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode must be 'rgb_array' or None; found {render_mode!r}")
        self.split, self.size, self.render_mode = split, size, render_mode
        self.screen = TouchScreen.generate(1, split=split, seed=0, size=size)
        self.goal = self.screen
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (NUM_STEPS, 3), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Start on a fresh screen, one gesture from its goal, or on a given one.

        Args:
            seed: Seeds this and all later resets.
            options: `screen` (a `TouchScreen` of one) and `goal_state` (int `[S]`); or none.

        Raises:
            ConfigError: The options are not those.
            DataError: The goal state is not a state of the screen.
        """
        super().reset(seed=seed)
        if options:
            self.screen, self.goal = _screen_and_goal(options, self.size)
        else:
            seed = int(self.np_random.integers(MAX_SEED))
            problem = one_gesture_problems(1, split=self.split, seed=seed, size=self.size)
            self.screen, self.goal = problem.start, problem.goal
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        """Perform one action block, `[250, 3]`.

        Raises:
            ActionError: The action is not an array of numbers of that shape.
        """
        self.screen = self.screen.execute(np.asarray(action)[None])
        reached = bool(self.screen.matches(self.goal.state)[0])
        return self._observation(), float(reached), reached, False, self._info()

    def render(self) -> Images | None:
        """The picture `[size, size, 3]`, or None without a render mode."""
        return self._observation() if self.render_mode == "rgb_array" else None

    def _observation(self) -> Images:
        return np.asarray(self.screen.render()[0])

    def _info(self) -> dict[str, Any]:
        return {
            "state": self.screen.state[0].copy(),
            "goal_state": self.goal.state[0].copy(),
            "goal": self.goal.render()[0],
            "state_distance": float(self.screen.state_distance(self.goal.state)[0]),
        }


def _screen_and_goal(options: dict[str, Any], size: int) -> tuple[TouchScreen, TouchScreen]:
    screen = options.get("screen")
    if set(options) != {"screen", "goal_state"} or not isinstance(screen, TouchScreen):
        raise ConfigError(
            f"options must hold a TouchScreen as 'screen' and its 'goal_state'; found "
            f"{sorted(options)}"
        )
    if screen.num_screens != 1 or screen.size != size:
        raise ConfigError(
            f"options: screen must be one screen of size {size}; found {screen.num_screens} of "
            f"size {screen.size}"
        )
    return screen, screen.with_state(np.asarray(options["goal_state"])[None])
