"""What the plans of a problem must keep: bounds, fixed entries, what was sent, no-touch areas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ActionError, ConstraintError
from vj2_ddim_plugin.gestures.avoidance import clear_shift, move_clear, touches
from vj2_ddim_plugin.gestures.continuation import continue_blocks
from vj2_ddim_plugin.gestures.segments import count_segments
from vj2_ddim_plugin.interface import FloatArray, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_actions

__all__ = ["Rules"]


class Rules:
    """The constraints of one problem, made ready for B problems of K candidates.

    Args:
        problem: Its `constraints` and `frozen_action` count.
        spec: What the optimizer samples.
        batch: B.

    Raises:
        ConstraintError: The constraints are malformed or contradict one another.
        ContextError: `frozen_action` is of the wrong shape or not finite.
    """

    def __init__(self, problem: PlanningProblem, spec: ActionSpec, batch: int) -> None:
        self.active = problem.frozen_action is not None or problem.constraints is not None
        self.part_is_known = False
        if not self.active:
            return
        asked = problem.constraints or PlanConstraints()
        self._spec = _narrowed(spec, asked)
        self._rectangles = _checked_rectangles(asked, self._spec)
        self.num_frozen = 0
        self._frozen = np.zeros((batch, 0, spec.num_channels), np.float32)
        if problem.frozen_action is not None:
            self._frozen = checked_actions(
                "frozen_action", problem.frozen_action, spec, spec.length - 1
            )
            self.num_frozen = self._frozen.shape[1]
        self._fixed = _checked_fixed(asked, self._spec, batch)
        self.part_is_known = self.num_frozen > 0 or not np.isnan(self._fixed).all()

    def enforce(self, actions: FloatArray) -> FloatArray:
        """Candidates `[B, K, L, A]`, brought to keep the rules as far as they can be."""
        if not self.active:
            return actions
        batch, count = actions.shape[:2]
        spec, block = self._spec, self._spec.action_block
        actions = spec.project(actions)
        frozen = np.repeat(self._frozen, count, axis=0)
        rows = actions.reshape(batch * count, spec.length, spec.num_channels).copy()
        for begin in range(0, spec.length, block):
            part = slice(begin, begin + block)
            sent = frozen[:, part]
            rows[:, part] = continue_blocks(rows[:, part], sent, spec)
            if len(self._rectangles):
                rows[:, part] = move_clear(rows[:, part], self._rectangles, spec, sent.shape[1])
        kept = rows.reshape(actions.shape)
        return np.where(np.isnan(self._fixed), kept, self._fixed).astype(actions.dtype)

    def kept(self, actions: FloatArray) -> NDArray[np.bool_]:
        """Whether each of `[B, K, L, A]` keeps every rule, as `[B, K]`."""
        if not self.active:
            return np.ones(actions.shape[:2], bool)
        spec, sent = self._spec, self.num_frozen
        equal = (actions[:, :, :sent] == self._frozen[:, None]).all(axis=(2, 3))
        same = np.isnan(self._fixed) | (actions == self._fixed.astype(actions.dtype))
        rest = actions[:, :, sent:]
        inside = (rest >= spec.low_array - 1e-6) & (rest <= spec.high_array + 1e-6)
        if spec.press_channel is not None:
            inside |= ~spec.pressed(rest)[..., None]
        kept = equal & same[:, :, sent:].all(axis=(2, 3)) & inside.all(axis=(2, 3))
        if len(self._rectangles):
            rows = actions.reshape(-1, spec.length, spec.num_channels)
            kept &= ~touches(rows, self._rectangles, spec, sent).reshape(kept.shape)
        return np.asarray(kept)

    def encodable(self, actions: FloatArray) -> NDArray[np.bool_]:
        """Whether the spec's representation can hold each of `[..., L, A]`, as `[...]`."""
        spec = self._spec
        if spec.representation != "path":
            return np.ones(actions.shape[:-2], bool)
        blocks = actions.reshape(-1, spec.action_block, spec.num_channels)
        single = count_segments(spec.pressed(blocks)) == 1
        return np.asarray(single.reshape(*actions.shape[:-2], spec.horizon).all(axis=-1))


def _narrowed(spec: ActionSpec, asked: PlanConstraints) -> ActionSpec:
    """The spec with the tighter bounds."""
    low = spec.low_array if asked.action_low is None else np.asarray(asked.action_low, float)
    high = spec.high_array if asked.action_high is None else np.asarray(asked.action_high, float)
    if low.shape != spec.low_array.shape or high.shape != spec.high_array.shape:
        raise ConstraintError(
            f"action_low and action_high must hold one value a channel {list(spec.channels)}; "
            f"found shapes {low.shape} and {high.shape}"
        )
    low, high = np.maximum(low, spec.low_array), np.minimum(high, spec.high_array)
    try:
        return replace(spec, action_low=tuple(low.tolist()), action_high=tuple(high.tolist()))
    except ActionError as error:
        raise ConstraintError(f"the constraints' bounds leave nothing: {error}") from error


def _checked_rectangles(asked: PlanConstraints, spec: ActionSpec) -> FloatArray:
    """`[R, 4]`, which must leave the finger somewhere to touch."""
    if len(asked.forbidden) == 0:
        return np.zeros((0, 4))
    if spec.press_channel is None or len(spec.coordinate_indices) < 2:
        raise ConstraintError(
            f"forbidden rectangles need a finger: a press_channel and two coordinates; these "
            f"actions have {list(spec.channels)}"
        )
    rectangles = np.asarray(asked.forbidden, float)
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


def _checked_fixed(asked: PlanConstraints, spec: ActionSpec, batch: int) -> FloatArray:
    """`[B or 1, 1, L, A]`, NaN where free."""
    shape = (spec.length, spec.num_channels)
    if asked.fixed is None:
        return np.full((1, 1, *shape), np.nan)
    fixed = np.asarray(asked.fixed, np.float32)
    if fixed.shape not in (shape, (batch, *shape)):
        raise ConstraintError(
            f"fixed has shape {fixed.shape}; expected {shape} or {(batch, *shape)} (NaN is free)"
        )
    if ((fixed < spec.low_array) | (fixed > spec.high_array)).any():
        raise ConstraintError("fixed holds entries outside the bounds; NaN leaves an entry free")
    return fixed.reshape(-1, 1, *shape)
