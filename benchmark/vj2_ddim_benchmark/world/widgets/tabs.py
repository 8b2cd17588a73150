"""Pages under a bar of tabs: swipe to the neighbouring page, or tap its tab."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import INK, MUTED, PAGE_MARKS, PAGES
from vj2_ddim_benchmark.world.touch import PAGE, Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_boxes, cell_under
from vj2_ddim_benchmark.world.widgets.widget import MARGIN, Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Tabs"]

BAR = 28.0  # height of the bar of tabs, in page pixels
THRESHOLD = 0.4  # share of the width that a swipe must travel
SCRIPTED = (0.46, 0.8)  # shares that scripted swipes travel
MAX_TABS = 4


class Tabs(Widget):
    """The state is the page shown; options are how many there are."""

    kind = "tabs"
    max_count = 1
    choices = ((3, 0), (4, 0))
    multimodal = True

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """150 x 84 to 228 x 120."""
        ones = np.ones((len(options), 1))
        return ones * (150.0, 84.0), ones * (228.0, 120.0)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each page."""
        return np.asarray(options[:, 0])

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap on a tab shows its page; a long horizontal drag on the page shows a neighbour."""
        tabs = _tabs(parts)
        start, end = cell_under(gestures.start, tabs), cell_under(gestures.end, tabs)
        tapped = gestures.tapped & (start == end) & (start >= 0)
        across, down = (gestures.end - gestures.start).T
        swiped = gestures.dragged & (np.abs(across) > np.abs(down))
        swiped &= np.abs(across) > THRESHOLD * parts.widths
        swiped &= gestures.start[:, 1] >= parts.boxes[:, 1] + BAR
        page = np.clip(
            parts.state - swiped * np.sign(across).astype(int), 0, parts.options[:, 0] - 1
        )
        return np.where(tapped, start, page)

    def draw(self, parts: Parts) -> Rectangles:
        """Tabs in the colours of their pages, the chosen one on a bright ground; its page."""
        rows = np.arange(len(parts.state))
        left, top, right, bottom = parts.boxes.T
        body = stack_boxes(left, top + BAR, right, bottom)
        mark = stack_boxes(
            left + 0.2 * parts.widths,
            top + BAR + 0.3 * (bottom - top - BAR),
            left + (0.3 + 0.15 * parts.state) * parts.widths,
            bottom - 0.3 * (bottom - top - BAR),
        )
        tabs = _tabs(parts)
        chosen = tabs[rows, parts.state] + np.array([-2.0, -2.0, 2.0, 4.0])
        frame = np.stack([parts.boxes, chosen], axis=1)
        faces = tabs + np.array([3.0, 3.0, -3.0, -3.0])
        faces = np.where((tabs[..., 2] > 0)[..., None], faces, 0.0)
        pages, marks = parts.colors[:, PAGES], parts.colors[:, PAGE_MARKS]
        fills = [
            parts.colors[:, [MUTED, INK]],
            pages,
            np.stack([pages[rows, parts.state], marks[rows, parts.state]], axis=1),
        ]
        boxes = [frame, faces, np.stack([body, mark], axis=1)]
        return Rectangles(np.concatenate(boxes, axis=1), np.concatenate(fills, axis=1))

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """To a neighbouring page, by its tab or by a swipe, each as likely."""
        num = len(parts.state)
        last = parts.options[:, 0] - 1
        forward = (rng.random(num) < 0.5) & (parts.state < last) | (parts.state == 0)
        tab = _tabs(parts)[np.arange(num), parts.state + np.where(forward, 1, -1)]
        tap = taps_inside(tab, rng).start
        left, top, right, bottom = parts.boxes.T
        travel = rng.uniform(*SCRIPTED, num) * parts.widths
        x = rng.uniform(left + MARGIN, right - MARGIN - travel)
        y = rng.uniform(top + BAR + MARGIN, bottom - MARGIN)
        end_y = np.clip(y + travel * rng.uniform(-0.2, 0.2, num), 0.0, PAGE)
        start = np.stack([np.where(forward, x + travel, x), y], axis=1)
        end = np.stack([np.where(forward, x, x + travel), end_y], axis=1)
        tapped = rng.random((num, 1)) < 0.5
        return Strokes(np.where(tapped, tap, start), np.where(tapped, tap, end))


def _tabs(parts: Parts) -> FloatArray:
    """Boxes `[m, 4, 4]` of the tabs."""
    left, top, right, _ = parts.boxes.T
    bar = stack_boxes(left, top, right, top + BAR)
    return cell_boxes(bar, np.ones(len(bar), np.int64), parts.options[:, 0], MAX_TABS)
