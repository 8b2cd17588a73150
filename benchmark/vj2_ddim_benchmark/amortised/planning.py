"""One planning call from a prediction: draw, decode, project, and rank where there is a cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vj2_ddim_benchmark.amortised.predictor import Predictor
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_batch, checked_context, checked_deadline
from vj2_ddim_plugin.planning.deadline import Pace

__all__ = ["Draw", "plan_from_prediction", "require_same_actions"]

Draw = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]
"""Mean and standard deviation `[B, M, C]` to normalized candidates `[B, K, M, C]`, mean first."""


def require_same_actions(predictor: Predictor, spec: ActionSpec) -> None:
    """Raise `ConfigError` unless the model predicts sequences of this spec's shape."""
    predicted = predictor.action_spec
    if (predicted.length, predicted.channels) != (spec.length, spec.channels):
        raise ConfigError(
            f"the model plans {predicted.length} actions of {predicted.channels}, the planner "
            f"needs {spec.length} of {spec.channels}; train it on the same data as the denoiser"
        )


def plan_from_prediction(
    problem: PlanningProblem,
    predictor: Predictor,
    spec: ActionSpec,
    draw: Draw,
    *,
    seed: int,
    planner: str,
    pace: Pace,
) -> RankedPlan:
    """Plan in one round.

    Args:
        problem: With a cost, the warm start and all candidates are ranked; without, the mean is
            the plan.
        predictor: Predicts the plan.
        spec: Bounds, and what a valid gesture is.
        draw: Makes candidates; not asked without a cost.
        seed: Used where the problem brings none.
        planner: Named in errors.
        pace: How long things took in earlier plans.

    Raises:
        ContextError: The problem does not fit, its cost failed, or it asks for what these planners
            cannot keep.
    """
    begun = time.perf_counter()
    context = checked_context(problem, predictor.condition)
    if problem.cost is None:
        return _unranked(problem, predictor, spec, context, begun, planner)
    ranking = Ranking(problem, spec, seed=seed, planner=planner, pace=pace)
    mean, std = predictor.predict(context)
    predicted = time.perf_counter()
    candidates = _decoded(draw(mean, std, ranking.rng), predictor)
    ranking.rank(np.concatenate([ranking.warm_start, candidates], axis=1))
    result = ranking.result()
    total = time.perf_counter() - begun
    phases = {**result.wall_time_s, "predict": predicted - begun, "total": total}
    return replace(result, provider=predictor.provider, wall_time_s=phases)


def _unranked(
    problem: PlanningProblem,
    predictor: Predictor,
    spec: ActionSpec,
    context: dict[str, FloatArray],
    begun: float,
    planner: str,
) -> RankedPlan:
    """The mean, decoded and projected."""
    if problem.frozen_action is not None or problem.constraints is not None:
        raise ContextError(
            f"{planner} keeps neither frozen_action nor constraints; leave both None"
        )
    batch, deadline_s = checked_batch(problem, context), checked_deadline(problem)
    mean, _ = predictor.predict(context)
    predicted = time.perf_counter()
    drawn = _decoded(mean, predictor)
    actions = np.where(spec.is_valid(drawn)[:, None, None], drawn, spec.project(drawn))
    total = time.perf_counter() - begun
    return RankedPlan(
        actions=actions,
        cost=np.full(batch, np.nan),
        history=np.zeros((0, batch)),
        num_cost_evaluations=0,
        num_denoiser_evaluations=0,
        wall_time_s={"predict": predicted - begun, "total": total},
        provider=predictor.provider,
        stopped_because="finished" if deadline_s is None or total < deadline_s else "deadline",
        projection_distance=np.abs(actions - drawn).max(axis=(1, 2)),
        unprojected_actions=drawn,
    )


def _decoded(diffused: FloatArray, predictor: Predictor) -> FloatArray:
    """Actions `[..., L, A]`, not yet projected, of `[..., M, C]`, clipped as DDIM's samples are."""
    low, high = predictor.action_spec.diffused_bounds
    return predictor.action_spec.decode(np.clip(diffused, low, high).astype(np.float32))
