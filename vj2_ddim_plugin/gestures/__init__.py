"""What a touch is: what is diffused of it, when it is valid, and the nearest one that is.

Every function takes actions `[..., L, A]` (flattened leading axes are fine) and their `ActionSpec`.
A valid gesture stays in bounds, has a binary press, is zero where the finger is up, has at most one
press segment of a length in range, and follows a path that is piecewise linear between the spec's
knots; each block of a sequence is one gesture. An array of the wrong shape is an `ActionError`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS, held_blocks, normalization_of
from vj2_ddim_plugin.gestures.segments import (
    IntArray,
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
    pressed,
    release,
)
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = [
    "PATH_TOLERANCE", "decode", "decode_checked", "diffused_bounds", "encode", "is_valid",
    "outside_bounds", "pressed", "project", "release",
]  # fmt: skip

PATH_TOLERANCE = 1e-4
"""How far, as a share of the bounds, a valid path may leave its knots."""


def diffused_bounds(spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest valid value of the diffused array `[M, C]`, for clipping."""
    return normalization_of(spec).bounds


def encode(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Actions `[..., L, A]` in the planner's units to the diffused array `[..., M, C]`.

    Args:
        actions: Gestures.
        spec: Says the representation and the normalization.

    Returns:
        `[..., M, C]` of the actions' dtype, in the sampler's units.

    Raises:
        ActionError: The representation cannot hold these gestures.
    """
    blocks, lead = _blocks(actions, spec)
    units = normalization_of(spec)
    values = REPRESENTATIONS[spec.representation].encode(blocks, spec)
    diffused = (values.reshape(*lead, *spec.diffused_shape) - units.centre) / units.scale
    return diffused.astype(actions.dtype, copy=False)


def decode(diffused: FloatArray, spec: ActionSpec) -> FloatArray:
    """The inverse of `encode` on valid gestures: `[..., M, C]` to actions `[..., L, A]`."""
    return decode_checked(diffused, spec)[0]


def decode_checked(diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, NDArray[np.bool_]]:
    """`decode`, and whether each of `[..., M, C]` is surely a valid gesture, as `[...]`.

    Read off the array itself, where that is quicker than looking at the gesture; False is "maybe".
    """
    if diffused.shape[-2:] != spec.diffused_shape:
        raise ActionError(
            f"diffused array ends in {diffused.shape[-2:]}, expected {spec.diffused_shape} for "
            f"representation {spec.representation!r}"
        )
    (rows, channels), lead = spec.diffused_shape, diffused.shape[:-2]
    units = normalization_of(spec)
    values = (units.centre + units.scale * diffused).reshape(-1, rows // spec.horizon, channels)
    blocks, valid = REPRESENTATIONS[spec.representation].decode(values, spec)
    actions = blocks.reshape(*lead, spec.length, spec.num_channels)
    surely = valid.reshape(*lead, spec.horizon).all(axis=-1)
    return actions.astype(diffused.dtype, copy=False), np.asarray(surely)


def outside_bounds(
    actions: FloatArray, spec: ActionSpec, *, released_is_zero: bool = False
) -> NDArray[np.bool_]:
    """Which values of `[..., A]` leave the bounds: the one rule, wherever values are checked.

    A value may exceed a bound by `BOUND_TOLERANCE` times the channel's larger bound. NaN does not
    leave them: whether numbers are finite is another question.

    Args:
        actions: In the planner's units.
        spec: The bounds, and which channel says whether the finger is down.
        released_is_zero: Whether 0 is the only value beyond the bounds that a finger may have while
            it is up; by default any is, because nothing is done with it.

    Returns:
        `[..., A]`.
    """
    slack = spec.bound_slack
    outside = (actions < spec.low_array - slack) | (actions > spec.high_array + slack)
    if spec.press_channel is not None:
        down = pressed(actions, spec)[..., None]
        outside &= (down | (actions != 0.0)) if released_is_zero else down
    return np.asarray(outside)


def is_valid(actions: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Whether each sequence of `[..., L, A]` keeps every rule of the spec, as `[...]`."""
    blocks, lead = _blocks(actions, spec)
    return np.asarray(_valid_blocks(blocks, spec).reshape(*lead, spec.horizon).all(axis=-1))


def project(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Move `[..., L, A]` onto valid gestures; valid ones come back as they were.

    The longest press segment is kept and its length brought into range, its path replaced by the
    least-squares path through the spec's knots, and the coordinates clipped to the bounds.
    """
    blocks, lead = _blocks(actions, spec)
    projected = _project_blocks(blocks, spec).reshape(*lead, spec.length, spec.num_channels)
    return projected.astype(actions.dtype, copy=False)


def _blocks(actions: FloatArray, spec: ActionSpec) -> tuple[FloatArray, tuple[int, ...]]:
    """One block a row, `[n, T, A]`, and the leading shape."""
    expected = (spec.length, spec.num_channels)
    if actions.shape[-2:] != expected:
        raise ActionError(
            f"actions have shape {actions.shape}, expected {expected} at the end (L, A)"
        )
    return actions.reshape(-1, spec.action_block, spec.num_channels), actions.shape[:-2]


def _valid_blocks(blocks: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Whether each block of `[n, T, A]` keeps every rule of the spec, as `[n]`."""
    valid = np.asarray((np.isfinite(blocks) & ~outside_bounds(blocks, spec)).all(axis=(1, 2)))
    if spec.press_channel is None:
        return valid
    blocks = np.where(valid[:, None, None], blocks, 0.0)
    down = pressed(blocks, spec)
    valid &= (np.abs(blocks - release(blocks, spec)) <= spec.bound_slack).all(axis=(1, 2))
    start, stop = longest_segment(down)
    valid &= (stop - start >= spec.min_press_steps) & (stop - start <= spec.longest_press)
    valid &= count_segments(down) <= 1
    if spec.path_knots is not None:
        drift = np.abs(_fit_path(blocks, start, stop, spec) - blocks)
        span = spec.high_array - spec.low_array
        valid &= (drift / span).max(axis=(1, 2)) <= PATH_TOLERANCE
    return np.asarray(valid)


def _project_blocks(blocks: FloatArray, spec: ActionSpec) -> FloatArray:
    """`project` for `[n, T, A]`."""
    if spec.press_channel is None:
        return np.clip(blocks, spec.low_array, spec.high_array)
    start, stop = _press_in_range(blocks, spec)
    steps = np.arange(spec.action_block)
    held = held_blocks(blocks, spec)
    held[..., spec.press_index] = (steps >= start[:, None]) & (steps < stop[:, None])
    if spec.path_knots is not None:
        return _fit_path(held, start, stop, spec)
    return release(np.clip(held, spec.low_array, spec.high_array), spec)


def _press_in_range(blocks: FloatArray, spec: ActionSpec) -> tuple[IntArray, IntArray]:
    """Start and stop of each block's press, of a valid length and inside the block.

    A block that owes a press and has none gets the shortest one, where its press channel peaks.
    """
    start, stop = longest_segment(pressed(blocks, spec))
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
    down = pressed(blocks, spec)[..., None]
    fitted = np.where(short & down, clipped, 0.0).astype(blocks.dtype)
    coordinates = spec.coordinate_indices
    knots = fit_knots(blocks[..., coordinates], start, stop, spec.required_path_knots)
    knots = np.clip(knots, spec.low_array[coordinates], spec.high_array[coordinates])
    path = interpolate_knots(knots, start, stop, spec.action_block)
    fitted[..., coordinates] = np.where(short, fitted[..., coordinates], path)
    fitted[..., spec.press_index] = blocks[..., spec.press_index]
    return fitted
