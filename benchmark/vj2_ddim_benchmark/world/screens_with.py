"""Screens that hold a widget of a wanted kind: some kinds are rare on screens drawn freely."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = ["screens_with"]

SPARE = 4  # screens drawn for each wanted: nearly always enough have the kind that is wanted
MOST_SPARE = 256


def screens_with(kinds: IntArray, split: str, seed: int, size: int) -> tuple[TouchScreen, IntArray]:
    """Screens, and the row of a different one for each of `kinds` `[num]` that has that kind.

    Args:
        kinds: `[num]` indices in `WIDGETS`.
        split: `"train"`, `"validation"` or `"test"`.
        seed: The same seed gives the same screens.
        size: Width and height of the pictures, in pixels.

    Raises:
        ConfigError: A kind does not occur even on a great many screens.
    """
    spare = SPARE
    while spare <= MOST_SPARE:
        pool = TouchScreen.generate(spare * len(kinds) + 32, split=split, seed=seed, size=size)
        present = pool.layout.num_states > 1
        available = [present[:, kind == SLOT_KINDS].any(axis=1) for kind in range(len(KINDS))]
        taken = np.zeros(pool.num_screens, bool)
        rows = np.full(len(kinds), -1)
        # The rarest kind chooses its screens first, so that no other takes them.
        for kind in np.argsort([mask.sum() for mask in available]):
            wanted = np.flatnonzero(kinds == kind)
            found = np.flatnonzero(available[kind] & ~taken)[: len(wanted)]
            rows[wanted[: len(found)]] = found
            taken[found] = True
        if (rows >= 0).all():
            return pool, rows
        spare *= 2
    missing = KINDS[kinds[rows < 0][0]]
    raise ConfigError(
        f"too few screens of the {split} split have a {missing}; ask for fewer problems"
    )
