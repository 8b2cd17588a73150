"""Press segments: find them, describe them, fit a path to them.

A *press segment* is a run of steps with the finger down. Every function but the first two takes one
*block* a row (`[n, T, ...]`) and is vectorised over rows.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = [
    "count_segments", "fit_knots", "interpolate_knots", "longest_segment", "pressed", "release",
]  # fmt: skip

IntArray = NDArray[np.integer[Any]]


def pressed(actions: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Where the finger is down in `[..., A]`: press above one half, as `[...]`."""
    return np.asarray(actions[..., spec.press_index] > 0.5)


def release(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Make the press of `[..., A]` binary, and zero every channel where the finger is up."""
    down = pressed(actions, spec)
    released = np.where(down[..., None], actions, 0.0).astype(actions.dtype, copy=False)
    released[..., spec.press_index] = down
    return released


def count_segments(pressed: NDArray[np.bool_]) -> IntArray:
    """Number of separate press segments in each row of `[n, T]`, as `[n]`."""
    before = np.pad(pressed[:, :-1], ((0, 0), (1, 0)))
    return np.asarray(np.sum(pressed & ~before, axis=1))


def longest_segment(pressed: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """First step and one past the last step of each row's longest run of True."""
    steps = np.arange(1, pressed.shape[1] + 1)
    last_released = np.maximum.accumulate(np.where(pressed, 0, steps), axis=1)
    run_length = np.where(pressed, steps - last_released, 0)
    stop = np.argmax(run_length, axis=1) + 1
    length = run_length.max(axis=1)
    return np.where(length > 0, stop - length, 0), np.where(length > 0, stop, 0)


@cache
def _hat_basis(num_steps: int, num_knots: int) -> FloatArray:
    """`[num_steps, num_knots]` weights of piecewise linear interpolation between even knots."""
    position = np.linspace(0.0, num_knots - 1.0, num_steps)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(num_knots)))


@cache
def _knot_solver(num_steps: int, num_knots: int) -> FloatArray:
    """`[num_knots, num_steps]` least-squares map from a path to its knots."""
    if num_steps < num_knots:  # under-determined: read the path off at the knots
        return _hat_basis(num_knots, num_steps) if num_steps > 1 else np.ones((num_knots, 1))
    solver: FloatArray = np.linalg.pinv(_hat_basis(num_steps, num_knots))
    return solver


def fit_knots(values: FloatArray, start: IntArray, stop: IntArray, num_knots: int) -> FloatArray:
    """Least-squares knots, evenly spaced in time, of each row's path from `start` to `stop`."""
    knots = np.zeros((len(values), num_knots, values.shape[2]), values.dtype)
    lengths = stop - start
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        steps = start[rows, None] + np.arange(length)
        knots[rows] = _knot_solver(int(length), num_knots) @ values[rows[:, None], steps]
    return knots


def interpolate_knots(
    knots: FloatArray, start: IntArray, stop: IntArray, num_steps: int
) -> FloatArray:
    """The path through `knots` `[n, K, C]`, as `[n, num_steps, C]`, zero outside its segment."""
    steps, num_knots = np.arange(num_steps), knots.shape[1]
    pace = (num_knots - 1.0) / np.maximum(stop - start - 1, 1)
    position = (steps - start[:, None]) * pace[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(position[..., None] - np.arange(num_knots)))
    inside = (steps >= start[:, None]) & (steps < stop[:, None])
    weights *= inside[..., None]
    return np.asarray(weights @ knots, knots.dtype)
