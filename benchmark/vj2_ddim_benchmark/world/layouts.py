"""Laying out pages: an arrangement made exact, with sizes, places and colours.

The sizes of a page's widgets come from a width class and a height class (5 each, fifths of every
widget's range, jittered within), squeezed where the page is full; what room is left is spread
unevenly between and around the widgets. Arrangement, size classes and palette are drawn from those
the split owns (`splits.py`); places are continuous and shared by all splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vj2_ddim_benchmark.world.arrangements import (
    EDGE,
    GAP,
    Arrangement,
    Band,
    all_arrangements,
    arrangements_of,
)
from vj2_ddim_benchmark.world.palettes import PackedColors, draw_palettes
from vj2_ddim_benchmark.world.splits import draw_pairs
from vj2_ddim_benchmark.world.touch import PAGE
from vj2_ddim_benchmark.world.widgets import NUM_SLOTS, SLOT_KINDS, WIDGETS
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Layout", "draw_layouts"]

NUM_SIZE_CLASSES = 5


@dataclass(frozen=True)
class Layout:
    """What a touch cannot change, for n screens of S slots; an absent widget's slot is all zero.

    Attributes:
        boxes: `[n, S, 4]` left, top, right, bottom in page pixels.
        options: `[n, S, 2]`, what each kind makes of them.
        num_states: `[n, S]`, 0 where the widget is absent.
        colors: `[n, NUM_COLORS]` packed.
        codes: `[n, 5]`: arrangement, accent and base sector, width and height class. They say
            which split a layout belongs to, and nothing reads them but a check of that.
    """

    boxes: FloatArray
    options: IntArray
    num_states: IntArray
    colors: PackedColors
    codes: IntArray

    def select(self, index: IntArray) -> Layout:
        """The layouts at an index."""
        return Layout(
            self.boxes[index],
            self.options[index],
            self.num_states[index],
            self.colors[index],
            self.codes[index],
        )


def draw_layouts(num: int, split: str, rng: np.random.Generator) -> Layout:
    """Draw layouts of a split.

    Raises:
        ConfigError: There is no such split.
    """
    arrangement = rng.choice(arrangements_of(split), num)
    colors, sectors = draw_palettes(num, split, rng)
    classes = draw_pairs(num, NUM_SIZE_CLASSES, split, rng)
    boxes = np.zeros((num, NUM_SLOTS, 4))
    options = np.zeros((num, NUM_SLOTS, 2), np.int64)
    num_states = np.zeros((num, NUM_SLOTS), np.int64)
    for code in np.unique(arrangement):
        rows = np.flatnonzero(arrangement == code)
        _lay_out(all_arrangements()[code], rows, classes[rows], (boxes, options), rng)
    for slot, kind in enumerate(SLOT_KINDS):
        rows = np.flatnonzero(boxes[:, slot, 2] > 0)
        num_states[rows, slot] = WIDGETS[kind].num_states(options[rows, slot])
    codes = np.concatenate([arrangement[:, None], sectors, classes], axis=1)
    return Layout(boxes, options, num_states, colors, codes)


def _lay_out(
    arrangement: Arrangement,
    rows: IntArray,
    classes: IntArray,
    out: tuple[FloatArray, IntArray],
    rng: np.random.Generator,
) -> None:
    """Fill in the boxes and options of the screens `rows`, which share an arrangement."""
    slots = _slots(arrangement)
    ranges = []
    for kind, slot in zip((k for band in arrangement for k in band), slots, strict=True):
        options = rng.choice(np.array(WIDGETS[kind].choices), len(rows))
        out[1][rows, slot] = options
        ranges.append(WIDGETS[kind].size_range(options))
    smallest, largest = (np.stack(sizes, axis=1) for sizes in zip(*ranges, strict=True))
    share = (classes[:, None] + rng.random(smallest.shape)) / NUM_SIZE_CLASSES
    wanted = smallest + share * (largest - smallest)
    bands = _band_slices(arrangement)
    low = np.stack([smallest[:, band, 1].max(axis=1) for band in bands], axis=1)
    high = np.stack([wanted[:, band, 1].max(axis=1) for band in bands], axis=1)
    tops, heights = _spread(low, high, rng)
    for index, band in enumerate(bands):
        lefts, widths = _spread(smallest[:, band, 0], wanted[:, band, 0], rng)
        height = np.minimum(wanted[:, band, 1], heights[:, index, None])
        spare = heights[:, index, None] - height
        top = tops[:, index, None] + spare * rng.random(spare.shape)
        box = np.stack([lefts, top, lefts + widths, top + height], axis=-1)
        out[0][rows[:, None], slots[band]] = box


def _spread(
    smallest: FloatArray, wanted: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Starts and lengths `[m, k]` of k things in a row across the page.

    Each is as long as wanted, or all are squeezed alike towards their smallest until they fit; the
    room that is left goes unevenly before, between and behind them.
    """
    num, count = smallest.shape
    room = PAGE - 2 * EDGE - GAP * (count - 1)
    excess = (wanted - smallest).sum(axis=1)
    squeeze = np.minimum(1.0, (room - smallest.sum(axis=1)) / np.maximum(excess, 1e-9))
    lengths = smallest + squeeze[:, None] * (wanted - smallest)
    spare = room - lengths.sum(axis=1)
    spaces = rng.dirichlet(np.ones(count + 1), num)[:, :count] * spare[:, None] + GAP
    ends = np.cumsum(spaces + lengths, axis=1) - GAP + EDGE
    return ends - lengths, lengths


def _slots(arrangement: Arrangement) -> IntArray:
    """The state column of each widget of an arrangement, in reading order."""
    taken = [0] * len(WIDGETS)
    slots = []
    for kind in (kind for band in arrangement for kind in band):
        slots.append(int(np.flatnonzero(kind == SLOT_KINDS)[taken[kind]]))
        taken[kind] += 1
    return np.array(slots)


def _band_slices(arrangement: tuple[Band, ...]) -> list[slice]:
    """Where each band's widgets lie in reading order."""
    ends = np.cumsum([len(band) for band in arrangement]).tolist()
    return [slice(end - len(band), end) for band, end in zip(arrangement, ends, strict=True)]
