"""What the plans of a problem must keep: bounds, fixed entries, what was sent, no-touch areas."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.constraints.moves import (
    clear_shift,
    continue_blocks,
    meet_fixed,
    move_clear,
    touches,
)
from vj2_ddim_plugin.errors import ActionError, ConstraintError, ContextError
from vj2_ddim_plugin.gestures import outside_bounds, pressed, project
from vj2_ddim_plugin.gestures.segments import count_segments
from vj2_ddim_plugin.interface import FloatArray, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.settings import shown
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["Rules", "checked_actions", "checked_array", "numbers"]

LARGEST = 1e9  # what no planner's units reach
MOST_RECTANGLES = 256
NO_NUMBERS = "bcmMOSU"  # kinds of arrays: truth values, complex numbers, times, objects, texts


class Rules:
    """The constraints of one problem, made ready for B problems of K candidates."""

    def __init__(
        self, problem: PlanningProblem, spec: ActionSpec, batch: int, *, project: bool = True
    ) -> None:
        self.active = problem.frozen_action is not None or problem.constraints is not None
        self.part_is_known = False
        if not self.active:
            return
        asked = problem.constraints or PlanConstraints()
        self._spec, self._project = _narrowed(spec, asked), project
        self._rectangles = _rectangles(asked, self._spec)
        self._frozen = np.zeros((batch, 0, spec.num_channels), np.float32)
        if (frozen := problem.frozen_action) is not None:
            self._frozen = checked_actions("frozen_action", frozen, spec, spec.length - 1)
        self.num_frozen = self._frozen.shape[1]
        self._fixed = _fixed(asked, self._spec, batch, self._frozen)
        # of the problem, not of one row: a plan must not depend on what its batch mates have fixed
        self.part_is_known = problem.frozen_action is not None or asked.fixed is not None

    def enforce(self, actions: FloatArray, *, avoid: bool = True) -> FloatArray:
        """Candidates `[B, K, L, A]`, changed where they must be and as far as they can be."""
        if not self.active or (broken := ~self.kept(actions, avoid=avoid)).sum() == 0:
            return actions
        spec, block, count = self._spec, self._spec.action_block, actions.shape[1]
        problem, _ = np.nonzero(broken)
        rows = actions[broken]
        rows = project(rows, spec) if self._project else _clipped(rows, spec)
        fixed = np.broadcast_to(self._fixed, (len(actions), *self._fixed.shape[1:]))
        for begin in range(0, spec.length, block):
            part = slice(begin, begin + block)
            sent = self._frozen[problem][:, part]
            rows[:, part] = continue_blocks(rows[:, part], sent, spec)
            if spec.press_channel is not None:
                rows[:, part] = meet_fixed(rows[:, part], fixed[problem][:, part], spec)
            if avoid and len(self._rectangles):
                rows[:, part] = move_clear(rows[:, part], self._rectangles, spec, sent.shape[1])
        enforced = actions.copy()
        enforced[broken] = _with_fixed(rows, fixed[problem], spec)
        enforced[:, :, : self.num_frozen] = np.repeat(self._frozen[:, None], count, axis=1)
        return enforced

    def kept(self, actions: FloatArray, *, avoid: bool = True) -> NDArray[np.bool_]:
        """Whether each of `[B, K, L, A]` keeps every rule (or all but the rectangles), `[B, K]`."""
        if not self.active:
            return np.ones(actions.shape[:2], bool)
        spec, sent = self._spec, self.num_frozen
        kept = (actions[:, :, :sent] == self._frozen[:, None]).all(axis=(2, 3))
        fixed = self._fixed[:, None].astype(actions.dtype)
        kept &= (np.isnan(fixed) | (actions == fixed)).all(axis=(2, 3))
        rest = actions[:, :, sent:]
        if spec.press_channel is not None and self._project:
            kept &= (_count_presses(actions, spec) <= 1).all(axis=-1)
        kept &= ~outside_bounds(rest, spec).any(axis=(2, 3))
        if avoid and len(self._rectangles):
            rows = actions.reshape(-1, spec.length, spec.num_channels)
            kept &= ~touches(rows, self._rectangles, spec, sent).reshape(kept.shape)
        return np.asarray(kept)

    def encodable(self, actions: FloatArray) -> NDArray[np.bool_]:
        """Whether the spec's representation can hold each of `[..., L, A]`, as `[...]`."""
        spec = self._spec
        if spec.representation != "path":
            return np.ones(actions.shape[:-2], bool)
        return np.asarray((_count_presses(actions, spec) == 1).all(axis=-1))


def _with_fixed(rows: FloatArray, fixed: FloatArray, spec: ActionSpec) -> FloatArray:
    """Rows `[n, L, A]` with the given entries, and nothing but them where they lift the finger.

    A row whose finger they would put down somewhere that no gesture led to stays as it was: it does
    not keep them, and is never the plan.
    """
    written = np.where(np.isnan(fixed), rows, fixed)
    if spec.press_channel is None:
        return written
    down = np.asarray(pressed(written, spec))
    free = np.isnan(fixed) & ~down[..., None]
    free[..., spec.press_index] = False
    written = np.where(free, 0.0, written)
    invented = np.asarray((down & ~pressed(rows, spec)).any(axis=1))
    return np.where(invented[:, None, None], rows, written)


