"""Checks at the planner's seam: hosts pass NaN, wrong shapes and wrong widths without a word."""

import math
from collections.abc import Mapping

import numpy as np

from vj2_ddim_plugin.constraints import checked_actions, checked_array, numbers
from vj2_ddim_plugin.errors import BundleError, ContextError, CostError
from vj2_ddim_plugin.gestures import outside_bounds
from vj2_ddim_plugin.interface import CostFn, FloatArray, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.model import EncodedContext
from vj2_ddim_plugin.planning import LARGEST_SEED, MOST_VALUES
from vj2_ddim_plugin.settings import is_a, plain, shown
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

__all__ = [
    "checked_actions", "checked_array", "checked_batch", "checked_condition", "checked_context",
    "checked_cost", "checked_deadline", "checked_output", "checked_seed", "cost_of",
    "outside_bounds", "padded_warm_start", "require_finite_cost", "require_problem", "require_room",
]  # fmt: skip

FOREVER_S = 1e9  # thirty years


def require_problem(problem: object) -> None:
    """Raise `ContextError` for what is no problem, or has a field that nothing can be done with."""
    if not isinstance(problem, PlanningProblem):
        raise ContextError(f"problem must be a PlanningProblem; found {shown(problem)}")
    if not isinstance(problem.context, Mapping):
        raise ContextError(
            f"context must map names to arrays; found {shown(problem.context)}. It is empty for an "
            f"unconditional model"
        )
    if problem.cost is not None and not callable(problem.cost):
        raise ContextError(f"cost must be a function, or None; found {shown(problem.cost)}")
    if not isinstance(problem.constraints, PlanConstraints | None):
        raise ContextError(
            f"constraints must be PlanConstraints, or None; found {shown(problem.constraints)}"
        )


def require_room(spec: ActionSpec, batch: int, count: int) -> None:
    """Raise `ContextError` for more candidates than are ever held in memory at once."""
    each = max(spec.length * spec.num_channels, math.prod(spec.diffused_shape))
    if batch * count * each > MOST_VALUES:
        raise ContextError(
            f"{batch} problems with {count} candidates of {each} numbers each are too many for one "
            f"plan; at most {MOST_VALUES} numbers. Plan in smaller batches, or with fewer "
            f"num_candidates"
        )


def checked_context(problem: PlanningProblem, condition: ConditionSpec) -> dict[str, FloatArray]:
    """The context arrays that the model needs, as float32, checked."""
    if set(condition.inputs) != set(problem.context):
        raise ContextError(
            f"context has {sorted(map(str, problem.context))}, this model needs "
            f"{sorted(condition.inputs)}"
        )
    arrays: dict[str, FloatArray] = {}
    for name, shape in condition.inputs.items():
        array = np.ascontiguousarray(checked_array(f"context {name!r}", problem.context[name]))
        if array.shape[1:] != tuple(shape) or array.ndim != len(shape) + 1:
            raise ContextError(
                f"context {name!r} has shape {array.shape}; expected [B, "
                f"{', '.join(map(str, shape))}]"
            )
        if bad := int(np.sum(~np.isfinite(array))):
            raise ContextError(
                f"context {name!r} has {bad} values that are NaN or infinite; a plan from it would "
                f"be meaningless. Check the encoder"
            )
        arrays[name] = array
    return arrays


def checked_batch(problem: PlanningProblem, context: Mapping[str, FloatArray]) -> int:
    """B, from the problem's arrays or `batch_size`, all of which must agree."""
    sizes = {name: len(array) for name, array in context.items()}
    for name in ("init_action", "frozen_action"):
        actions = getattr(problem, name)
        if actions is not None:
            shape = checked_array(name, actions).shape
            if len(shape) != 3:
                raise ContextError(f"{name} has shape {shape}; expected [B, steps, channels]")
            sizes[name] = shape[0]
    if (size := plain(problem.batch_size)) is not None:
        if not is_a(size, int):
            raise ContextError(f"batch_size must be an integer, or None; found {shown(size)}")
        sizes["batch_size"] = size
    if len(set(sizes.values())) > 1:
        raise ContextError(f"batch sizes disagree: {sizes}")
    batch = next(iter(sizes.values()), 1)
    if batch < 1:
        raise ContextError(f"the batch is empty: {sizes}; give at least one problem")
    return batch


