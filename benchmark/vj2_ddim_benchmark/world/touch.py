"""Reading gestures out of action blocks, as a phone does.

The finger is down where press > 0.5 and no channel is NaN; coordinates are clipped to [0, 1]. The
first press segment is the gesture (the end of the block lifts the finger); later ones are ignored.
A path that leaves the slop, a circle of 15 page pixels around its start, is a drag, and a fling if
it is fast. One that stays inside the slop is a tap if it is short, a long press if it is long, and
in between neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = [
    "FLING_SPEED",
    "LONG_PRESS_STEPS",
    "MAX_TAP_STEPS",
    "NUM_STEPS",
    "PAGE",
    "SLOP",
    "Gestures",
    "gesture_path",
    "read_gestures",
]

PAGE = 256.0  # page pixels across the screen, whatever the size of its picture
SLOP = 15.0  # page pixels a finger may stray in a tap
NUM_STEPS = 250  # steps of one action block, at 500 Hz
MAX_TAP_STEPS = 120  # a longer press is not a tap
LONG_PRESS_STEPS = 150  # a shorter press is not a long press
FLING_SPEED = 1.5  # page pixels a step, over the whole drag, from which on it is a fling


@dataclass(frozen=True)
class Gestures:
    """One gesture a screen, in page pixels.

    Attributes:
        touched: `[n]`, whether the finger came down at all.
        start: `[n, 2]`, x and y where it came down.
        end: `[n, 2]`, x and y where it was lifted.
        dragged: `[n]`, whether the path left the slop around its start.
        num_steps: `[n]`, how long the finger was down.
        path: `[n, 250, 2]`, x and y; `start` before the press and `end` after it.
    """

    touched: NDArray[np.bool_]
    start: FloatArray
    end: FloatArray
    dragged: NDArray[np.bool_]
    num_steps: IntArray
    path: FloatArray

    @property
    def tapped(self) -> NDArray[np.bool_]:
        """`[n]`, whether the gesture is a tap."""
        return self.touched & ~self.dragged & (self.num_steps <= MAX_TAP_STEPS)

    @property
    def long_pressed(self) -> NDArray[np.bool_]:
        """`[n]`, whether the gesture is a long press."""
        return self.touched & ~self.dragged & (self.num_steps >= LONG_PRESS_STEPS)

    @property
    def flung(self) -> NDArray[np.bool_]:
        """`[n]`, whether the gesture is a fast drag."""
        travel = np.hypot(*(self.end - self.start).T)
        return np.asarray(self.dragged & (travel >= FLING_SPEED * self.num_steps))

    def select(self, index: IntArray) -> Gestures:
        """The gestures at an index."""
        return Gestures(
            self.touched[index],
            self.start[index],
            self.end[index],
            self.dragged[index],
            self.num_steps[index],
            self.path[index],
        )


def read_gestures(actions: ArrayLike, num_screens: int) -> Gestures:
    """Recognise the gesture in each action block.

    Args:
        actions: `[n, 250, 3]` of x, y, press in [0, 1]; nothing else about them is trusted.
        num_screens: n.

    Raises:
        ActionError: The actions are not an array of numbers of that shape.
    """
    x, y, pressed = _channels(actions, num_screens)
    first, stop = _first_segment(pressed)
    steps = np.arange(NUM_STEPS)
    held = (steps >= first[:, None]) & (steps < stop[:, None])
    rows = np.arange(num_screens)
    start = np.stack([x[rows, first], y[rows, first]], axis=1)
    end = np.stack([x[rows, stop - 1], y[rows, stop - 1]], axis=1)
    path = np.stack([x, y], axis=-1)
    strayed = (held & (((path - start[:, None]) ** 2).sum(axis=-1) > SLOP**2)).any(axis=1)
    path = np.where((steps < first[:, None])[..., None], start[:, None], path)
    path = np.where((steps >= stop[:, None])[..., None], end[:, None], path)
    return Gestures(stop > first, start, end, strayed, stop - first, path)


def gesture_path(action: ArrayLike) -> FloatArray:
    """The path `[m, 2]` of one block's gesture, `[250, 3]`, in page pixels; m is 0 without one.

    Raises:
        ActionError: The action is not an array of numbers of that shape.
    """
    x, y, pressed = _channels(np.asarray(action)[None], 1)
    first, stop = _first_segment(pressed)
    return np.stack([x[0], y[0]], axis=1)[first[0] : stop[0]]


def _channels(
    actions: ArrayLike, num_screens: int
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """x and y in page pixels and whether the finger is down, each `[n, 250]`."""
    blocks = np.asarray(actions)
    if blocks.shape != (num_screens, NUM_STEPS, 3) or blocks.dtype.kind not in "fiub":
        raise ActionError(
            f"actions must be numbers of shape {(num_screens, NUM_STEPS, 3)}, one block a screen; "
            f"found {blocks.dtype} of shape {blocks.shape}"
        )
    x, y, press = (np.ascontiguousarray(blocks[..., channel], float) for channel in range(3))
    pressed = (press > 0.5) & ~np.isnan(x) & ~np.isnan(y)
    return PAGE * np.clip(x, 0.0, 1.0), PAGE * np.clip(y, 0.0, 1.0), pressed


def _first_segment(pressed: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """First step and one past the last of each row's first press; equal where there is none."""
    first = pressed.argmax(axis=1)
    released = ~pressed & (np.arange(NUM_STEPS) > first[:, None])
    stop = np.where(released.any(axis=1), released.argmax(axis=1), NUM_STEPS)
    return first, np.where(pressed.any(axis=1), stop, first)
