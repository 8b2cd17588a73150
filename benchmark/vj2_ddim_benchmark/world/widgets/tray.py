"""A tray of slots with one piece in it: drag the piece onto another slot and drop it there."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles
from vj2_ddim_benchmark.world.palettes import ACCENT, INK, MUTED, SURFACE
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_boxes, cell_under, other_than, shrunk
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Tray"]

MAX_SLOTS = 6


class Tray(Widget):
    """The state is the slot that holds the piece, counted row by row; options: rows, columns."""

    kind = "tray"
    max_count = 1
    choices = ((1, 3), (1, 4), (2, 2), (2, 3))

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Slots of 40 to 54 pixels."""
        cells = options[:, ::-1] + 0.0
        return cells * 40.0, cells * 54.0

    def num_states(self, options: IntArray) -> IntArray:
        """One for each slot."""
        return np.asarray(options.prod(axis=1))

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A drag that starts on the piece and ends in a slot moves it there."""
        slots = _slots(parts)
        target = cell_under(gestures.end, slots)
        holds = cell_under(gestures.start, slots) == parts.state
        moves = gestures.dragged & holds & (target >= 0)
        return np.where(moves, target, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel, the slots, and the piece, framed, in its own."""
        slots = _slots(parts)
        own = slots[np.arange(len(slots)), parts.state][:, None]
        boxes = [parts.boxes[:, None], slots, shrunk(own, 4.0), shrunk(own, 9.0)]
        muted = np.repeat(parts.colors[:, MUTED, None], MAX_SLOTS, axis=1)
        colors = [parts.colors[:, [SURFACE]], muted, parts.colors[:, [INK, ACCENT]]]
        return Rectangles(np.concatenate(boxes, axis=1), np.concatenate(colors, axis=1))

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """The piece dragged, straight, onto any other slot."""
        slots, rows = _slots(parts), np.arange(len(parts.state))
        target = other_than(parts.state, self.num_states(parts.options), rng)
        grip = taps_inside(shrunk(slots[rows, parts.state], 4.0), rng).start
        return Strokes(grip, taps_inside(shrunk(slots[rows, target], 4.0), rng).start)


def _slots(parts: Parts) -> FloatArray:
    """Boxes `[m, 6, 4]` of the slots."""
    return cell_boxes(parts.boxes, parts.options[:, 0], parts.options[:, 1], MAX_SLOTS)
