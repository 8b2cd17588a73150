"""Gestures: read out of action blocks as a phone does, and written as VJ2-GUI does.

The first press of a block is its gesture. A path that leaves the slop around its start is a drag;
one that stays is a tap or a long press by its length, and in between neither.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

Actions = NDArray[np.float32]  # [n, 250, 3] of x, y, press
Mask = NDArray[np.bool_]

PAGE = 256.0  # page pixels across the screen, whatever the size of its picture
MARGIN = 2.0  # page pixels that scripted gestures keep from an edge
SLOP = 15.0  # page pixels a finger may stray in a tap
NUM_STEPS = 250  # steps of one action block, at 500 Hz
MAX_TAP_STEPS = 120  # a longer press is not a tap
LONG_PRESS_STEPS = 150  # a shorter press is not a long press
FLING_SPEED = 1.5  # page pixels a step, over the whole drag, from which on it is a fling
WRITTEN_STEPS = (5, 75)  # least and most steps the finger is down in a gesture of VJ2-GUI's
WRITTEN_LONG_STEPS = (155, 200)  # the same of a scripted long press


@dataclass(frozen=True)
class Gestures:
    """One gesture a screen, in page pixels."""

    touched: Mask  # [n], whether the finger came down at all
    start: FloatArray  # [n, 2], x and y where it came down
    end: FloatArray  # [n, 2], x and y where it was lifted
    dragged: Mask  # [n], whether the path left the slop around its start
    num_steps: IntArray  # [n], how long the finger was down
    path: FloatArray  # [n, 250, 2], x and y; `start` before the press and `end` after it

    @property
    def tapped(self) -> Mask:
        """`[n]`, whether the gesture is a tap."""
        return self.touched & ~self.dragged & (self.num_steps <= MAX_TAP_STEPS)

    @property
    def long_pressed(self) -> Mask:
        """`[n]`, whether the gesture is a long press."""
        return self.touched & ~self.dragged & (self.num_steps >= LONG_PRESS_STEPS)

    @property
    def flung(self) -> Mask:
        """`[n]`, whether the gesture is a fast drag."""
        travel = np.hypot(*(self.end - self.start).T)
        return np.asarray(self.dragged & (travel >= FLING_SPEED * self.num_steps))

    def starts_on(self, cells: FloatArray) -> IntArray:
        """Which of the cells `[n, m, 4]` each comes down on, `[n]`; -1 is none."""
        return _cell_under(self.start, cells)

    def ends_on(self, cells: FloatArray) -> IntArray:
        """Which of the cells `[n, m, 4]` each is lifted from, `[n]`; -1 is none."""
        return _cell_under(self.end, cells)

    def tapped_on(self, cells: FloatArray) -> IntArray:
        """On which of the cells each tap starts and ends, `[n]`; -1 is none, or no tap."""
        start = self.starts_on(cells)
        return np.where(self.tapped & (start == self.ends_on(cells)), start, -1)

    def select(self, index: IntArray) -> "Gestures":
        """The gestures at an index."""
        return Gestures(**{name: values[index] for name, values in vars(self).items()})


def inside(points: FloatArray, boxes: FloatArray) -> Mask:
    """Whether points `[..., 2]` lie in boxes `[..., 4]`; right and bottom edges do not count."""
    return np.asarray(((points >= boxes[..., :2]) & (points < boxes[..., 2:])).all(axis=-1))


def points_inside(boxes: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Points `[m, 2]` spread evenly over boxes `[m, 4]`, but for a small margin."""
    return rng.uniform(boxes[:, :2] + MARGIN, boxes[:, 2:] - MARGIN)


def _cell_under(points: FloatArray, cells: FloatArray) -> IntArray:
    under = inside(points[:, None], cells)
    return np.where(under.any(axis=1), under.argmax(axis=1), -1)


def read_gestures(actions: ArrayLike, num_screens: int) -> Gestures:
    """The gesture in each action block `[n, 250, 3]` of x, y, press; nothing of them is trusted."""
    path, first, stop = _first_segments(actions, num_screens)
    rows, steps = np.arange(num_screens), np.arange(NUM_STEPS)
    before, behind = steps < first[:, None], steps >= stop[:, None]
    start, end = path[rows, first], path[rows, stop - 1]
    far = ((path - start[:, None]) ** 2).sum(axis=-1) > SLOP**2
    strayed = (~before & ~behind & far).any(axis=1)
    path = np.where(before[..., None], start[:, None], path)
    path = np.where(behind[..., None], end[:, None], path)
    return Gestures(stop > first, start, end, strayed, stop - first, path)


