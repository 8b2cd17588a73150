"""Many `TouchScreen-v0` environments at once, touched and rendered as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.environment import TouchScreenEnv, draw_episode
from vj2_ddim_benchmark.world.layouts import Layout
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["TouchScreenVectorEnv"]

Flags = NDArray[np.bool_]


class TouchScreenVectorEnv(VectorEnv[Images, NDArray[np.float32], NDArray[Any]]):
    """n environments, each the same as `TouchScreenEnv` with its seed, in a fraction of the time.

    Observations are `[n, size, size, 3]`, actions `[n, 250, 3]`. An environment that has ended is
    reset by the next step, which ignores its action (`AutoresetMode.NEXT_STEP`). Every entry of
    `info` has n rows; the one called `_name` says which rows of `name` are set: all of them.
    """

    def __init__(
        self,
        num_envs: int = 1,
        split: str = "train",
        size: int = 64,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Make the environments; `gymnasium.make_vec("TouchScreen-v0", n)` does it with their spec.

        Args:
            num_envs: n.
            split: Whose layouts to draw: `"train"`, `"validation"` or `"test"`.
            size: Width and height of the pictures, in pixels.
            render_mode: `"rgb_array"` or None.
            max_episode_steps: Steps after which an episode is truncated; None is never.

        Raises:
            ConfigError: A number is out of range, or the split or the render mode unknown.
        """
        if num_envs < 1 or (max_episode_steps is not None and max_episode_steps < 1):
            raise ConfigError(
                f"num_envs and max_episode_steps must be at least 1; found {num_envs} and "
                f"{max_episode_steps}"
            )
        single = TouchScreenEnv(split, size, render_mode)
        self.num_envs, self.split, self.size = num_envs, split, size
        self.render_mode, self.max_episode_steps = render_mode, max_episode_steps
        self.metadata = {**single.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self.screens = self.goals = single.screen.select(np.zeros(num_envs, int))
        self._goal_pictures = self.goals.render()
        self._num_steps = np.zeros(num_envs, np.int64)
        self._over: Flags | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Images, dict[str, Any]]:
        """Start each environment on a fresh screen, one gesture from its goal.

        Args:
            seed: One for each, or an integer for `seed`, `seed + 1` and so on; None goes on.
            options: None; a screen of one's own is for the single environment.

        Raises:
            ConfigError: There are not n seeds, or there are options.
        """
        if options:
            raise ConfigError(f"options must be empty for n environments; found {sorted(options)}")
        seeds: Sequence[int | None] = (
            [seed + index for index in range(self.num_envs)]
            if isinstance(seed, (int, np.integer))
            else [None] * self.num_envs
            if seed is None
            else list(seed)
        )
        if len(seeds) != self.num_envs:
            raise ConfigError(f"there must be {self.num_envs} seeds; found {len(seeds)}")
        for index, own in enumerate(seeds):
            if own is not None or self._rngs[index] is None:
                self._rngs[index] = np_random(own)[0]
        self._over = np.zeros(self.num_envs, bool)
        self._restart(np.ones(self.num_envs, bool))
        return self.screens.render(), self._info()

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Images, FloatArray, Flags, Flags, dict[str, Any]]:
        """Perform one action block each, `[n, 250, 3]`; those that have ended start anew instead.

        Raises:
            ActionError: The actions are not an array of numbers of that shape.
            gymnasium.error.ResetNeeded: There was no reset before.
        """
        if self._over is None:
            raise gymnasium.error.ResetNeeded("call reset before the first step")
        self.screens = self.screens.execute(actions)
        self._num_steps += 1
        self._restart(self._over)
        terminated = self.screens.matches(self.goals.state)
        limit = np.inf if self.max_episode_steps is None else self.max_episode_steps
        truncated = self._num_steps >= limit
        self._over = terminated | truncated
        frames = self.screens.render()
        return frames, terminated.astype(np.float64), terminated, truncated, self._info()

    def render(self) -> tuple[Images, ...] | None:
        """The pictures, `[size, size, 3]` each, or None without a render mode."""
        return tuple(self.screens.render()) if self.render_mode == "rgb_array" else None

    def _restart(self, chosen: Flags) -> None:
        """Draw a new screen and goal where chosen, `[n]`."""
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return
        rngs = [rng for rng, new in zip(self._rngs, chosen, strict=True) if new and rng is not None]
        starts, goals = zip(
            *(draw_episode(self.split, self.size, rng) for rng in rngs), strict=True
        )
        index = np.arange(self.num_envs)
        index[rows] = self.num_envs + np.arange(len(rows))
        self.screens = _joined([self.screens, *starts]).select(index)
        self.goals = _joined([self.goals, *goals]).select(index)
        self._goal_pictures[rows] = self.goals.select(rows).render()
        self._num_steps[rows] = 0

    def _info(self) -> dict[str, Any]:
        values = {
            "state": self.screens.state.copy(),
            "goal_state": self.goals.state.copy(),
            "goal": self._goal_pictures.copy(),
            "state_distance": self.screens.state_distance(self.goals.state),
        }
        return values | {f"_{name}": np.ones(self.num_envs, bool) for name in values}


def _joined(screens: list[TouchScreen]) -> TouchScreen:
    """All of them in one batch."""
    layouts = [part.layout for part in screens]
    columns = (
        np.concatenate([getattr(layout, field.name) for layout in layouts])
        for field in fields(Layout)
    )
    state = np.concatenate([part.state for part in screens])
    return replace(screens[0], layout=Layout(*columns), state=state)
