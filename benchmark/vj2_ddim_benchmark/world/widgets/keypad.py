"""A keypad: a tap on a key selects it; the key is ringed and the display takes its colour."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import INK, KEYS, SURFACE
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_boxes, cell_under, other_than, shrunk
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Keypad"]

DISPLAY = 20.0  # height of the display, in page pixels
GAP = 2.0  # half the dead space between keys
RING = 5.0  # width of the ring around the selected key
MAX_KEYS = 9


class Keypad(Widget):
    """The state is the selected key, counted row by row; options are rows and columns."""

    kind = "keypad"
    max_count = 1
    choices = ((2, 3), (3, 2), (3, 3))

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Keys of 28 to 44 pixels and the space around them, under a display."""
        cells = options[:, ::-1] + 0.0
        return cells * 32.0 + (0.0, DISPLAY), cells * 48.0 + (0.0, DISPLAY)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each key."""
        return np.asarray(options.prod(axis=1))

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one key selects it."""
        keys = _key_boxes(parts)
        start, end = cell_under(gestures.start, keys), cell_under(gestures.end, keys)
        selects = gestures.tapped & (start == end) & (start >= 0)
        return np.where(selects, start, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel, the display, a ring behind the selected key, and the keys."""
        rows = np.arange(len(parts.state))
        keys = _key_boxes(parts)
        palette = parts.colors[:, KEYS]
        left, top, right, _ = parts.boxes.T
        display = stack_boxes(left + GAP, top + GAP, right - GAP, top + DISPLAY - GAP)
        selected = keys[rows, parts.state]
        faces = shrunk(keys, RING * (np.arange(MAX_KEYS) == parts.state[:, None]))
        boxes = np.concatenate([np.stack([parts.boxes, display, selected], axis=1), faces], axis=1)
        frame = [parts.colors[:, SURFACE], palette[rows, parts.state], parts.colors[:, INK]]
        return Rectangles(boxes, np.concatenate([np.stack(frame, axis=1), palette], axis=1))

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on any key but the selected one."""
        key = other_than(parts.state, self.num_states(parts.options), rng)
        return taps_inside(_key_boxes(parts)[np.arange(len(key)), key], rng)


def _key_boxes(parts: Parts) -> FloatArray:
    """Boxes `[m, 9, 4]` of the keys."""
    keys = parts.boxes + np.array([0.0, DISPLAY, 0.0, 0.0])
    return cell_boxes(keys, parts.options[:, 0], parts.options[:, 1], MAX_KEYS, GAP)