def gesture_path(action: ArrayLike) -> FloatArray:
    """The path `[m, 2]` of one block's gesture, `[250, 3]`, in page pixels; m is 0 without one."""
    path, first, stop = _first_segments(np.asarray(action)[None], 1)
    return path[0, first[0] : stop[0]]


def _first_segments(actions: ArrayLike, num: int) -> tuple[FloatArray, IntArray, IntArray]:
    """Positions `[n, 250, 2]` in page pixels; the first press's first step and one past its last.

    The two are equal where there is none. The finger is down where press > 0.5 and x and y are
    numbers; coordinates are clipped to [0, 1], and the end of the block lifts the finger.
    """
    blocks = np.asarray(actions)
    if blocks.shape != (num, NUM_STEPS, 3) or blocks.dtype.kind not in "fiub":
        raise ActionError(
            f"actions must be numbers of shape {(num, NUM_STEPS, 3)}, one block a screen; "
            f"found {blocks.dtype} of shape {blocks.shape}"
        )
    x, y, press = (np.ascontiguousarray(blocks[..., channel], float) for channel in range(3))
    pressed = (press > 0.5) & ~np.isnan(x) & ~np.isnan(y)
    first = pressed.argmax(axis=1)
    released = ~pressed & (np.arange(NUM_STEPS) > first[:, None])
    stop = np.where(released.any(axis=1), released.argmax(axis=1), NUM_STEPS)
    path = PAGE * np.clip(np.stack([x, y], axis=-1), 0.0, 1.0)
    return path, first, np.where(pressed.any(axis=1), stop, first)


def tap(x: ArrayLike, y: ArrayLike, start_step: ArrayLike, num_steps: ArrayLike) -> Actions:
    """Taps `[n, 250, 3]` at `(x, y)`, from `start_step` on for `num_steps`."""
    return drag(x, y, x, y, start_step, num_steps)


def drag(
    x0: ArrayLike, y0: ArrayLike, x1: ArrayLike, y1: ArrayLike, start_step: ArrayLike,
    num_steps: ArrayLike, via: tuple[ArrayLike, ArrayLike] | None = None,
) -> Actions:  # fmt: skip
    """Drags `[n, 250, 3]` from `(x0, y0)` to `(x1, y1)`, both reached with the finger down.

    Arguments broadcast to one value a gesture; coordinates are in [0, 1], times in steps of
    1/500 s. The line is straight unless `via` says where the finger is at half time.
    """
    arguments = [np.atleast_1d(value)[:, None] for value in (x0, y0, x1, y1, start_step, num_steps)]
    x0, y0, x1, y1, first, count = np.broadcast_arrays(*arguments)
    if (first < 0).any() or (count < 1).any() or (first + count > NUM_STEPS).any():
        raise ActionError(
            f"a gesture must last at least 1 step and lie within steps 0 to {NUM_STEPS}; found "
            f"start_step {first.min()} to {first.max()}, num_steps {count.min()} to {count.max()}"
        )
    since = np.arange(NUM_STEPS) - first
    pressed = (since >= 0) & (since < count)
    share = np.clip(since / np.maximum(count - 1, 1), 0.0, 1.0)
    path = [x0 + share * (x1 - x0), y0 + share * (y1 - y0), np.ones_like(share)]
    if via is not None:
        for axis, (begin, end) in enumerate(((x0, x1), (y0, y1))):
            bend = np.atleast_1d(via[axis])[:, None] - (begin + end) / 2
            path[axis] = path[axis] + (1.0 - np.abs(2.0 * share - 1.0)) * bend
    return np.stack([channel * pressed for channel in path], axis=-1).astype(np.float32)


def random_times(long: Mask, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """`start_step` and `num_steps` `[n]` anywhere in the block; `long` ones are long presses."""
    short, held = (
        rng.integers(*steps, len(long), endpoint=True)
        for steps in (WRITTEN_STEPS, WRITTEN_LONG_STEPS)
    )
    num_steps = np.where(long, held, short)
    return rng.integers(0, NUM_STEPS - num_steps + 1), num_steps
