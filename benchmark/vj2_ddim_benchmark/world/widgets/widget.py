"""What a widget is: its sizes, its states, its answer to a touch, its picture, and its gestures.

A widget class holds rules, not data. The data of m widgets of one kind, on any screens, come as
`Parts`. To add a widget, write a subclass in a file of its own and name it in the registry
(`widgets/__init__.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.painting import Rectangles
from vj2_ddim_benchmark.world.palettes import PackedColors
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["MARGIN", "Parts", "Strokes", "Widget", "inside", "taps_inside"]

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
    max_count: ClassVar[int]
    """How many of them one screen may have."""
    choices: ClassVar[tuple[tuple[int, int], ...]]
    """The options one may be built with."""
    active: ClassVar[bool] = True
    """Whether it has states to change between; dead areas have one."""
    multimodal: ClassVar[bool] = False
    """Whether several different gestures do the same, and their average does nothing."""
    tolerance: ClassVar[int] = 0
    """How far two states may be apart and still count as the same."""

    @abstractmethod
    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Smallest and largest width and height, each `[m, 2]` in page pixels."""

    @abstractmethod
    def num_states(self, options: IntArray) -> IntArray:
        """How many states each has, `[m]`."""

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
