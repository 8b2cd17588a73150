"""What a widget is: its sizes, its states, its answer to a touch, its picture, and its gestures.

A widget class holds rules, not data. The data of m widgets of one kind, on any screens, come as
`Parts`. To add a widget, write a subclass beside its family (`tapped.py`, `dragged.py`,
`scrolled.py`) and name it in the registry (`widgets/__init__.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.painting import PackedColors, Rectangles, stack_boxes
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = [
    "MARGIN", "Parts", "Strokes", "Widget", "cell_boxes", "cell_under", "inside", "other_than",
    "shrunk", "tapped_cell", "taps_inside",
]  # fmt: skip

MARGIN = 2.0  # page pixels that scripted taps keep from an edge


@dataclass(frozen=True)
class Parts:
    """m widgets of one kind.

    Attributes:
        boxes: `[m, 4]` left, top, right, bottom in page pixels.
        options: `[m, 2]`, what the kind makes of them (rows and columns, pages and patterns).
        colors: `[m, NUM_COLORS]`, each one's screen's palette.
        state: `[m]`, from 0 to the number of states less one.
    """

    boxes: FloatArray
    options: IntArray
    colors: PackedColors
    state: IntArray

    @property
    def rows(self) -> IntArray:
        """`[m]`, to index one thing of each."""
        return np.arange(len(self.state))

    @property
    def widths(self) -> FloatArray:
        """`[m]` in page pixels."""
        return np.asarray(self.boxes[:, 2] - self.boxes[:, 0])


@dataclass(frozen=True)
class Strokes:
    """m gestures in page pixels; a tap starts and ends in one place.

    Attributes:
        start: `[m, 2]`.
        end: `[m, 2]`.
        via: `[m, 2]`, where the finger is at half time; straight lines unless told.
        long: `[m]`, which are long presses; none unless told.
    """

    start: FloatArray
    end: FloatArray
    via: FloatArray | None = None
    long: NDArray[np.bool_] | None = None


class Widget(ABC):
    """The rules of one kind of widget. Every method works on m of them at once."""

    kind: ClassVar[str]
    max_count: ClassVar[int] = 1
    """How many of them one screen may have."""
    choices: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    """The options one may be built with."""
    smallest: ClassVar[tuple[float, float]]
    largest: ClassVar[tuple[float, float]]
    """Width and height in page pixels, where they do not depend on the options."""
    count: ClassVar[int]
    """The number of states, where it does not depend on the options."""
    active: ClassVar[bool] = True
    """Whether it has states to change between; dead areas have one."""
    multimodal: ClassVar[bool] = False
    """Whether several different gestures do the same, and their average does nothing."""
    tolerance: ClassVar[int] = 0
    """How far two states may be apart and still count as the same."""

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Smallest and largest width and height, each `[m, 2]` in page pixels."""
        ones = np.ones((len(options), 1))
        return ones * self.smallest, ones * self.largest

    def num_states(self, options: IntArray) -> IntArray:
        """How many states each has, `[m]`."""
        return np.full(len(options), self.count)

    @abstractmethod
    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """The states `[m]` after gestures that started inside each box."""

    @abstractmethod
    def draw(self, parts: Parts) -> Rectangles:
        """The picture of each; different states look different."""

    @abstractmethod
    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """Gestures, as varied as a user's, that change each one's state beyond the tolerance."""

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """Gestures `[m]` between two states: one, unless a kind has to go step by step."""
        return np.asarray(np.abs(state - other) > self.tolerance, np.float64)


def inside(points: FloatArray, boxes: FloatArray) -> NDArray[np.bool_]:
    """Whether points `[..., 2]` lie in boxes `[..., 4]`; right and bottom edges do not count."""
    return np.asarray(((points >= boxes[..., :2]) & (points < boxes[..., 2:])).all(axis=-1))


def taps_inside(boxes: FloatArray, rng: np.random.Generator) -> Strokes:
    """Taps spread evenly over boxes `[m, 4]`, but for a small margin."""
    low, high = boxes[:, :2] + MARGIN, boxes[:, 2:] - MARGIN
    points = rng.uniform(low, high)
    return Strokes(points, points)


def cell_boxes(
    boxes: FloatArray, rows: IntArray, columns: IntArray | int, most: int, gap: float = 2.0
) -> FloatArray:
    """Boxes `[m, most, 4]` of the cells of `boxes` `[m, 4]`, counted row by row.

    Args:
        boxes: What is divided, in page pixels.
        rows: Rows of each, `[m]`.
        columns: Columns of each, `[m]`, or of all.
        most: Cells that any of them may have; those that one does not have are empty.
        gap: Half the dead space between cells.
    """
    left, top, right, bottom = (edge[:, None] for edge in boxes.T)
    cells, rows, columns = np.arange(most), rows[:, None], np.reshape(columns, (-1, 1))
    row, column = cells // columns, cells % columns
    width, height = (right - left) / columns, (bottom - top) / rows
    x, y = left + column * width, top + row * height
    divided = stack_boxes(x + gap, y + gap, x + width - gap, y + height - gap)
    return np.where((row < rows)[..., None], divided, 0.0)


def cell_under(points: FloatArray, cells: FloatArray) -> IntArray:
    """Which of the cells `[m, n, 4]` each point `[m, 2]` is in, `[m]`; -1 is none."""
    under = inside(points[:, None], cells)
    return np.where(under.any(axis=1), under.argmax(axis=1), -1)


def tapped_cell(gestures: Gestures, cells: FloatArray) -> IntArray:
    """On which of the cells `[m, n, 4]` each tap starts and ends, `[m]`; -1 is none, or no tap."""
    start, end = cell_under(gestures.start, cells), cell_under(gestures.end, cells)
    return np.where(gestures.tapped & (start == end), start, -1)


def other_than(current: IntArray, num: IntArray | int, rng: np.random.Generator) -> IntArray:
    """A random one of `num` things (`[m]`, or of all), never the current one."""
    return np.asarray((current + rng.integers(1, np.broadcast_to(num, current.shape))) % num)


def shrunk(boxes: FloatArray, pixels: FloatArray | float) -> FloatArray:
    """Boxes with a margin taken off each side; empty ones stay empty."""
    return np.asarray(boxes + np.asarray(pixels)[..., None] * np.array([1.0, 1.0, -1.0, -1.0]))
