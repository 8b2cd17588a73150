"""Checks at the planner's seam: hosts pass NaN, wrong shapes and wrong widths without a word."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import ConditionSpec
from vj2_ddim_plugin.errors import BundleError, ContextError
from vj2_ddim_plugin.interface import CostFn, FloatArray, PlanningProblem

__all__ = [
    "checked_batch",
    "checked_context",
    "checked_cost",
    "checked_output",
    "checked_seed",
    "padded_warm_start",
]


def checked_context(problem: PlanningProblem, condition: ConditionSpec) -> dict[str, FloatArray]:
    """The context arrays that the model needs, as float32, checked.

    Raises:
        ContextError: An array is missing, unknown, of the wrong shape, or not finite.
    """
    missing = set(condition.inputs) - set(problem.context)
    unknown = set(problem.context) - set(condition.inputs)
    if missing or unknown:
        raise ContextError(
            f"context has {sorted(problem.context)}, this model needs {sorted(condition.inputs)}"
        )
    arrays: dict[str, FloatArray] = {}
    for name, shape in condition.inputs.items():
        array = np.ascontiguousarray(_numbers(f"context {name!r}", problem.context[name]))
        if array.shape[1:] != tuple(shape) or array.ndim != len(shape) + 1:
            raise ContextError(
                f"context {name!r} has shape {array.shape}; expected [B, "
                f"{', '.join(map(str, shape))}]"
            )
        if not np.isfinite(array).all():
            bad = int(np.sum(~np.isfinite(array)))
            raise ContextError(
                f"context {name!r} has {bad} values that are NaN or infinite; a plan from it would "
                f"be meaningless. Check the encoder"
            )
        arrays[name] = array
    return arrays


def _numbers(name: str, values: object) -> FloatArray:
    """As float32, or a `ContextError` for what is no array of numbers."""
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ContextError(f"{name} is not an array of numbers: {error}") from error


def checked_batch(problem: PlanningProblem, context: Mapping[str, FloatArray]) -> int:
    """B, from the context, the warm start, or `batch_size`, all of which must agree.

    Raises:
        ContextError: They disagree, or B is 0.
    """
    sizes = {name: len(array) for name, array in context.items()}
    if problem.init_action is not None:
        sizes["init_action"] = len(np.atleast_1d(_numbers("init_action", problem.init_action)))
    if problem.batch_size is not None:
        sizes["batch_size"] = problem.batch_size
    if len(set(sizes.values())) > 1:
        raise ContextError(f"batch sizes disagree: {sizes}")
    batch = next(iter(sizes.values()), 1)
    if batch < 1:
        raise ContextError(f"the batch is empty: {sizes}; give at least one problem")
    return batch


def checked_seed(problem: PlanningProblem, default: int) -> int:
    """The problem's own seed, or `default`; raises `ContextError` for a negative one."""
    seed = default if problem.seed is None else problem.seed
    if seed < 0:
        raise ContextError(f"seed must be at least 0, or None; found {seed}")
    return seed


def padded_warm_start(init_action: FloatArray | None, spec: ActionSpec, batch: int) -> FloatArray:
    """The warm start as candidates `[B, 1, L, A]`; `[B, 0, L, A]` when there is none.

    A short one is continued by zeros (finger up) for touches, by its last action otherwise.

    Raises:
        ContextError: It has the wrong shape, is longer than L, or is not finite.
    """
    if init_action is None:
        return np.zeros((batch, 0, spec.length, spec.num_channels), np.float32)
    actions = np.asarray(init_action, np.float32)
    if (
        actions.ndim != 3
        or actions.shape[2] != spec.num_channels
        or not 1 <= actions.shape[1] <= spec.length
    ):
        raise ContextError(
            f"init_action has shape {actions.shape}; expected [B, 1 to {spec.length}, "
            f"{spec.num_channels}]"
        )
    if not np.isfinite(actions).all():
        raise ContextError("init_action has values that are NaN or infinite; pass None instead")
    rest = np.repeat(actions[:, -1:], spec.length - actions.shape[1], axis=1)
    if spec.press_channel is not None:
        rest = np.zeros_like(rest)
    return np.concatenate([actions, rest], axis=1)[:, None]


def checked_cost(
    cost: CostFn, candidates: FloatArray, best_so_far: FloatArray | None = None
) -> FloatArray:
    """The planner's cost of `[B, K, L, A]` as `[B, K]`, NaN counted as infinitely bad.

    Args:
        cost: The planner's cost; it is given a copy, so it cannot change the candidates.
        candidates: `[B, K, L, A]`.
        best_so_far: `[B]`, lowest cost of earlier candidates; where it is finite, none of these
            has to be.

    Returns:
        `[B, K]`.

    Raises:
        ContextError: The shape is wrong, or a problem has no candidate of finite cost.
    """
    values = np.asarray(cost(candidates.copy()), np.float64)
    if values.shape != candidates.shape[:2]:
        raise ContextError(
            f"cost returned shape {values.shape} for candidates {candidates.shape}; expected "
            f"[B, K] = {candidates.shape[:2]}"
        )
    values = np.where(np.isfinite(values), values, np.inf)
    best = values.min(axis=1)
    if best_so_far is not None:
        best = np.minimum(best, best_so_far)
    hopeless = np.flatnonzero(np.isinf(best))
    if len(hopeless):
        raise ContextError(
            f"cost is NaN or infinite for every candidate of problem {hopeless[0]}; nothing can be "
            f"ranked. Check the world model"
        )
    return values


def checked_output(output: FloatArray, sample: FloatArray) -> FloatArray:
    """The denoiser's output, of the sample's shape and finite: clipping would hide the rest.

    Raises:
        BundleError: It is not.
    """
    if output.shape != sample.shape or not np.isfinite(output).all():
        raise BundleError(
            f"the denoiser returned shape {output.shape} with "
            f"{int(np.sum(~np.isfinite(output)))} values that are NaN or infinite, for a sample of "
            f"shape {sample.shape}. Check the weights, or export the checkpoint again"
        )
    return output
