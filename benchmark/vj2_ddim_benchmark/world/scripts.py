"""Gestures as action blocks: straight lines at constant speed while the finger is down.

These are VJ2-GUI's own gestures: one press segment, x = y = 0 where the finger is up. Arguments
broadcast to one value a gesture; coordinates are in [0, 1], times in steps of 1/500 s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_benchmark.world.touch import NUM_STEPS
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = ["LONG_STEPS", "MAX_STEPS", "MIN_STEPS", "drag", "random_times", "tap"]

MIN_STEPS, MAX_STEPS = 5, 75  # steps the finger is down in a gesture of VJ2-GUI's
LONG_STEPS = (155, 200)  # the same of a scripted long press


def tap(
    x: ArrayLike, y: ArrayLike, start_step: ArrayLike, num_steps: ArrayLike
) -> NDArray[np.float32]:
    """Taps `[n, 250, 3]` at `(x, y)`, from `start_step` on for `num_steps`."""
    return drag(x, y, x, y, start_step, num_steps)


def drag(
    x0: ArrayLike,
    y0: ArrayLike,
    x1: ArrayLike,
    y1: ArrayLike,
    start_step: ArrayLike,
    num_steps: ArrayLike,
    via: tuple[ArrayLike, ArrayLike] | None = None,
) -> NDArray[np.float32]:
    """Drags `[n, 250, 3]` from `(x0, y0)` to `(x1, y1)`, both reached with the finger down.

    Args:
        x0: x of the start.
        y0: y of the start.
        x1: x of the end.
        y1: y of the end.
        start_step: First step with the finger down.
        num_steps: Steps with the finger down.
        via: x and y at half time; a straight line without.

    Raises:
        ActionError: A gesture does not fit its block.
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


def random_times(
    num: int, rng: np.random.Generator, long: NDArray[np.bool_] | None = None
) -> tuple[IntArray, IntArray]:
    """`start_step` and `num_steps` `[num]`, anywhere in the block.

    Args:
        num: How many.
        rng: Source of randomness.
        long: `[num]`, which are long presses of 155 to 200 steps; the others have 5 to 75.
    """
    num_steps = rng.integers(MIN_STEPS, MAX_STEPS + 1, num)
    if long is not None:
        num_steps = np.where(long, rng.integers(LONG_STEPS[0], LONG_STEPS[1] + 1, num), num_steps)
    return rng.integers(0, NUM_STEPS - num_steps + 1), num_steps
