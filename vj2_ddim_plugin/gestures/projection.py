"""What makes a block a valid gesture, and the projection of any block onto one.

Both functions take one block a row, `[n, T, A]`, in the planner's units. A valid gesture stays in
bounds, has a binary press, is zero where the finger is up, has at most one press segment of a
length in range, and follows a path that is piecewise linear between the spec's knots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS
from vj2_ddim_plugin.gestures.segments import (
    IntArray,
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
)
from vj2_ddim_plugin.interface import FloatArray

if TYPE_CHECKING:
    from vj2_ddim_plugin.actions import ActionSpec

__all__ = ["project_blocks", "valid_blocks"]

BOUND_TOLERANCE = 1e-6  # as a share of each channel's largest bound: float32 rounds so much
PATH_TOLERANCE = 1e-4  # how far, as a share of the bounds, a valid path may leave its knots


def valid_blocks(blocks: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Whether each block of `[n, T, A]` keeps every rule of the spec, as `[n]`."""
    slack = BOUND_TOLERANCE * np.maximum(np.abs(spec.low_array), np.abs(spec.high_array))
    inside = (blocks >= spec.low_array - slack) & (blocks <= spec.high_array + slack)
    if spec.press_channel is None:
        return np.asarray(inside.all(axis=(1, 2)))
    finite = np.asarray(np.isfinite(blocks).all(axis=(1, 2)))
    blocks = np.where(finite[:, None, None], blocks, 0.0)
    pressed = spec.pressed(blocks)
    valid = finite & np.where(pressed[..., None], inside, True).all(axis=(1, 2))
    valid &= (np.abs(blocks - spec.release(blocks)) <= slack).all(axis=(1, 2))
    start, stop = longest_segment(pressed)
    valid &= (stop - start >= spec.min_press_steps) & (stop - start <= spec.longest_press)
    valid &= count_segments(pressed) <= 1
    if spec.path_knots is not None:
        drift = np.abs(_fit_path(blocks, start, stop, spec) - blocks)
        span = spec.high_array - spec.low_array
        valid &= (drift / span).max(axis=(1, 2)) <= PATH_TOLERANCE
    return np.asarray(valid)


def project_blocks(blocks: FloatArray, spec: ActionSpec) -> FloatArray:
    """Move `[n, T, A]` onto valid gestures; a valid block comes back as it was.

    The longest press segment is kept and its length brought into range, its path replaced by the
    least-squares path through the spec's knots, and the coordinates clipped to the bounds.
    """
    if spec.press_channel is None:
        return np.clip(blocks, spec.low_array, spec.high_array)
    start, stop = _press_in_range(blocks, spec)
    steps = np.arange(spec.action_block)
    held = REPRESENTATIONS["held"].encode(blocks, spec)
    held[..., spec.press_index] = (steps >= start[:, None]) & (steps < stop[:, None])
    if spec.path_knots is not None:
        return _fit_path(held, start, stop, spec)
    return spec.release(np.clip(held, spec.low_array, spec.high_array))


def _press_in_range(blocks: FloatArray, spec: ActionSpec) -> tuple[IntArray, IntArray]:
    """Start and stop of each block's press, of a valid length and inside the block.

    A block that owes a press and has none gets the shortest one, where its press channel peaks.
    """
    start, stop = longest_segment(spec.pressed(blocks))
    absent = stop <= start
    start = np.where(absent, np.argmax(blocks[..., spec.press_index], axis=1), start)
    length = np.clip(stop - start, spec.min_press_steps, spec.longest_press)
    length = np.where(absent, spec.min_press_steps, length)
    start = np.minimum(start, spec.action_block - length)
    return start, start + length


def _fit_path(blocks: FloatArray, start: IntArray, stop: IntArray, spec: ActionSpec) -> FloatArray:
    """The blocks with their paths replaced by the least-squares ones, zero where released.

    A press of fewer steps than knots has no path to fit: it is clipped to the bounds.
    """
    clipped = np.clip(blocks, spec.low_array, spec.high_array)
    short = (stop - start < spec.required_path_knots)[:, None, None]
    fitted = np.where(short & spec.pressed(blocks)[..., None], clipped, 0.0).astype(blocks.dtype)
    coordinates = spec.coordinate_indices
    knots = fit_knots(blocks[..., coordinates], start, stop, spec.required_path_knots)
    knots = np.clip(knots, spec.low_array[coordinates], spec.high_array[coordinates])
    path = interpolate_knots(knots, start, stop, spec.action_block)
    fitted[..., coordinates] = np.where(short, fitted[..., coordinates], path)
    fitted[..., spec.press_index] = blocks[..., spec.press_index]
    return fitted
