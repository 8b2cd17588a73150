"""What the plans of a problem must keep: bounds, fixed entries, what was sent, no-touch areas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ActionError, ConstraintError
from vj2_ddim_plugin.gestures.avoidance import move_clear, touches
from vj2_ddim_plugin.gestures.continuation import continue_blocks
from vj2_ddim_plugin.gestures.fixing import meet_fixed
from vj2_ddim_plugin.gestures.projection import BOUND_TOLERANCE
from vj2_ddim_plugin.gestures.segments import count_segments
from vj2_ddim_plugin.interface import FloatArray, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_actions
from vj2_ddim_plugin.planning.constraint_checks import checked_fixed, checked_rectangles

__all__ = ["Rules"]


class Rules:
    """The constraints of one problem, made ready for B problems of K candidates.

    Args:
        problem: Its `constraints` and `frozen_action` count.
        spec: What the optimizer samples.
        batch: B.
        project: Whether candidates that have to be changed are projected onto valid gestures.

    Raises:
        ConstraintError: The constraints are malformed or contradict one another.
        ContextError: `frozen_action` is of the wrong shape or not finite.
    """

    def __init__(
        self, problem: PlanningProblem, spec: ActionSpec, batch: int, *, project: bool = True
    ) -> None:
        self.active = problem.frozen_action is not None or problem.constraints is not None
        self.part_is_known = False
        if not self.active:
            return
        asked = problem.constraints or PlanConstraints()
        self._spec, self._project = _narrowed(spec, asked), project
        self._rectangles = checked_rectangles(asked, self._spec)
        self.num_frozen = 0
        self._frozen = np.zeros((batch, 0, spec.num_channels), np.float32)
        if problem.frozen_action is not None:
            self._frozen = checked_actions(
                "frozen_action", problem.frozen_action, spec, spec.length - 1
            )
            self.num_frozen = self._frozen.shape[1]
        self._fixed = checked_fixed(asked, self._spec, batch, self._frozen)
        # of the problem, not of one row: a plan must not depend on what its batch mates have fixed
        self.part_is_known = problem.frozen_action is not None or asked.fixed is not None

    def enforce(self, actions: FloatArray, *, avoid: bool = True) -> FloatArray:
        """Candidates `[B, K, L, A]`, changed where they must be and as far as they can be.

        Args:
            actions: Candidates; those that keep every rule stay exactly as they are.
            avoid: Whether they are also moved off forbidden rectangles.
        """
        if not self.active or (broken := ~self.kept(actions, avoid=avoid)).sum() == 0:
            return actions
        spec, block, count = self._spec, self._spec.action_block, actions.shape[1]
        problem, _ = np.nonzero(broken)
        rows = actions[broken]
        rows = spec.project(rows) if self._project else _clipped(rows, spec)
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
        slack = BOUND_TOLERANCE * np.maximum(np.abs(spec.low_array), np.abs(spec.high_array))
        inside = (rest >= spec.low_array - slack) & (rest <= spec.high_array + slack)
        if spec.press_channel is not None:
            inside |= ~spec.pressed(rest)[..., None]
            if self._project:
                kept &= _at_most_one_press(actions, spec)
        kept &= inside.all(axis=(2, 3))
        if avoid and len(self._rectangles):
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


def _with_fixed(rows: FloatArray, fixed: FloatArray, spec: ActionSpec) -> FloatArray:
    """Rows `[n, L, A]` with the given entries, and nothing but them where they lift the finger.

    A row whose finger they would put down somewhere that no gesture led to stays as it was: it does
    not keep them, and is never the plan.
    """
    written = np.where(np.isnan(fixed), rows, fixed)
    if spec.press_channel is None:
        return written
    down = np.asarray(spec.pressed(written))
    free = np.isnan(fixed) & ~down[..., None]
    free[..., spec.press_index] = False
    written = np.where(free, 0.0, written)
    invented = np.asarray((down & ~spec.pressed(rows)).any(axis=1))
    return np.where(invented[:, None, None], rows, written)


def _clipped(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Within the bounds where the finger is down, or everywhere if there is no finger."""
    clipped = np.clip(actions, spec.low_array, spec.high_array).astype(actions.dtype)
    if spec.press_channel is None:
        return clipped
    return np.where(spec.pressed(actions)[..., None], clipped, actions)


def _at_most_one_press(actions: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Whether each block of each of `[B, K, L, A]` is one gesture, or none, as `[B, K]`."""
    blocks = spec.pressed(actions).reshape(-1, spec.action_block)
    single = count_segments(blocks).reshape(*actions.shape[:2], spec.horizon) <= 1
    return np.asarray(single.all(axis=2))


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