def _clipped(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Within the bounds where the finger is down, or everywhere if there is no finger."""
    clipped = np.clip(actions, spec.low_array, spec.high_array).astype(actions.dtype)
    if spec.press_channel is None:
        return clipped
    return np.where(pressed(actions, spec)[..., None], clipped, actions)


def _count_presses(actions: FloatArray, spec: ActionSpec) -> NDArray[np.integer]:
    """Press segments in each block of each of `[..., L, A]`, as `[..., horizon]`."""
    blocks = pressed(actions, spec).reshape(-1, spec.action_block)
    return count_segments(blocks).reshape(*actions.shape[:-2], spec.horizon)


def _narrowed(spec: ActionSpec, asked: PlanConstraints) -> ActionSpec:
    """The spec with the tighter bounds."""
    low, high = (
        own if given is None else numbers(name, given, np.float64, ConstraintError)
        for name, given, own in (
            ("action_low", asked.action_low, spec.low_array),
            ("action_high", asked.action_high, spec.high_array),
        )
    )
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


def _rectangles(asked: PlanConstraints, spec: ActionSpec) -> FloatArray:
    """`[R, 4]`, which must leave the finger somewhere to touch."""
    if asked.forbidden is None:
        return np.zeros((0, 4))
    name = "forbidden must be rectangles (x_low, y_low, x_high, y_high): it"
    rectangles = numbers(name, asked.forbidden, np.float64, ConstraintError)
    if rectangles.ndim > 0 and len(rectangles) == 0:
        return np.zeros((0, 4))
    if spec.press_channel is None or len(spec.coordinate_indices) < 2:
        raise ConstraintError(
            f"forbidden rectangles need a finger: a press_channel and two coordinates; these "
            f"actions have {list(spec.channels)}"
        )
    if rectangles.ndim != 2 or rectangles.shape[1] != 4 or not np.isfinite(rectangles).all():
        raise ConstraintError(
            f"forbidden must be rectangles (x_low, y_low, x_high, y_high); found "
            f"{shown(asked.forbidden)}"
        )
    if len(rectangles) > MOST_RECTANGLES:
        raise ConstraintError(
            f"forbidden has {len(rectangles)} rectangles; at most {MOST_RECTANGLES}. Join some"
        )
    rectangles = np.clip(rectangles, -LARGEST, LARGEST)
    if (rectangles[:, :2] > rectangles[:, 2:]).any():
        raise ConstraintError(f"a forbidden rectangle has low above high: {rectangles.tolist()}")
    centre = ((spec.low_array + spec.high_array) / 2)[None, spec.coordinate_indices[:2]]
    if not clear_shift(centre, centre, rectangles, spec)[1][0]:
        raise ConstraintError(
            f"the forbidden rectangles {rectangles.tolist()} cover all of the bounds; nowhere is "
            f"left to touch"
        )
    return rectangles


def _fixed(asked: PlanConstraints, spec: ActionSpec, batch: int, frozen: FloatArray) -> FloatArray:
    """`[B or 1, L, A]`, NaN where free; raises `ConstraintError` for what cannot be kept."""
    shape = (spec.length, spec.num_channels)
    if asked.fixed is None:
        return np.full((1, *shape), np.nan)
    fixed = numbers("fixed", asked.fixed, np.float32, ConstraintError)
    if fixed.shape not in (shape, (batch, *shape)):
        raise ConstraintError(
            f"fixed has shape {fixed.shape}; expected {shape} or {(batch, *shape)} (NaN is free)"
        )
    fixed = fixed.reshape(-1, *shape)
    for row, step, channel in np.argwhere(outside_bounds(fixed, spec, released_is_zero=True)):
        raise ConstraintError(
            f"fixed holds {fixed[row, step, channel]:g} for {spec.channels[channel]} at step "
            f"{step}, outside the bounds {spec.action_low[channel]:g} to "
            f"{spec.action_high[channel]:g}; NaN leaves an entry free"
        )
    sent = frozen.shape[1]
    if (~np.isnan(fixed[:, :sent]) & (fixed[:, :sent] != frozen)).any():
        raise ConstraintError(
            f"fixed contradicts frozen_action within the {sent} actions that were already sent; "
            f"leave them NaN in fixed"
        )
    return fixed


def numbers(
    name: str, values: object, dtype: type[np.floating[Any]], error: type[ContextError]
) -> FloatArray:
    """Values as an array of this type, or an error for what is no array of real numbers."""
    masked = isinstance(values, np.ma.MaskedArray)
    try:
        array = np.asarray(values)
        if not masked and array.dtype.kind not in NO_NUMBERS:
            with np.errstate(over="ignore"):  # too large becomes infinite
                return array.astype(dtype, copy=False)
        found = f"a masked array of {array.dtype}" if masked else f"{array.dtype}"
    except Exception as cause:  # whatever the other library raises, for example a tensor on a GPU
        raise error(f"{name} is not an array of numbers: {cause}") from cause
    raise error(f"{name} is not an array of numbers: expected real ones, found {found}")


def checked_array(name: str, values: object) -> FloatArray:
    """As float32, or a `ContextError` for what is no array of real numbers."""
    return numbers(name, values, np.float32, ContextError)


def checked_actions(name: str, actions: object, spec: ActionSpec, longest: int) -> FloatArray:
    """Actions `[B, 1 to longest, A]` as finite float32."""
    array = checked_array(name, actions)
    if array.ndim != 3 or array.shape[2] != spec.num_channels or not 1 <= array.shape[1] <= longest:
        raise ContextError(
            f"{name} has shape {array.shape}; expected [B, 1 to {longest}, {spec.num_channels}]"
        )
    if not (np.abs(array) <= LARGEST).all():
        raise ContextError(
            f"{name} has values that are NaN, infinite or above {LARGEST:g}; pass None instead"
        )
    return array
