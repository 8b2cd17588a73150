"""Widgets that show a part of what they hold, and move on by swipes: list, carousel, tabs."""

from itertools import permutations
from typing import ClassVar

import numpy as np

from vj2_ddim_benchmark.world.painting import Color, Layers, cell_boxes, shrunk, stack_boxes
from vj2_ddim_benchmark.world.touch import MARGIN, PAGE, Gestures, Mask, points_inside
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, other_than
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray


class ScrollList(Widget):
    """The state is the row on top; options are the rows shown and the rows there are."""

    kind = "list"
    choices = ((3, 5), (4, 6), (4, 7))
    smallest, largest = (100.0, 24.0), (200.0, 32.0)
    bar = 10.0  # width of the scroll bar, in page pixels
    spare = 0.3  # how far from whole rows scripted drags go, in rows
    slope = 0.25  # largest sideways share of a scripted drag
    fixed_grid = (0, 1)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each row that can be on top."""
        return np.asarray(options[:, 1] - options[:, 0] + 1)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """The content follows a mostly vertical drag and snaps to the nearest row."""
        across, down = (gestures.end - gestures.start).T
        scrolls = gestures.dragged & (np.abs(down) > np.abs(across))
        rows = np.rint(-down / self._row_height(parts)).astype(int)
        last = self.num_states(parts.options) - 1
        return np.asarray(np.clip(parts.state + scrolls * rows, 0, last))

    def draw(self, parts: Parts) -> Layers:
        """Coloured rows, each row its own hue, and a scroll bar at the right."""
        left, top, right, bottom = parts.boxes.T
        (shown, total), most = parts.options.T, 4
        window = stack_boxes(left, top, right - self.bar, bottom)
        rows = cell_boxes(window, *self.grid(parts.options), most)
        place = parts.state[:, None] + np.arange(most)
        hues = np.take_along_axis(parts.colors[:, Color.KEYS], place, axis=1)
        labels = rows + np.array([8.0, 8.0, 0.0, -8.0])
        labels[..., 2] = labels[..., 0] + (rows[..., 2] - rows[..., 0]) * 0.4
        begin = top + (bottom - top) * parts.state / total
        end = begin + (bottom - top) * shown / total
        return [
            (parts.boxes, Color.SURFACE),
            (stack_boxes(right - self.bar, top, right, bottom), Color.MUTED),
            (stack_boxes(right - self.bar, begin, right, end), Color.INK),
            (rows, hues),
            (np.where((rows[..., 2] > 0)[..., None], labels, 0.0), Color.SURFACE),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A drag that brings another row to the top, begun anywhere on the list."""
        target = other_than(parts.state, self.num_states(parts.options), rng)
        spare = rng.uniform(-self.spare, self.spare, len(target))
        down = (parts.state - target + spare) * self._row_height(parts)
        left, top, right, bottom = parts.boxes.T
        low = np.maximum(top + MARGIN, 1.0 - down)
        high = np.minimum(bottom - MARGIN, PAGE - 1.0 - down)
        x = rng.uniform(left + MARGIN, right - MARGIN)
        start = np.stack([x, rng.uniform(low, high)], axis=1)
        across = rng.uniform(-self.slope, self.slope, len(target)) * np.abs(down)
        return Strokes(start, np.clip(start + np.stack([across, down], axis=1), 0.0, PAGE))

    def _row_height(self, parts: Parts) -> FloatArray:
        return np.asarray((parts.boxes[:, 3] - parts.boxes[:, 1]) / parts.options[:, 0])


class _Pages(Widget):
    """The state is the page shown; options begin with how many there are."""

    most = 4
    fixed_grid = (1, 1)
    threshold: ClassVar[float]  # share of the width that a drag must travel to turn the page
    scripted: ClassVar[tuple[float, float]]  # shares that scripted drags travel
    slope = 0.2  # largest slope of a scripted drag

    def num_states(self, options: IntArray) -> IntArray:
        """One for each page."""
        return np.asarray(options[:, 0])

    def turned(self, parts: Parts, gestures: Gestures, eased: Mask | bool = False) -> IntArray:
        """The pages `[m]` after mostly horizontal drags, far ones unless eased."""
        across, down = (gestures.end - gestures.start).T
        turns = eased | (np.abs(across) > self.threshold * parts.widths)
        turns = turns & gestures.dragged & (np.abs(across) > np.abs(down))
        page = parts.state - turns * np.sign(across).astype(int)
        return np.asarray(np.clip(page, 0, parts.options[:, 0] - 1))

    def forward(self, parts: Parts, rng: np.random.Generator) -> Mask:
        """Whether to go to the next page `[m]`: each way as likely, where there are both."""
        last = parts.options[:, 0] - 1
        either = (rng.random(len(last)) < 0.5) & (parts.state < last)
        return np.asarray(either | (parts.state == 0))


