"""Forbidden rectangles: whether a finger touches one, and the nearest gesture that does not.

Works on one block a row, `[n, T, A]`, in the planner's units. Rectangles are `[R, 4]`:
`x_low, y_low, x_high, y_high`, edges included; x and y are the first two channels but the press.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
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
    pressed = spec.pressed(blocks)
    points = blocks[..., spec.coordinate_indices[:2]]
    inside = (points[..., None, :] >= rectangles[:, :2]) & (
        points[..., None, :] <= rectangles[:, 2:]
    )
    hit = inside.all(axis=-1).any(axis=-1) & pressed
    crossed = _crosses(points[:, :-1], points[:, 1:], rectangles).any(axis=-1)
    hit[:, 1:] |= crossed & pressed[:, :-1] & pressed[:, 1:]
    return np.asarray(hit[:, first_step:].any(axis=1))


def _crosses(begin: FloatArray, end: FloatArray, rectangles: FloatArray) -> NDArray[np.bool_]:
    """Whether segments `[..., 2]` meet rectangles `[R, 4]`, as `[..., R]`: the slab method."""
    origin, direction = begin[..., None, :], (end - begin)[..., None, :]
    still = direction == 0.0
    safe = np.where(still, 1.0, direction)
    first, second = (rectangles[:, :2] - origin) / safe, (rectangles[:, 2:] - origin) / safe
    within = (origin >= rectangles[:, :2]) & (origin <= rectangles[:, 2:])
    enter = np.where(still, np.where(within, 0.0, np.inf), np.minimum(first, second))
    leave = np.where(still, np.where(within, 1.0, -np.inf), np.maximum(first, second))
    return np.asarray(
        np.maximum(enter.max(axis=-1), 0.0) <= np.minimum(leave.min(axis=-1), 1.0), bool
    )


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
    count = tries[0].shape[1]
    shift = np.stack([np.repeat(tries[0], count, 1), np.tile(tries[1], (1, count))], axis=-1)
    new_low, new_high = low[:, None] + shift, high[:, None] + shift
    allowed = ((new_low >= bounds[0] - 1e-9) & (new_high <= bounds[1] + 1e-9)).all(axis=-1)
    apart = (new_high[:, :, None] < rectangles[:, :2]) | (new_low[:, :, None] > rectangles[:, 2:])
    allowed &= apart.any(axis=-1).all(axis=-1)
    distance = np.where(allowed, np.linalg.norm(shift, axis=-1), np.inf)
    best = distance.argmin(axis=1)
    return shift[np.arange(len(low)), best], np.asarray(np.isfinite(distance.min(axis=1)))


def move_clear(
    blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec, sent: int = 0
) -> FloatArray:
    """Gestures that touch a rectangle, moved off it; the others as they were.

    A whole gesture is shifted as little as possible; one that fits nowhere becomes a tap or a hold
    near its first point. A finger that is already down (at step `sent - 1`) stays where it is until
    the shortest valid press is over.
    """
    moved = blocks.copy()
    rows = np.flatnonzero(touches(blocks, rectangles, spec, sent))
    if len(rows) == 0:
        return moved
    chosen = moved[rows]
    start, stop = longest_segment(spec.pressed(chosen))
    down = (sent > 0) & (start < sent)
    free = rows[~down]
    moved[free] = _shifted(moved[free], rectangles, spec)
    release = np.maximum(sent, start + spec.min_press_steps)
    for row, last, end in zip(rows[down], release[down], stop[down], strict=True):
        moved[row, sent:last] = moved[row, sent - 1]
        moved[row, last:end] = 0.0
    return moved


def _shifted(blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec) -> FloatArray:
    axes = spec.coordinate_indices[:2]
    bounds = spec.low_array[axes], spec.high_array[axes]
    pressed = spec.pressed(blocks)[..., None]
    points = blocks[..., axes]
    low = np.where(pressed, points, np.inf).min(axis=1, initial=np.inf)
    high = np.where(pressed, points, -np.inf).max(axis=1, initial=-np.inf)
    shift, found = clear_shift(low, high, rectangles, bounds)
    first = points[np.arange(len(points)), pressed[..., 0].argmax(axis=1)]
    tap_shift, _ = clear_shift(first, first, rectangles, bounds)
    points = np.where(found[:, None, None], points + shift[:, None], (first + tap_shift)[:, None])
    shifted = blocks.copy()
    shifted[..., axes] = np.where(pressed, points, 0.0)
    return shifted
