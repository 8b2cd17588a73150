"""One-gesture problems: a screen, and the same screen after one touch of one widget.

A third of them are of multimodal kinds, where several different gestures reach the goal and their
average does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.policies import choose_slots, touch_slots
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.screens_with import screens_with
from vj2_ddim_benchmark.world.splits import SPLITS, require_split
from vj2_ddim_benchmark.world.widgets import KINDS, WIDGETS
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = ["Problems", "one_gesture_problems"]

PERIOD = 36  # problems after which the kinds come round again


@dataclass(frozen=True)
class Problems:
    """n goals that one gesture reaches.

    Attributes:
        start: The screens to start from.
        goal: The same screens in the states to reach.
        kind: `[n]`, the kind of widget that must be touched.
        actions: float32 `[n, 250, 3]`, a gesture that reaches each goal.
    """

    start: TouchScreen
    goal: TouchScreen
    kind: NDArray[np.str_]
    actions: NDArray[np.float32]

    def __len__(self) -> int:
        """n."""
        return len(self.kind)


def one_gesture_problems(num: int, *, split: str, seed: int, size: int = 64) -> Problems:
    """Draw problems in random order.

    A third are multimodal; within each third and the rest, equally many (give or take one) of each
    kind.

    Args:
        num: How many.
        split: `"train"`, `"validation"` or `"test"`.
        seed: The same seed gives the same problems.
        size: Width and height of the pictures, in pixels.

    Raises:
        ConfigError: The split is unknown, or a number is out of range.
    """
    require_split(split)
    if num < 1 or seed < 0:
        raise ConfigError(f"num must be at least 1 and seed at least 0; found {num} and {seed}")
    rng = np.random.default_rng([seed, SPLITS.index(split), 1])
    first = int(rng.integers(PERIOD)) if num < PERIOD else 0  # of few problems, not always the same
    kinds = rng.permutation(_kinds_in_turn(first + num)[first:])
    pool, rows = screens_with(kinds, split, seed, size)
    start = pool.select(rows)
    actions = touch_slots(start, choose_slots(start, rng, kinds), rng)
    return Problems(start, start.execute(actions), np.array(KINDS)[kinds], actions)


def _kinds_in_turn(num: int) -> IntArray:
    """Indices in `WIDGETS` `[num]`: every third one of a multimodal kind, each kind in turn."""
    index = np.arange(num)
    several = np.flatnonzero([widget.multimodal for widget in WIDGETS])
    single = np.flatnonzero([not widget.multimodal and widget.active for widget in WIDGETS])
    return np.where(
        index % 3 == 2,
        several[index // 3 % len(several)],
        single[(index - index // 3) % len(single)],
    )