class Carousel(_Pages):
    """Pages with marks on them, over a row of dots; options end with the order of the marks."""

    kind = "carousel"
    # A mark on each page, as up to three boxes in shares of the page: a block at the left, one at
    # the right, three bars, three columns.
    marks = np.array([
        [[0.08, 0.15, 0.42, 0.85], [0.0] * 4, [0.0] * 4],
        [[0.58, 0.15, 0.92, 0.85], [0.0] * 4, [0.0] * 4],
        [[0.1, 0.1, 0.9, 0.25], [0.1, 0.42, 0.9, 0.58], [0.1, 0.75, 0.9, 0.9]],
        [[0.1, 0.1, 0.22, 0.9], [0.44, 0.1, 0.56, 0.9], [0.78, 0.1, 0.9, 0.9]],
    ])  # fmt: skip
    orders = np.array(list(permutations(range(4))))  # [24, 4]
    choices = tuple((pages, order) for pages in (3, 4) for order in range(24))
    smallest, largest = (200.0, 70.0), (236.0, 110.0)
    threshold, scripted = 0.3, (0.36, 0.8)
    foot = 18.0  # height of the row of dots, in page pixels

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """Turn one page when the drag is mostly horizontal, and past the threshold or a fling."""
        return self.turned(parts, gestures, gestures.flung)

    def draw(self, parts: Parts) -> Layers:
        """The page's colour and mark over a row of dots, of which the shown page's is larger."""
        left, top, right, bottom = parts.boxes.T
        page = stack_boxes(left, top, right, bottom - self.foot)
        corner, extent = page[:, None, :2], page[:, None, 2:] - page[:, None, :2]
        marks = self.marks[self.orders[parts.options[:, 1], parts.state]]
        marks = np.tile(corner, 2) + marks * np.tile(extent, 2)
        pages, count = np.arange(self.most), parts.options[:, :1]
        shown = pages == parts.state[:, None]
        x = ((left + right) / 2)[:, None] + 20.0 * (pages - (count - 1) / 2)
        y = (bottom - self.foot / 2)[:, None]
        width, height = np.where(shown, 8.0, 4.0), np.where(shown, 5.0, 4.0)
        dots = stack_boxes(x - width, y - height, x + width, y + height)
        ink, muted = parts.colors[:, [Color.INK, Color.MUTED]].T[..., None]
        return [
            (parts.boxes, Color.SURFACE),
            (page, parts.one_of(parts.colors[:, Color.PAGES])),
            (marks, parts.one_of(parts.colors[:, Color.PAGE_MARKS])),
            (np.where((pages < count)[..., None], dots, 0.0), np.where(shown, ink, muted)),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A drag to the next page or the one before, of varied length, height and slope."""
        forward = self.forward(parts, rng)
        # Plan every drag to the left from `room`, its distance to the screen's edge; then mirror.
        left, top, right, bottom = parts.boxes.T
        near, far = np.where(forward, (left, right), (PAGE - right, PAGE - left))
        shortest, longest = (share * parts.widths for share in self.scripted)
        room = rng.uniform(np.maximum(near, shortest) + MARGIN, far - MARGIN)
        travel = rng.uniform(shortest, np.minimum(longest, room))
        y = rng.uniform(top + MARGIN, bottom - MARGIN)
        end_y = np.clip(y + travel * rng.uniform(-self.slope, self.slope, len(y)), 0.0, PAGE)
        start_x = np.where(forward, room, PAGE - room)
        end_x = np.where(forward, room - travel, PAGE - room + travel)
        return Strokes(np.stack([start_x, y], axis=1), np.stack([end_x, end_y], axis=1))

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """One drag a page."""
        return np.asarray(np.abs(state - other), np.float64)


class Tabs(_Pages):
    """Pages under a bar of tabs."""

    kind = "tabs"
    choices = ((3, 0), (4, 0))
    smallest, largest = (150.0, 84.0), (228.0, 120.0)
    multimodal = True
    bar = 28.0  # height of the bar of tabs, in page pixels
    threshold, scripted = 0.4, (0.46, 0.8)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap on a tab shows its page; a long horizontal drag on the page shows a neighbour."""
        tab = gestures.tapped_on(self._tabs(parts))
        on_page = gestures.start[:, 1] >= parts.boxes[:, 1] + self.bar
        page = np.where(on_page, self.turned(parts, gestures), parts.state)
        return np.where(tab >= 0, tab, page)

    def draw(self, parts: Parts) -> Layers:
        """Tabs in the colours of their pages, the chosen one on a bright ground; its page."""
        tabs = self._tabs(parts)
        left, top, right, bottom = parts.boxes.T
        body_top = top + self.bar
        body = stack_boxes(left, body_top, right, bottom)
        inset = 0.3 * (bottom - top - self.bar)
        mark_end = left + (0.3 + 0.15 * parts.state) * parts.widths
        mark = stack_boxes(left + 0.2 * parts.widths, body_top + inset, mark_end, bottom - inset)
        ground = parts.one_of(tabs) + np.array([-2.0, -2.0, 2.0, 4.0])
        faces = np.where((tabs[..., 2] > 0)[..., None], shrunk(tabs, 3.0), 0.0)
        pages, marks = parts.colors[:, Color.PAGES], parts.colors[:, Color.PAGE_MARKS]
        return [
            (parts.boxes, Color.MUTED),
            (ground, Color.INK),
            (faces, pages),
            (body, parts.one_of(pages)),
            (mark, parts.one_of(marks)),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """To a neighbouring page, by its tab or by a swipe, each as likely."""
        num, forward = len(parts.state), self.forward(parts, rng)
        tab = parts.one_of(self._tabs(parts), parts.state + np.where(forward, 1, -1))
        tap = points_inside(tab, rng)
        left, top, right, bottom = parts.boxes.T
        travel = rng.uniform(*self.scripted, num) * parts.widths
        x = rng.uniform(left + MARGIN, right - MARGIN - travel)
        y = rng.uniform(top + self.bar + MARGIN, bottom - MARGIN)
        end_y = np.clip(y + travel * rng.uniform(-self.slope, self.slope, num), 0.0, PAGE)
        start = np.stack([np.where(forward, x + travel, x), y], axis=1)
        end = np.stack([np.where(forward, x, x + travel), end_y], axis=1)
        tapped = rng.random((num, 1)) < 0.5
        return Strokes(np.where(tapped, tap, start), np.where(tapped, tap, end))

    def _tabs(self, parts: Parts) -> FloatArray:
        left, top, right, _ = parts.boxes.T
        bar = stack_boxes(left, top, right, top + self.bar)
        return cell_boxes(bar, np.ones(len(bar), np.int64), parts.options[:, 0], self.most)
