"""A dead area: it looks like something, and nothing that is done to it changes anything."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import MUTED, SURFACE
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Panel"]

MAX_LINES = 3


class Panel(Widget):
    """One state; options are the lines of text."""

    kind = "panel"
    max_count = 2
    choices = ((1, 0), (2, 0), (3, 0))
    active = False

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """48 to 130 wide, lines of 16 to 22 pixels."""
        lines = options[:, 0] + 0.0
        ones = np.ones_like(lines)
        return np.stack([48 * ones, 8 + 16 * lines], 1), np.stack([130 * ones, 8 + 22 * lines], 1)

    def num_states(self, options: IntArray) -> IntArray:
        """One."""
        return np.ones(len(options), np.int64)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """Nothing."""
        return parts.state

    def draw(self, parts: Parts) -> Rectangles:
        """A panel with lines on it."""
        left, top, right, bottom = (edge[:, None] for edge in parts.boxes.T)
        lines, count = np.arange(MAX_LINES), parts.options[:, :1]
        middle = top + (lines + 0.5) * (bottom - top) / count
        text = stack_boxes(left + 6.0, middle - 3.0, right - 6.0 - 8.0 * (lines % 2), middle + 3.0)
        text = np.where((lines < count)[..., None], text, 0.0)
        boxes = np.concatenate([parts.boxes[:, None], text], axis=1)
        return Rectangles(boxes, parts.colors[:, [SURFACE, MUTED, MUTED, MUTED]])

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on it, which changes nothing."""
        return taps_inside(parts.boxes, rng)
