"""Checks of what a user asks of every plan, before anything is sampled."""

from __future__ import annotations

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConstraintError
from vj2_ddim_plugin.gestures.avoidance import clear_shift
from vj2_ddim_plugin.gestures.projection import BOUND_TOLERANCE
from vj2_ddim_plugin.interface import FloatArray, PlanConstraints

__all__ = ["checked_fixed", "checked_rectangles"]


def checked_rectangles(asked: PlanConstraints, spec: ActionSpec) -> FloatArray:
    """`[R, 4]`, which must leave the finger somewhere to touch."""
    if len(asked.forbidden) == 0:
        return np.zeros((0, 4))
    if spec.press_channel is None or len(spec.coordinate_indices) < 2:
        raise ConstraintError(
            f"forbidden rectangles need a finger: a press_channel and two coordinates; these "
            f"actions have {list(spec.channels)}"
        )
    try:
        rectangles = np.asarray(asked.forbidden, float)
    except (TypeError, ValueError):
        rectangles = np.zeros(0)
    if rectangles.ndim != 2 or rectangles.shape[1] != 4 or not np.isfinite(rectangles).all():
        raise ConstraintError(
            f"forbidden must be rectangles (x_low, y_low, x_high, y_high); found "
            f"{asked.forbidden!r}"
        )
    if (rectangles[:, :2] > rectangles[:, 2:]).any():
        raise ConstraintError(f"a forbidden rectangle has low above high: {rectangles.tolist()}")
    axes = spec.coordinate_indices[:2]
    bounds = spec.low_array[axes], spec.high_array[axes]
    centre = (bounds[0] + bounds[1])[None] / 2
    if not clear_shift(centre, centre, rectangles, bounds)[1][0]:
        raise ConstraintError(
            f"the forbidden rectangles {rectangles.tolist()} cover all of the bounds; nowhere is "
            f"left to touch"
        )
    return rectangles


def checked_fixed(
    asked: PlanConstraints, spec: ActionSpec, batch: int, frozen: FloatArray
) -> FloatArray:
    """`[B or 1, L, A]`, NaN where free; raises `ConstraintError` for what cannot be kept."""
    shape = (spec.length, spec.num_channels)
    if asked.fixed is None:
        return np.full((1, *shape), np.nan)
    try:
        fixed = np.asarray(asked.fixed, np.float32)
    except (TypeError, ValueError) as error:
        raise ConstraintError(f"fixed is not an array of numbers: {error}") from error
    if fixed.shape not in (shape, (batch, *shape)):
        raise ConstraintError(
            f"fixed has shape {fixed.shape}; expected {shape} or {(batch, *shape)} (NaN is free)"
        )
    fixed = fixed.reshape(-1, *shape)
    slack = BOUND_TOLERANCE * np.maximum(np.abs(spec.low_array), np.abs(spec.high_array))
    outside = (fixed < spec.low_array - slack) | (fixed > spec.high_array + slack)
    if spec.press_channel is not None:  # a lifted finger is at 0, whatever the bounds
        outside &= (fixed != 0.0) | (fixed[..., [spec.press_index]] > 0.5)
    if outside.any():
        row, step, channel = np.argwhere(outside)[0]
        raise ConstraintError(
            f"fixed holds {fixed[row, step, channel]:g} for {spec.channels[channel]} at step "
            f"{step}, outside the bounds {spec.action_low[channel]:g} to "
            f"{spec.action_high[channel]:g}; NaN leaves an entry free"
        )
    sent = frozen.shape[1]
    given = ~np.isnan(fixed[:, :sent])
    if (given & (fixed[:, :sent] != frozen)).any():
        raise ConstraintError(
            f"fixed contradicts frozen_action within the {sent} actions that were already sent; "
            f"leave them NaN in fixed"
        )
    return fixed
