"""Which widgets stand where on a page, up to their exact places.

A page is a stack of bands, each of one widget or of two side by side, written
`"carousel / keypad + switch"`. A stack that fits the page and mixes at least two kinds is an
arrangement; a checksum of its name decides which split owns it (`splits.py`).
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import product
from zlib import crc32

import numpy as np

from vj2_ddim_benchmark.world.splits import MODULUS, require_split
from vj2_ddim_benchmark.world.touch import PAGE
from vj2_ddim_benchmark.world.widgets import WIDGETS
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["EDGE", "GAP", "Arrangement", "all_arrangements", "arrangements_of", "name_of"]

EDGE = 8.0  # least page pixels between a widget and the edge of the page
GAP = 8.0  # least page pixels between widgets
NUM_DRAWS = 8000  # pages drawn; repeated ones count once
MAX_TRIES = 6  # bands that are tried on a page, one after the other

Band = tuple[int, ...]  # indices in WIDGETS, left to right
Arrangement = tuple[Band, ...]  # bands, top to bottom


def name_of(arrangement: Arrangement) -> str:
    """The arrangement in words."""
    return " / ".join(" + ".join(WIDGETS[kind].kind for kind in band) for band in arrangement)


@cache
def all_arrangements() -> tuple[Arrangement, ...]:
    """A fixed choice of different arrangements out of the many there are."""
    rng = np.random.default_rng(0)
    kinds = range(len(WIDGETS))
    widths, heights = np.array([_smallest(kind) for kind in kinds]).T.tolist()
    bands: list[Band] = [*((kind,) for kind in kinds), *product(kinds, repeat=2)]
    bands = [band for band in bands if _fits([widths[kind] for kind in band])]
    tall = [max(heights[kind] for kind in band) for band in bands]
    found: dict[str, Arrangement] = {}
    for tries in rng.integers(len(bands), size=(NUM_DRAWS, MAX_TRIES)).tolist():
        chosen: list[int] = []
        for index in tries:
            stack = tuple(bands[i] for i in (*chosen, index))
            if _fits([tall[i] for i in (*chosen, index)]) and _allowed(stack):
                chosen.append(index)
        arrangement = tuple(bands[i] for i in chosen)
        if len({kind for band in arrangement for kind in band}) > 1:
            found[name_of(arrangement)] = arrangement
    return tuple(found.values())


@cache
def arrangements_of(split: str) -> IntArray:
    """Indices in `all_arrangements()` of those that a split owns.

    Raises:
        ConfigError: There is no such split.
    """
    residues = require_split(split)
    codes = [crc32(name_of(arrangement).encode()) % MODULUS for arrangement in all_arrangements()]
    return np.flatnonzero(np.isin(codes, residues))


def _smallest(kind: int) -> FloatArray:
    """Width and height that any choice of options can be squeezed into."""
    widget = WIDGETS[kind]
    return np.asarray(widget.size_range(np.array(widget.choices))[0].max(axis=0))


def _fits(lengths: list[float]) -> bool:
    """Whether widgets or bands of these lengths fit in a row across the page."""
    return sum(lengths) + GAP * (len(lengths) - 1) + 2 * EDGE <= PAGE


def _allowed(stack: Arrangement) -> bool:
    """Whether a page has no more widgets of any kind than it may have."""
    counts = Counter(kind for band in stack for kind in band)
    return all(count <= WIDGETS[kind].max_count for kind, count in counts.items())
