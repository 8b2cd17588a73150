"""A lamp between two buttons: a tap on either of them switches it."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import ACCENT, INK, KNOB, MUTED, SURFACE
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_under, shrunk
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Twin"]

BUTTON = 0.24  # width of a button in widths of the box


class Twin(Widget):
    """State 0 is off, 1 is on; between the two buttons, where their average lies, is the lamp."""

    kind = "twin"
    max_count = 1
    choices = ((0, 0),)
    multimodal = True

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """150 x 36 to 228 x 52."""
        ones = np.ones((len(options), 1))
        return ones * (150.0, 36.0), ones * (228.0, 52.0)

    def num_states(self, options: IntArray) -> IntArray:
        """Two."""
        return np.full(len(options), 2)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one button."""
        buttons = _buttons(parts)
        start, end = cell_under(gestures.start, buttons), cell_under(gestures.end, buttons)
        switches = gestures.tapped & (start == end) & (start >= 0)
        return np.where(switches, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel, two framed buttons, and the lamp between them."""
        left, top, right, bottom = parts.boxes.T
        buttons, width = _buttons(parts), parts.widths * (BUTTON + 0.06)
        lamp = stack_boxes(left + width, top + 5.0, right - width, bottom - 5.0)
        boxes = [parts.boxes[:, None], buttons, shrunk(buttons, 4.0), lamp[:, None]]
        colors = parts.colors[:, [SURFACE, INK, INK, KNOB, KNOB, MUTED]]
        colors[:, -1] = np.where(parts.state == 1, parts.colors[:, ACCENT], parts.colors[:, MUTED])
        return Rectangles(np.concatenate(boxes, axis=1), colors)

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on one of the buttons, each as likely."""
        rows = np.arange(len(parts.state))
        return taps_inside(_buttons(parts)[rows, rng.integers(2, size=len(rows))], rng)


def _buttons(parts: Parts) -> FloatArray:
    """Boxes `[m, 2, 4]` of the buttons."""
    left, top, right, bottom = parts.boxes.T
    width = parts.widths * BUTTON
    buttons = (
        stack_boxes(left + 2.0, top + 2.0, left + width, bottom - 2.0),
        stack_boxes(right - width, top + 2.0, right - 2.0, bottom - 2.0),
    )
    return np.stack(buttons, axis=1)
