"""DDIM first, another planner from its ranked candidates: does search add to a learned plan?"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vj2_ddim_benchmark.planners.ranking import require_free_plan, required_cost
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning.checks import checked_deadline

Improve = Callable[[PlanningProblem, PlanResult, FloatArray, FloatArray], PlanResult]
"""The second planner: a problem, the first plan, its candidates `[B, K, L, A]` and their cost."""


class StartedOptimizer:
    """An `ActionOptimizer` that hands the candidates of the first planner to another."""

    def __init__(self, first: ActionOptimizer, improve: Improve) -> None:
        self.first, self.improve = first, improve

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """For each problem the plan of lower cost; of equal ones, the first's."""
        begun = time.perf_counter()
        judge = required_cost(problem, "improving on candidates")
        require_free_plan(problem, "improving")
        deadline = checked_deadline(problem)
        ranked: list[tuple[FloatArray, FloatArray]] = []

        def remembered(candidates: FloatArray, /) -> FloatArray:
            asked, cost = candidates.copy(), np.asarray(judge(candidates))
            if cost.shape == asked.shape[:2]:  # another shape is the caller's to refuse
                ranked.append((asked, np.where(np.isfinite(cost), cost, np.inf).astype(float)))
            return cost

        result = self.first.optimize(replace(problem, cost=remembered))
        left = None if deadline is None else deadline - (time.perf_counter() - begun)
        if (left is not None and left <= 0.0) or not ranked:
            result = replace(result, stopped_because="deadline")
        else:
            known = (np.concatenate(each, axis=1) for each in zip(*ranked, strict=True))
            second = self.improve(replace(problem, deadline_s=left), result, *known)
            result = _better(result, second)
        total = time.perf_counter() - begun
        return replace(result, wall_time_s={**result.wall_time_s, "total": total})


@dataclass(frozen=True)
class WarmStarted:
    """The second planner begins at the first's plan, and never returns a worse one."""

    optimizer: ActionOptimizer

    def __call__(self, problem: PlanningProblem, first: PlanResult, *_: FloatArray) -> PlanResult:
        """Go on from `first`; its candidates are not used."""
        return self.optimizer.optimize(replace(problem, init_action=first.actions))


def _better(first: PlanResult, second: PlanResult) -> PlanResult:
    """Row by row the plan of lower cost, with the accounts of both; a NaN cost is no cost."""
    wins = (second.cost < first.cost) | np.isnan(first.cost)
    cost = np.where(wins, second.cost, first.cost)
    phases = dict(first.wall_time_s)
    for phase, seconds in second.wall_time_s.items():
        phases[phase] = phases.get(phase, 0.0) + seconds
    stopped = {first.stopped_because, second.stopped_because}
    return PlanResult(
        actions=np.where(wins[:, None, None], second.actions, first.actions),
        cost=cost,
        history=np.concatenate([first.history, cost[None]]),
        num_cost_evaluations=first.num_cost_evaluations + second.num_cost_evaluations,
        num_denoiser_evaluations=first.num_denoiser_evaluations + second.num_denoiser_evaluations,
        wall_time_s=phases,
        provider=first.provider,
        stopped_because="deadline" if "deadline" in stopped else "finished",
        projection_distance=np.where(wins, second.projection_distance, first.projection_distance),
        planned_by=first.planned_by,
        failures=(*first.failures, *second.failures),
    )
