"""A radio group: a column of options; a tap on one selects it."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import ACCENT, INK, MUTED, SURFACE
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_boxes, cell_under, other_than, shrunk
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Radio"]

MAX_OPTIONS = 5


class Radio(Widget):
    """The state is the selected option, from the top; options are how many there are."""

    kind = "radio"
    max_count = 1
    choices = ((3, 0), (4, 0), (5, 0))

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Rows of 25 to 34 pixels, 72 to 120 wide."""
        rows = options[:, 0] + 0.0
        return _sizes(72.0, 25.0 * rows), _sizes(120.0, 34.0 * rows)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each option."""
        return np.asarray(options[:, 0])

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one option selects it."""
        rows = _rows(parts)
        start, end = cell_under(gestures.start, rows), cell_under(gestures.end, rows)
        chosen = gestures.tapped & (start == end) & (start >= 0)
        return np.where(chosen, start, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel; in each row a button, ringed and filled where selected, and a label."""
        rows = _rows(parts)
        left, top, right, bottom = np.moveaxis(rows, -1, 0)
        side = np.minimum(bottom - top - 6.0, 20.0)
        middle = (top + bottom) / 2
        buttons = stack_boxes(left + 4.0, middle - side / 2, left + 4.0 + side, middle + side / 2)
        labels = stack_boxes(left + side + 14.0, middle - 3.0, right - 6.0, middle + 3.0)
        there = (rows[..., 2] > 0)[..., None]
        selected = np.arange(MAX_OPTIONS) == parts.state[:, None]
        colors = [parts.colors[:, index, None] for index in (INK, ACCENT, MUTED, SURFACE)]
        ink, accent, muted, surface = (np.repeat(color, MAX_OPTIONS, axis=1) for color in colors)
        boxes = [parts.boxes[:, None], buttons, shrunk(buttons, 4.0), labels]
        boxes[1:] = [np.where(there, box, 0.0) for box in boxes[1:]]
        fills = [
            parts.colors[:, SURFACE, None],
            np.where(selected, ink, muted),
            np.where(selected, accent, surface),
            np.where(selected, ink, muted),
        ]
        return Rectangles(np.concatenate(boxes, axis=1), np.concatenate(fills, axis=1))

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on any option but the selected one."""
        option = other_than(parts.state, parts.options[:, 0], rng)
        return taps_inside(_rows(parts)[np.arange(len(option)), option], rng)


def _sizes(width: float, heights: FloatArray) -> FloatArray:
    return np.stack([np.full_like(heights, width), heights], axis=1)


def _rows(parts: Parts) -> FloatArray:
    """Boxes `[m, 5, 4]` of the options."""
    ones = np.ones(len(parts.state), np.int64)
    return cell_boxes(parts.boxes, parts.options[:, 0], ones, MAX_OPTIONS, gap=1.0)