def checked_seed(problem: PlanningProblem, default: int) -> int:
    """The problem's own seed, or `default`; raises `ContextError` for one that is no seed."""
    seed = plain(default if problem.seed is None else problem.seed)
    if not is_a(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ContextError(
            f"seed must be an integer of at least 0 and at most 2**64 - 1, or None; found "
            f"{shown(seed)}"
        )
    return int(seed)


def checked_deadline(problem: PlanningProblem) -> float | None:
    """The deadline in seconds, or None; raises `ContextError` for what is no number.

    One that is negative is over before it begins; an infinite one is none.
    """
    deadline = plain(problem.deadline_s)
    if deadline is None:
        return None
    if not is_a(deadline, float) or not deadline > -math.inf:
        raise ContextError(
            f"deadline_s must be a number of seconds, or None; found {shown(deadline)}"
        )
    return float(max(deadline, 0.0)) if deadline < FOREVER_S else None


def padded_warm_start(init_action: FloatArray | None, spec: ActionSpec, batch: int) -> FloatArray:
    """The warm start as candidates `[B, 1, L, A]`; `[B, 0, L, A]` when there is none.

    A short one is continued by zeros (finger up) for touches, by its last action otherwise.
    """
    if init_action is None:
        return np.zeros((batch, 0, spec.length, spec.num_channels), np.float32)
    actions = checked_actions("init_action", init_action, spec, spec.length)
    outside = outside_bounds(actions, spec)
    if outside.any():
        raise ContextError(
            f"init_action leaves the bounds {spec.action_low} to {spec.action_high}: it holds "
            f"{actions[outside][0]:g}. Clip it, or pass None"
        )
    rest = np.repeat(actions[:, -1:], spec.length - actions.shape[1], axis=1)
    if spec.press_channel is not None:
        rest = np.zeros_like(rest)
    return np.concatenate([actions, rest], axis=1)[:, None]


def cost_of(cost: CostFn, candidates: FloatArray) -> FloatArray:
    """The planner's cost of `[B, K, L, A]` as `[B, K]`, NaN counted as infinitely bad.

    It is given a copy, so it cannot change the candidates.
    """
    try:
        given = cost(candidates.copy())
    except Exception as error:
        raise CostError(
            f"cost raised {type(error).__name__} for candidates {candidates.shape}: {error}"
        ) from error
    values = numbers("cost's result", given, np.float64, CostError)
    if values.shape != candidates.shape[:2]:
        raise CostError(
            f"cost returned shape {values.shape} for candidates {candidates.shape}; expected "
            f"[B, K] = {candidates.shape[:2]}"
        )
    return np.where(np.isnan(values), np.inf, values)


def checked_cost(cost: CostFn, candidates: FloatArray) -> FloatArray:
    """`cost_of` candidates of which every problem has one that may be chosen."""
    values = cost_of(cost, candidates)
    require_finite_cost(values.min(axis=1))
    return values


def require_finite_cost(best: FloatArray) -> None:
    """Raise `CostError` where the best cost of a problem, `[B]`, is that of no plan."""
    for row in np.flatnonzero(~(best < np.inf)):
        raise CostError(
            f"cost is NaN or infinite for every candidate of problem {row}; nothing can be "
            f"ranked. Check the world model"
        )


def checked_condition(encoded: EncodedContext | None) -> EncodedContext | None:
    """Condition tokens, finite: the denoiser would make them a plan all the same."""
    for tokens in encoded or ():
        if bad := int(np.sum(~np.isfinite(tokens))):
            raise ContextError(
                f"the context was encoded as {bad} values that are NaN or infinite; a plan from it "
                f"would be meaningless. Are its values much larger than in training?"
            )
    return encoded


def checked_output(output: FloatArray, sample: FloatArray) -> FloatArray:
    """The denoiser's output, of the sample's shape and finite: clipping would hide the rest."""
    if output.shape != sample.shape or not np.isfinite(output).all():
        raise BundleError(
            f"the denoiser returned shape {output.shape} with "
            f"{int(np.sum(~np.isfinite(output)))} values that are NaN or infinite, for a sample of "
            f"shape {sample.shape}. Check the weights, or export the checkpoint again"
        )
    return output
