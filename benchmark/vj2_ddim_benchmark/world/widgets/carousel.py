"""A carousel: a strip of pages; a horizontal drag that is long or fast enough turns one page."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import INK, MUTED, PAGE_MARKS, PAGES, SURFACE
from vj2_ddim_benchmark.world.touch import PAGE, Gestures
from vj2_ddim_benchmark.world.widgets.widget import MARGIN, Parts, Strokes, Widget
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Carousel"]

THRESHOLD = 0.3  # share of the strip a drag must travel to turn the page
SCRIPTED = (0.36, 0.8)  # shares that scripted drags travel
SLOPE = 0.2  # largest slope of a scripted drag
MAX_PAGES = 4
FOOT = 18.0  # height of the row of dots, in page pixels

# A mark on each page, as up to three boxes in shares of the page: a block at the left, one at the
# right, three bars, three columns.
MARKS = np.array(
    [
        [[0.08, 0.15, 0.42, 0.85], [0.0] * 4, [0.0] * 4],
        [[0.58, 0.15, 0.92, 0.85], [0.0] * 4, [0.0] * 4],
        [[0.1, 0.1, 0.9, 0.25], [0.1, 0.42, 0.9, 0.58], [0.1, 0.75, 0.9, 0.9]],
        [[0.1, 0.1, 0.22, 0.9], [0.44, 0.1, 0.56, 0.9], [0.78, 0.1, 0.9, 0.9]],
    ]
)
ORDERS = np.array(list(permutations(range(MAX_PAGES))))  # [24, 4]


class Carousel(Widget):
    """The state is the page shown; options are the number of pages and the order of marks.

    A drag to the left shows the next page, one to the right the page before; the ends do not wrap.
    """

    kind = "carousel"
    max_count = 1
    choices = tuple((pages, order) for pages in (3, 4) for order in range(len(ORDERS)))

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """200 x 70 to 236 x 110."""
        ones = np.ones((len(options), 1))
        return ones * (200.0, 70.0), ones * (236.0, 110.0)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each page."""
        return np.asarray(options[:, 0])

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """Turn one page when the drag is mostly horizontal, and past the threshold or a fling."""
        across, down = (gestures.end - gestures.start).T
        turns = gestures.dragged & (np.abs(across) > np.abs(down))
        turns &= gestures.flung | (np.abs(across) > THRESHOLD * parts.widths)
        page = parts.state - turns * np.sign(across).astype(int)
        return np.asarray(np.clip(page, 0, parts.options[:, 0] - 1))

    def draw(self, parts: Parts) -> Rectangles:
        """The page's colour and mark over a row of dots."""
        rows = np.arange(len(parts.state))
        left, top, right, bottom = parts.boxes.T
        page = stack_boxes(left, top, right, bottom - FOOT)
        corner, extent = page[:, None, :2], page[:, None, 2:] - page[:, None, :2]
        marks = MARKS[ORDERS[parts.options[:, 1], parts.state]]
        marks = np.tile(corner, 2) + marks * np.tile(extent, 2)
        dots, dot_colors = _dots(parts)
        boxes = np.concatenate([np.stack([parts.boxes, page], axis=1), marks, dots], axis=1)
        fill = parts.colors[:, PAGES][rows, parts.state]
        mark = parts.colors[:, PAGE_MARKS][rows, parts.state]
        colors = np.stack([parts.colors[:, SURFACE], fill, mark, mark, mark], axis=1)
        return Rectangles(boxes, np.concatenate([colors, dot_colors], axis=1))

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A drag to the next page or the one before, of varied length, height and slope."""
        last = parts.options[:, 0] - 1
        forward = (rng.random(len(last)) < 0.5) & (parts.state < last) | (parts.state == 0)
        # Plan every drag to the left from `room`, its distance to the screen's edge; then mirror.
        left, top, right, bottom = parts.boxes.T
        near, far = np.where(forward, (left, right), (PAGE - right, PAGE - left))
        shortest, longest = (share * parts.widths for share in SCRIPTED)
        room = rng.uniform(np.maximum(near, shortest) + MARGIN, far - MARGIN)
        travel = rng.uniform(shortest, np.minimum(longest, room))
        y = rng.uniform(top + MARGIN, bottom - MARGIN)
        end_y = np.clip(y + travel * rng.uniform(-SLOPE, SLOPE, len(y)), 0.0, PAGE)
        start_x = np.where(forward, room, PAGE - room)
        end_x = np.where(forward, room - travel, PAGE - room + travel)
        return Strokes(np.stack([start_x, y], axis=1), np.stack([end_x, end_y], axis=1))

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """One drag a page."""
        return np.asarray(np.abs(state - other), np.float64)


def _dots(parts: Parts) -> tuple[FloatArray, IntArray]:
    """Boxes `[m, 4, 4]` of the dots, one a page, and their colours `[m, 4]`."""
    pages = np.arange(MAX_PAGES)
    left, _, right, bottom = (edge[:, None] for edge in parts.boxes.T)
    count = parts.options[:, :1]
    shown = pages == parts.state[:, None]
    x = (left + right) / 2 + 20.0 * (pages - (count - 1) / 2)
    y = bottom - FOOT / 2
    width, height = np.where(shown, 8.0, 4.0), np.where(shown, 5.0, 4.0)
    boxes = stack_boxes(x - width, y - height, x + width, y + height)
    colors = np.where(shown, parts.colors[:, INK, None], parts.colors[:, MUTED, None])
    return np.where((pages < count)[..., None], boxes, 0.0), colors
