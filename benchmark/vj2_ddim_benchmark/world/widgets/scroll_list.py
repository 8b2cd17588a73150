"""A list: a window on rows that a vertical drag, anywhere on it, scrolls by whole rows."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import INK, KEYS, MUTED, SURFACE
from vj2_ddim_benchmark.world.touch import PAGE, Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_boxes, other_than
from vj2_ddim_benchmark.world.widgets.widget import MARGIN, Parts, Strokes, Widget
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["ScrollList"]

MAX_SHOWN = 4
BAR = 10.0  # width of the scroll bar, in page pixels
SPARE = 0.3  # how far from whole rows scripted drags go, in rows
SLOPE = 0.25  # largest sideways share of a scripted drag


class ScrollList(Widget):
    """The state is the row on top; options are the rows shown and the rows there are."""

    kind = "list"
    max_count = 1
    choices = ((3, 5), (4, 6), (4, 7))

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Rows of 24 to 32 pixels, 100 to 200 wide."""
        rows = options[:, 0] + 0.0
        ones = np.ones_like(rows)
        return np.stack([100 * ones, 24 * rows], 1), np.stack([200 * ones, 32 * rows], 1)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each row that can be on top."""
        return np.asarray(options[:, 1] - options[:, 0] + 1)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """The content follows a mostly vertical drag and snaps to the nearest row."""
        across, down = (gestures.end - gestures.start).T
        scrolls = gestures.dragged & (np.abs(down) > np.abs(across))
        rows = np.rint(-down / _row_height(parts)).astype(int)
        last = self.num_states(parts.options) - 1
        return np.asarray(np.clip(parts.state + scrolls * rows, 0, last))

    def draw(self, parts: Parts) -> Rectangles:
        """Coloured rows, each row its own hue, and a scroll bar at the right."""
        left, top, right, bottom = parts.boxes.T
        shown, total = parts.options.T
        window = stack_boxes(left, top, right - BAR, bottom)
        ones = np.ones_like(shown)
        rows = cell_boxes(window, shown, ones, MAX_SHOWN)
        hues = np.take_along_axis(
            parts.colors[:, KEYS], parts.state[:, None] + np.arange(MAX_SHOWN), axis=1
        )
        labels = rows + np.array([8.0, 8.0, 0.0, -8.0])
        labels[..., 2] = labels[..., 0] + (rows[..., 2] - rows[..., 0]) * 0.4
        labels = np.where((rows[..., 2] > 0)[..., None], labels, 0.0)
        begin = top + (bottom - top) * parts.state / total
        thumb = stack_boxes(right - BAR, begin, right, begin + (bottom - top) * shown / total)
        bar = stack_boxes(right - BAR, top, right, bottom)
        boxes = [np.stack([parts.boxes, bar, thumb], axis=1), rows, labels]
        frame = parts.colors[:, [SURFACE, MUTED, INK]]
        surfaces = np.repeat(parts.colors[:, SURFACE, None], MAX_SHOWN, axis=1)
        return Rectangles(
            np.concatenate(boxes, axis=1), np.concatenate([frame, hues, surfaces], axis=1)
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A drag that brings another row to the top, begun anywhere on the list."""
        target = other_than(parts.state, self.num_states(parts.options), rng)
        spare = rng.uniform(-SPARE, SPARE, len(target))
        down = (parts.state - target + spare) * _row_height(parts)
        left, top, right, bottom = parts.boxes.T
        low = np.maximum(top + MARGIN, 1.0 - down)
        high = np.minimum(bottom - MARGIN, PAGE - 1.0 - down)
        start = np.stack(
            [rng.uniform(left + MARGIN, right - MARGIN), rng.uniform(low, high)], axis=1
        )
        across = rng.uniform(-SLOPE, SLOPE, len(target)) * np.abs(down)
        return Strokes(start, np.clip(start + np.stack([across, down], axis=1), 0.0, PAGE))


def _row_height(parts: Parts) -> FloatArray:
    return np.asarray((parts.boxes[:, 3] - parts.boxes[:, 1]) / parts.options[:, 0])
