"""A menu: a long press on its head opens it; a tap on an item chooses it and closes the menu."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles
from vj2_ddim_benchmark.world.palettes import INK, KEYS, SURFACE
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_boxes, cell_under, other_than, shrunk
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Menu"]

NUM_ITEMS = 3


class Menu(Widget):
    """State i is closed with item i chosen, 3 + i is open with item i chosen."""

    kind = "menu"
    max_count = 1
    choices = ((0, 0),)

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """A head and three items, 27 to 36 pixels high each, 84 to 140 wide."""
        ones = np.ones((len(options), 1))
        return ones * (84.0, 108.0), ones * (140.0, 144.0)

    def num_states(self, options: IntArray) -> IntArray:
        """Open or closed, and the item chosen."""
        return np.full(len(options), 2 * NUM_ITEMS)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A long press on a closed menu's head opens it; a tap on an open one's item chooses."""
        rows, is_open = _rows(parts), parts.state >= NUM_ITEMS
        start, end = cell_under(gestures.start, rows), cell_under(gestures.end, rows)
        opens = gestures.long_pressed & ~is_open & (start == 0)
        chooses = gestures.tapped & is_open & (start == end) & (start > 0)
        state = np.where(opens, parts.state + NUM_ITEMS, parts.state)
        return np.where(chooses, start - 1, state)

    def draw(self, parts: Parts) -> Rectangles:
        """A framed head in the chosen item's colour; below it, while open, the items' colours."""
        rows, is_open = _rows(parts), parts.state >= NUM_ITEMS
        palette = parts.colors[:, KEYS][:, [0, 3, 6]]
        chosen = palette[np.arange(len(rows)), parts.state % NUM_ITEMS][:, None]
        panel = np.where(is_open[:, None], parts.boxes, 0.0)[:, None]
        items = np.where(is_open[:, None, None], rows[:, 1:], 0.0)
        boxes = [panel, rows[:, :1], shrunk(rows[:, :1], 5.0), items]
        colors = [parts.colors[:, [SURFACE, INK]], chosen, palette]
        return Rectangles(np.concatenate(boxes, axis=1), np.concatenate(colors, axis=1))

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A long press where closed; where open, a tap on an item that is not chosen."""
        rows, index = _rows(parts), np.arange(len(parts.state))
        is_open = parts.state >= NUM_ITEMS
        item = other_than(parts.state % NUM_ITEMS, np.full(len(index), NUM_ITEMS), rng)
        taps = taps_inside(rows[index, np.where(is_open, 1 + item, 0)], rng)
        return Strokes(taps.start, taps.end, None, ~is_open)

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """Opening is one gesture, choosing another; an open menu closes by choosing."""
        opened, wanted_open = state >= NUM_ITEMS, other >= NUM_ITEMS
        same_item = state % NUM_ITEMS == other % NUM_ITEMS
        to_closed = np.where(opened, 1, np.where(same_item, 0, 2))
        to_open = np.where(same_item, np.where(opened, 0, 1), np.where(opened, 2, 3))
        return np.where(wanted_open, to_open, to_closed).astype(np.float64)


def _rows(parts: Parts) -> FloatArray:
    """Boxes `[m, 4, 4]` of the head and the items."""
    ones = np.ones(len(parts.state), np.int64)
    return cell_boxes(parts.boxes, (1 + NUM_ITEMS) * ones, ones, 1 + NUM_ITEMS)
