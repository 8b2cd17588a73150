"""A switch: a tap anywhere on it turns it on or off."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import ACCENT, KNOB, MUTED
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, inside, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Switch"]

CORNER = 4.0  # page pixels cut from the track's corners
INSET = 4.0  # page pixels between the track's edge and the knob


class Switch(Widget):
    """State 0 is off (knob at the left), 1 is on (knob at the right, accent colour)."""

    kind = "switch"
    max_count = 4
    choices = ((0, 0),)

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """40 x 28 to 60 x 40."""
        ones = np.ones((len(options), 1))
        return ones * (40.0, 28.0), ones * (60.0, 40.0)

    def num_states(self, options: IntArray) -> IntArray:
        """Two."""
        return np.full(len(options), 2)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that ends on the switch toggles it."""
        toggled = gestures.tapped & inside(gestures.end, parts.boxes)
        return np.where(toggled, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A track with cut corners and a knob half as wide."""
        left, top, right, bottom = parts.boxes.T
        side = (right - left) / 2 - INSET
        knob = np.where(parts.state == 1, right - INSET - side, left + INSET)
        boxes = (
            stack_boxes(left + CORNER, top, right - CORNER, bottom),
            stack_boxes(left, top + CORNER, right, bottom - CORNER),
            stack_boxes(knob, top + INSET, knob + side, bottom - INSET),
        )
        track = np.where(parts.state == 1, parts.colors[:, ACCENT], parts.colors[:, MUTED])
        colors = np.stack([track, track, parts.colors[:, KNOB]], axis=1)
        return Rectangles(np.stack(boxes, axis=1), colors)

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap anywhere on it."""
        return taps_inside(parts.boxes, rng)
