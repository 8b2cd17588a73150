"""What a widget is: its sizes, states, answer to a touch, picture and gestures.

A class holds rules; data of m widgets come as `Parts`. To add one, write a subclass beside its
family and name it in the registry (`widgets/__init__.py`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from vj2_ddim_benchmark.world.painting import Color, Layers, PackedColors, cell_boxes
from vj2_ddim_benchmark.world.touch import Gestures, Mask, points_inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

Things = TypeVar("Things", FloatArray, PackedColors)


@dataclass(frozen=True)
class Parts:
    """m widgets of one kind."""

    boxes: FloatArray  # [m, 4] left, top, right, bottom in page pixels
    options: IntArray  # [m, 2], what the kind makes of them
    colors: PackedColors  # [m, COUNT], each one's screen's palette
    state: IntArray  # [m], from 0 to the number of states less one

    def one_of(self, things: Things, index: IntArray | None = None) -> Things:
        """One of the things of each, `[m, k, ..]`: that at an index `[m]`, or at the state."""
        index = self.state if index is None else index
        return things[np.arange(len(index)), index]

    @property
    def light(self) -> PackedColors:
        """`[m]`: the accent colour where the state is 1, muted elsewhere."""
        on = self.state == 1
        return np.where(on, self.colors[:, Color.ACCENT], self.colors[:, Color.MUTED])

    @property
    def widths(self) -> FloatArray:
        """`[m]` in page pixels."""
        return np.asarray(self.boxes[:, 2] - self.boxes[:, 0])


@dataclass(frozen=True)
class Strokes:
    """m gestures in page pixels; a tap starts and ends in one place."""

    start: FloatArray  # [m, 2]
    end: FloatArray  # [m, 2]
    via: FloatArray | None = None  # [m, 2] at half time; straight lines unless told
    long: Mask | bool = False  # [m], which are long presses


class Widget(ABC):
    """The rules of one kind of widget. Every method works on m of them at once."""

    kind: ClassVar[str]
    max_count: ClassVar[int] = 1  # how many of them one screen may have
    # What one may be built with: rows and columns of cells, unless a kind says else.
    choices: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    fixed_grid: ClassVar[tuple[int, int]] = (0, 0)  # rows and columns that no option says
    # Width and height of a cell, or of a widget without any, in page pixels; what is beside and
    # above the cells; and half the dead space between them.
    smallest: ClassVar[tuple[float, float]]
    largest: ClassVar[tuple[float, float]]
    padding: ClassVar[tuple[float, float]] = (0.0, 0.0)
    gap: ClassVar[float] = 2.0
    count: ClassVar[int] = 0  # states one has, where it is not one for each cell
    active: ClassVar[bool] = True  # whether there are states to change between
    multimodal: ClassVar[bool] = False  # several gestures do the same, and their average nothing
    tolerance: ClassVar[int] = 0  # how far apart two states still count as the same

    def grid(self, options: IntArray) -> tuple[IntArray, IntArray]:
        """Rows and columns of each, `[m]`."""
        rows, columns = np.where(self.fixed_grid, self.fixed_grid, np.maximum(options, 1)).T
        return rows, columns

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Smallest and largest width and height, each `[m, 2]` in page pixels."""
        cells = np.stack(self.grid(options)[::-1], axis=1) + 0.0
        return cells * self.smallest + self.padding, cells * self.largest + self.padding

    def num_states(self, options: IntArray) -> IntArray:
        """How many states each has, `[m]`."""
        return np.full(len(options), self.count) if self.count else np.multiply(*self.grid(options))

    def cells(self, parts: Parts) -> FloatArray:
        """Boxes `[m, most, 4]` of the cells, below the padding and counted row by row."""
        most = np.multiply(*self.grid(np.array(self.choices))).max()
        area = parts.boxes + np.array([*self.padding, 0.0, 0.0])
        return cell_boxes(area, *self.grid(parts.options), most, self.gap)

    @abstractmethod
    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """The states `[m]` after gestures that started inside each box."""

    @abstractmethod
    def draw(self, parts: Parts) -> Layers:
        """The picture of each; different states look different."""

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """Gestures, as varied as a user's, that change each one's state: taps, unless told."""
        return Strokes(points := points_inside(parts.boxes, rng), points)

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """Gestures `[m]` between two states: one, unless a kind has to go step by step."""
        return np.asarray(np.abs(state - other) > self.tolerance, np.float64)


def other_than(current: IntArray, num: IntArray | int, rng: np.random.Generator) -> IntArray:
    """A random one of `num` things (`[m]`, or of all), never the current one."""
    return np.asarray((current + rng.integers(1, np.broadcast_to(num, current.shape))) % num)
