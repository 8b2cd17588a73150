"""The nouns of planning: a problem, a result, and the seam between a planner and its optimizer.

Shapes: B problems, K candidates each, L actions a plan, A channels an action. L is
`horizon * action_block`. Costs are lower-is-better everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ActionOptimizer", "CostFn", "FloatArray", "PlanConstraints", "PlanResult", "PlanningProblem",
]  # fmt: skip

FloatArray = NDArray[np.floating[Any]]


class CostFn(Protocol):
    """The planner's own objective. Numpy in, numpy out; no gradient is asked of it."""

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """Cost of each candidate.

        Args:
            candidates: `[B, K, L, A]` action sequences in the planner's units.

        Returns:
            `[B, K]` real numbers, lower is better. A candidate whose cost is NaN or infinite is
            never chosen; one of minus infinity is better than all others. Where a problem has no
            candidate that may be chosen, planning it is a `CostError`, and so are masked, complex
            and object arrays.
        """
        ...


@dataclass(frozen=True)
class PlanConstraints:
    """What every returned plan keeps, in the planner's units; None or empty where nothing is asked.

    Attributes:
        action_low: `[A]`, lower bounds tighter than the optimizer's own.
        action_high: `[A]`, upper bounds tighter than the optimizer's own.
        fixed: `[L, A]` or `[B, L, A]`, entries that are given; NaN where the plan is free. They win
            over the rules of a valid gesture.
        forbidden: Rectangles `(x_low, y_low, x_high, y_high)`, edges included, that the finger may
            not touch or cross while it is down.
    """

    action_low: FloatArray | None = None
    action_high: FloatArray | None = None
    fixed: FloatArray | None = None
    forbidden: Sequence[tuple[float, float, float, float]] | None = ()


@dataclass(frozen=True)
class PlanningProblem:
    """What a planner asks of its optimizer, for B problems at once.

    Attributes:
        context: Named arrays `[B, ...]`, for example `state` and `goal` tokens `[B, N, D]`. Empty
            for an unconditional optimizer.
        cost: The planner's objective, or None when the optimizer should not rank.
        init_action: `[B, l, A]` with l <= L, the warm start, or None. A shorter one is the plan's
            beginning.
        deadline_s: Seconds the optimizer may take; at the deadline it returns its best so far. None
            or infinity is no deadline, a negative one is over before it begins.
        seed: Seed of this problem's randomness below 2^64, or None for the optimizer's own.
        batch_size: B, needed only when no array of the problem says it.
        frozen_action: `[B, n, A]` with n < L, actions that were already sent: every plan begins
            with exactly these and goes on from them. None when nothing was sent.
        constraints: What every plan must keep besides, or None.
    """

    context: Mapping[str, FloatArray] = field(default_factory=dict)
    cost: CostFn | None = None
    init_action: FloatArray | None = None
    deadline_s: float | None = None
    seed: int | None = None
    batch_size: int | None = None
    frozen_action: FloatArray | None = None
    constraints: PlanConstraints | None = None


@dataclass(frozen=True)
class PlanResult:
    """One plan for each of the B problems, and how it came about.

    Attributes:
        actions: `[B, L, A]` in the planner's units.
        cost: `[B]`, the planner's cost of exactly these actions; NaN when no cost was given.
        history: `[rounds, B]`, the best cost after each round; `num_robust` may choose another.
        num_cost_evaluations: Candidates whose cost was asked for, over all B problems.
        num_denoiser_evaluations: Rows that went through the denoiser, over all problems and steps.
        wall_time_s: Seconds by phase; `total` is the whole call.
        provider: The execution provider that really ran, or the name of another engine; `"none"`
            where the warm start answered for a plan that failed.
        stopped_because: `"finished"`, `"deadline"` (something was left out to keep it, or it was
            not kept), or `"failure"` where the warm start answered.
        projection_distance: `[B]`, the largest change that projection onto valid gestures made to
            the returned plan, in the planner's units; 0 where it changed nothing.
        planned_by: `"optimizer"`, or, when it failed, the link of its chain that answered:
            `"previous"` (the warm start) or `"host"` (another optimizer).
        failures: What went wrong on the way to this plan, one line each; empty when nothing did.
            The counts above are then those of the answer alone, the total time includes all.
    """

    actions: FloatArray
    cost: FloatArray
    history: FloatArray
    num_cost_evaluations: int
    num_denoiser_evaluations: int
    wall_time_s: Mapping[str, float]
    provider: str
    stopped_because: str
    projection_distance: FloatArray
    planned_by: str = "optimizer"
    failures: tuple[str, ...] = ()


@runtime_checkable
class ActionOptimizer(Protocol):
    """Anything that turns a problem into a plan: DDIM, gradient descent, CEM."""

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Return one plan for each of the problem's B rows."""
        ...
