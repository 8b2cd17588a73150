"""A slider: pressed anywhere on its track, the knob follows the finger to where it is lifted."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import ACCENT, INK, KNOB, MUTED
from vj2_ddim_benchmark.world.touch import PAGE, Gestures
from vj2_ddim_benchmark.world.widgets.widget import MARGIN, Parts, Strokes, Widget
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Slider"]

LAST = 100  # the state at the right end
HALF_KNOB = 9.0  # half the knob's width, and the track's distance from the box, in page pixels
STRAY = 48.0  # page pixels above or below the track where lifting the finger cancels
LEAST_CHANGE = 12  # of scripted gestures


class Slider(Widget):
    """The state is the place of the knob in hundredths of the track; it counts within 6 of them."""

    kind = "slider"
    max_count = 2
    choices = ((0, 0),)
    tolerance = 6

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """150 x 24 to 228 x 36."""
        ones = np.ones((len(options), 1))
        return ones * (150.0, 24.0), ones * (228.0, 36.0)

    def num_states(self, options: IntArray) -> IntArray:
        """Hundredths, both ends included."""
        return np.full(len(options), LAST + 1)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """The knob goes where the finger is lifted, unless that is far above or below."""
        first, length = _track(parts)
        share = (gestures.end[:, 0] - first) / length
        middle = (parts.boxes[:, 1] + parts.boxes[:, 3]) / 2
        follows = np.abs(gestures.end[:, 1] - middle) <= STRAY
        place = np.rint(LAST * np.clip(share, 0.0, 1.0)).astype(int)
        return np.where(follows, place, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A thin track, coloured up to a framed knob."""
        left, top, right, bottom = parts.boxes.T
        middle, knob = (top + bottom) / 2, _knob(parts)
        frame = stack_boxes(knob - HALF_KNOB, top, knob + HALF_KNOB, bottom)
        boxes = [
            stack_boxes(left, middle - 4.0, right, middle + 4.0),
            stack_boxes(left, middle - 4.0, knob, middle + 4.0),
            frame,
            frame + np.array([3.0, 3.0, -3.0, -3.0]),
        ]
        colors = parts.colors[:, [MUTED, ACCENT, INK, KNOB]]
        return Rectangles(np.stack(boxes, axis=1), colors)

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """The knob dragged to a place clearly elsewhere, or that place tapped."""
        span = LAST + 1 - 2 * LEAST_CHANGE
        place = (parts.state + LEAST_CHANGE + rng.integers(span, size=len(parts.state))) % (
            LAST + 1
        )
        near = np.abs(place - parts.state) < LEAST_CHANGE
        place = np.where(near, (place + LAST // 2) % (LAST + 1), place)
        first, length = _track(parts)
        top, bottom = parts.boxes[:, 1] + MARGIN, parts.boxes[:, 3] - MARGIN
        end = np.stack([first + place / LAST * length, rng.uniform(top, bottom)], axis=1)
        grip = _knob(parts) + rng.uniform(-6.0, 6.0, len(place))
        knob = np.stack([grip, rng.uniform(top, bottom)], axis=1)
        tapped = rng.random((len(place), 1)) < 0.5
        return Strokes(np.where(tapped, end, knob), np.clip(end, 0.0, PAGE))


def _track(parts: Parts) -> tuple[FloatArray, FloatArray]:
    """Where the knob's centre begins and how far it goes, `[m]` each."""
    return parts.boxes[:, 0] + HALF_KNOB, parts.widths - 2 * HALF_KNOB


def _knob(parts: Parts) -> FloatArray:
    """x of the knob's centre, `[m]`."""
    first, length = _track(parts)
    return np.asarray(first + parts.state / LAST * length)
