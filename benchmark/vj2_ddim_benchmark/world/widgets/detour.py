"""A piece and a wall: the piece must be dragged around the wall, on either side of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.painting import Rectangles, stack_boxes
from vj2_ddim_benchmark.world.palettes import ACCENT, INK, MUTED, SURFACE
from vj2_ddim_benchmark.world.touch import PAGE, Gestures
from vj2_ddim_benchmark.world.widgets.grid import cell_under, shrunk
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, taps_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Detour"]

SIDE = 40.0  # sides of the two homes, in page pixels
HALF_WALL = 8.0  # half the wall's width
WALL_SHARE = 0.26  # half the wall's height in heights of the box
CLEARANCE = (18.0, 34.0)  # how far above or below the wall scripted drags pass


class Detour(Widget):
    """State 0 is the piece at home on the left, 1 on the right; a drag into the wall fails."""

    kind = "detour"
    max_count = 1
    choices = ((0, 0),)
    multimodal = True

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """160 x 84 to 228 x 116."""
        ones = np.ones((len(options), 1))
        return ones * (160.0, 84.0), ones * (228.0, 116.0)

    def num_states(self, options: IntArray) -> IntArray:
        """Two."""
        return np.full(len(options), 2)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A drag from the piece to the other home moves it, unless its path meets the wall."""
        homes = _homes(parts)
        goes = cell_under(gestures.start, homes) == parts.state
        arrives = cell_under(gestures.end, homes) == 1 - parts.state
        moves = gestures.dragged & goes & arrives
        moves[moves] = ~_meets(gestures.path[moves], _wall(parts)[moves])
        return np.where(moves, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel, the homes, the wall, and the piece, framed, in one home."""
        homes = _homes(parts)
        own = homes[np.arange(len(homes)), parts.state][:, None]
        walls = _wall(parts)[:, None]
        boxes = [parts.boxes[:, None], homes, walls, shrunk(own, 5.0), shrunk(own, 10.0)]
        colors = parts.colors[:, [SURFACE, MUTED, MUTED, INK, INK, ACCENT]]
        return Rectangles(np.concatenate(boxes, axis=1), colors)

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """The piece dragged past the wall, above or below."""
        homes, rows = shrunk(_homes(parts), 6.0), np.arange(len(parts.state))
        start = taps_inside(homes[rows, parts.state], rng).start
        end = taps_inside(homes[rows, 1 - parts.state], rng).start
        left, top, right, bottom = _wall(parts).T
        above = rng.random(len(rows)) < 0.5
        clearance = rng.uniform(*CLEARANCE, len(rows))
        y = np.where(above, top - clearance, bottom + clearance)
        x = (left + right) / 2 + rng.uniform(-6.0, 6.0, len(rows))
        return Strokes(start, end, np.stack([x, np.clip(y, 0.0, PAGE)], axis=1))


def _homes(parts: Parts) -> FloatArray:
    """Boxes `[m, 2, 4]` of the two homes, in the middle of the left and of the right edge."""
    left, top, right, bottom = parts.boxes.T
    y = (top + bottom) / 2
    homes = [
        stack_boxes(x, y - SIDE / 2, x + SIDE, y + SIDE / 2) for x in (left + 3, right - SIDE - 3)
    ]
    return np.stack(homes, axis=1)


def _wall(parts: Parts) -> FloatArray:
    """Boxes `[m, 4]` of the walls, in the middle."""
    left, top, right, bottom = parts.boxes.T
    x, y, half = (left + right) / 2, (top + bottom) / 2, WALL_SHARE * (bottom - top)
    return stack_boxes(x - HALF_WALL, y - half, x + HALF_WALL, y + half)


def _meets(paths: FloatArray, walls: FloatArray) -> NDArray[np.bool_]:
    """Whether paths `[m, T, 2]`, straight between their points, touch boxes `[m, 4]`, as `[m]`.

    A segment meets a box if the parts of it that lie within the box's range of x and of y overlap
    (the slab method).
    """
    begin, step = paths[:, :-1], np.diff(paths, axis=1)
    still = step == 0
    along = np.where(still, 1.0, step)
    low, high = (walls[:, None, :2] - begin) / along, (walls[:, None, 2:] - begin) / along
    low, high = np.minimum(low, high), np.maximum(low, high)
    between = (begin >= walls[:, None, :2]) & (begin <= walls[:, None, 2:])
    low = np.where(still, np.where(between, 0.0, 2.0), low).max(axis=-1)
    high = np.where(still, np.where(between, 1.0, -1.0), high).min(axis=-1)
    return np.asarray((np.maximum(low, 0.0) <= np.minimum(high, 1.0)).any(axis=1))
