"""Forbidden rectangles: whether a finger touches one, and the nearest gesture that does not.

Works on one block a row, `[n, T, A]`, in the planner's units. Rectangles are `[R, 4]`:
`x_low, y_low, x_high, y_high`, edges included; x and y are the first two channels but the press.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.gestures.projection import BOUND_TOLERANCE
from vj2_ddim_plugin.gestures.segments import longest_segment
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["clear_shift", "move_clear", "touches"]

MARGIN = 1e-4  # how far, as a share of the bounds, a moved gesture stays off an edge


def touches(
    blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec, first_step: int = 0
) -> NDArray[np.bool_]:
    """Whether each block's finger touches or crosses a rectangle from `first_step` on, as `[n]`.

    Between two steps the finger moves straight: a fast drag does not jump over a narrow rectangle.
    """
    points, pressed = blocks[..., spec.coordinate_indices[:2]], spec.pressed(blocks)
    low, high = _boxes(points, pressed)
    near = (high[:, None] >= rectangles[:, :2]) & (low[:, None] <= rectangles[:, 2:])
    rows, which = np.nonzero(near.all(axis=-1))  # few: the rest need not be looked at closely
    steps = np.flatnonzero(pressed[rows].any(axis=0))
    touched = np.zeros(len(blocks), bool)
    if len(steps) == 0:
        return touched
    begin, end = max(int(steps[0]) - 1, 0), int(steps[-1]) + 1
    points, pressed = points[rows, begin:end], pressed[rows, begin:end]
    low, high = rectangles[which, None, :2], rectangles[which, None, 2:]
    hit = ((points >= low) & (points <= high)).all(axis=-1) & pressed
    crossed = _crosses(points[:, :-1], points[:, 1:], low, high)
    hit[:, 1:] |= crossed & pressed[:, :-1] & pressed[:, 1:]
    touched[rows[hit[:, max(first_step - begin, 0) :].any(axis=1)]] = True
    return touched


def _boxes(points: FloatArray, pressed: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Lower and upper corner of where each finger is down, `[n, 2]` each; inside out if nowhere."""
    down = pressed[..., None]
    low = np.where(down, points, np.inf).min(axis=1, initial=np.inf)
    return low, np.where(down, points, -np.inf).max(axis=1, initial=-np.inf)


def _crosses(
    begin: FloatArray, end: FloatArray, low: FloatArray, high: FloatArray
) -> NDArray[np.bool_]:
    """Whether segments `[..., 2]` meet the box from `low` to `high`: the slab method, `[...]`."""
    direction = end - begin
    still = direction == 0.0
    safe = np.where(still, 1.0, direction)
    first, second = (low - begin) / safe, (high - begin) / safe
    within = (begin >= low) & (begin <= high)
    enter = np.where(still, np.where(within, 0.0, np.inf), np.minimum(first, second))
    leave = np.where(still, np.where(within, 1.0, -np.inf), np.maximum(first, second))
    return np.asarray(np.maximum(enter.max(axis=-1), 0.0) <= np.minimum(leave.min(axis=-1), 1.0))


def clear_shift(
    low: FloatArray, high: FloatArray, rectangles: FloatArray, bounds: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The shortest shift that takes boxes off every rectangle and keeps them in bounds.

    The shortest one puts each side of the box where it is, at a bound, or beside a rectangle, so
    these are tried.

    Args:
        low: `[n, 2]`, the boxes' lower corners.
        high: `[n, 2]`, their upper corners.
        rectangles: `[R, 4]`.
        bounds: Lower and upper bounds of the coordinates, `[2]` each.

    Returns:
        The shifts `[n, 2]`, and whether there is one, `[n]`.
    """
    gap = MARGIN * (bounds[1] - bounds[0])
    tries = [
        np.concatenate(
            [
                np.zeros((len(low), 1)),
                bounds[0][axis] - low[:, axis, None],
                bounds[1][axis] - high[:, axis, None],
                rectangles[:, axis] - gap[axis] - high[:, axis, None],
                rectangles[:, axis + 2] + gap[axis] - low[:, axis, None],
            ],
            axis=1,
        )
        for axis in (0, 1)
    ]
    beside, allowed = [], []
    for axis, moves in enumerate(tries):
        new_low, new_high = low[:, axis, None] + moves, high[:, axis, None] + moves
        apart = (new_high[..., None] < rectangles[:, axis]) | (
            new_low[..., None] > rectangles[:, axis + 2]
        )
        beside.append(apart.astype(np.float32))
        slack = BOUND_TOLERANCE * (bounds[1][axis] - bounds[0][axis])
        inside = (new_low >= bounds[0][axis] - slack) & (new_high <= bounds[1][axis] + slack)
        allowed.append(inside)
    # how many rectangles a box meets, that is, is beside in neither direction, for each pair
    met = (1.0 - beside[0]) @ (1.0 - beside[1]).transpose(0, 2, 1)
    possible = (met == 0.0) & allowed[0][:, :, None] & allowed[1][:, None, :]
    distance = np.hypot(tries[0][:, :, None], tries[1][:, None, :])
    flat = np.where(possible, distance, np.inf).reshape(len(low), -1)
    best, count = flat.argmin(axis=1), tries[0].shape[1]
    rows = np.arange(len(low))
    shift = np.stack([tries[0][rows, best // count], tries[1][rows, best % count]], axis=1)
    return shift, np.asarray(np.isfinite(flat.min(axis=1)))


def move_clear(
    blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec, sent: int = 0
) -> FloatArray:
    """Gestures that touch a rectangle, moved off it; the others as they were.

    A whole gesture is shifted as little as possible; one that fits nowhere becomes a tap or a hold
    near its first point. A finger that is already down (at step `sent - 1`) stays where it is until
    the shortest valid press is over, or is lifted at once where it must not stay.
    """
    moved = blocks.copy()
    rows = np.flatnonzero(touches(blocks, rectangles, spec, sent))
    if len(rows) == 0:
        return moved
    chosen = moved[rows]
    start, stop = longest_segment(spec.pressed(chosen))
    down = (sent > 0) & (start < sent)
    free = rows[~down]
    if len(free):
        moved[free] = _shifted(moved[free], rectangles, spec)
    release = np.maximum(sent, start + spec.min_press_steps)
    for row, last, end in zip(rows[down], release[down], stop[down], strict=True):
        moved[row, sent:last] = moved[row, sent - 1]
        moved[row, last:end] = 0.0
        if touches(moved[row : row + 1], rectangles, spec, sent)[0]:
            moved[row, sent:] = 0.0
    return moved


def _shifted(blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec) -> FloatArray:
    axes = spec.coordinate_indices[:2]
    bounds = spec.low_array[axes], spec.high_array[axes]
    pressed, points = spec.pressed(blocks)[..., None], blocks[..., axes]
    low, high = _boxes(points, pressed[..., 0])
    shift, found = clear_shift(low, high, rectangles, bounds)
    first = points[np.arange(len(points)), pressed[..., 0].argmax(axis=1)]
    tap_shift, _ = clear_shift(first, first, rectangles, bounds)
    points = np.where(found[:, None, None], points + shift[:, None], (first + tap_shift)[:, None])
    shifted = blocks.copy()
    shifted[..., axes] = np.where(pressed, points, 0.0)
    return shifted
