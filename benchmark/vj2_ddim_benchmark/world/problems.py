"""One-gesture problems: a screen, and the same screen after one touch of one widget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.policies import choose_slots, touch_slots
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.splits import SPLITS, require_split
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS
from vj2_ddim_plugin.errors import ConfigError

__all__ = ["Problems", "one_gesture_problems"]

SPARE = 4  # screens drawn for each problem: enough of them have the kind that is wanted


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
    """Draw problems, equally many (give or take one) of each kind, in random order.

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
    kinds = rng.permutation(np.arange(num) % len(KINDS))
    pool = TouchScreen.generate(SPARE * num + 32, split=split, seed=seed, size=size)
    available = [
        (pool.layout.num_states[:, kind == SLOT_KINDS] > 0).any(axis=1)
        for kind in range(len(KINDS))
    ]
    taken = np.zeros(pool.num_screens, bool)
    rows = np.empty(num, np.int64)
    # The rarest kind chooses its screens first, so that no other takes them.
    for kind in np.argsort([mask.sum() for mask in available]):
        wanted = np.flatnonzero(kinds == kind)
        rows[wanted] = np.flatnonzero(available[kind] & ~taken)[: len(wanted)]
        taken[rows[wanted]] = True
    start = pool.select(rows)
    actions = touch_slots(start, choose_slots(start, rng, kinds), rng)
    return Problems(start, start.execute(actions), np.array(KINDS)[kinds], actions)
