"""Which widgets stand where on a page, up to their exact places.

A page is a stack of bands, each of one widget or of two side by side, written
`"carousel / keypad + switch"`. Every stack that fits the page and mixes at least two kinds is an
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
MAX_BANDS = 4

Band = tuple[int, ...]  # indices in WIDGETS, left to right
Arrangement = tuple[Band, ...]  # bands, top to bottom


def name_of(arrangement: Arrangement) -> str:
    """The arrangement in words."""
    return " / ".join(" + ".join(WIDGETS[kind].kind for kind in band) for band in arrangement)


@cache
def all_arrangements() -> tuple[Arrangement, ...]:
    """Every arrangement, in a fixed order: those of one band first."""
    kinds = range(len(WIDGETS))
    widths, heights = np.array([_smallest(kind) for kind in kinds]).T.tolist()
    bands: list[Band] = [*((kind,) for kind in kinds), *product(kinds, repeat=2)]
    bands = [band for band in bands if _fits([widths[kind] for kind in band])]
    tall = {band: max(heights[kind] for kind in band) for band in bands}
    found: list[Arrangement] = []
    stacks: list[Arrangement] = [()]
    for _ in range(MAX_BANDS):
        taller = ((*stack, band) for stack in stacks for band in bands)
        fitting = (stack for stack in taller if _fits([tall[band] for band in stack]))
        stacks = [stack for stack in fitting if _allowed(stack)]
        found += [stack for stack in stacks if len({kind for band in stack for kind in band}) > 1]
    return tuple(found)


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
