"""DDIM first, another planner after it: does search add anything to a learned plan?

The second planner begins where DDIM's ranked candidates are. The plan is the better of the two, so
it is never worse than DDIM's, and the accounts are those of both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vj2_ddim_benchmark.planners.candidate_cem import CandidateCEM
from vj2_ddim_benchmark.planners.ddim import ddim
from vj2_ddim_benchmark.planners.description import (
    TUNED_DIR,
    Planner,
    PlannerAssets,
    TunedSettings,
    read_tuned,
)
from vj2_ddim_benchmark.planners.gesture_cem import gesture_cem
from vj2_ddim_benchmark.planners.gradient_descent import gradient_descent
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    FloatArray,
    PlanningProblem,
    PlanResult,
)
from vj2_ddim_plugin.planning.checks import checked_deadline

__all__ = ["Improve", "StartedOptimizer", "WarmStarted", "ddim_adam", "ddim_cem"]

Improve = Callable[[PlanningProblem, PlanResult, FloatArray, FloatArray], PlanResult]
"""The second planner: a problem, the first plan, its candidates `[B, K, L, A]` and their cost."""


class StartedOptimizer:
    """An `ActionOptimizer` that hands the candidates of one to another planner.

    Args:
        first: Ranks candidates by the problem's cost, for example DDIM.
        improve: Goes on from them.
    """

    def __init__(self, first: ActionOptimizer, improve: Improve) -> None:
        self.first, self.improve = first, improve

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan.

        Args:
            problem: See `PlanningProblem`. The second planner gets what the first leaves of
                `deadline_s`, and is not asked when that is nothing.

        Returns:
            For each problem the plan of lower cost; of equal ones, the first's. Evaluations and
            phases are sums over both; `history` is the first's, and the lowest cost in the end.

        Raises:
            ContextError: There is no cost, or the problem does not fit one of the two.
        """
        begun = time.perf_counter()
        if problem.cost is None:
            raise ContextError("improving on candidates needs a cost; this problem has none")
        if problem.frozen_action is not None or problem.constraints is not None:
            raise ContextError("improving keeps neither frozen_action nor constraints; leave None")
        deadline = checked_deadline(problem)
        ranked = _Recorder(problem.cost)
        first = self.first.optimize(replace(problem, cost=ranked))
        left = None if deadline is None else deadline - (time.perf_counter() - begun)
        if (left is not None and left <= 0.0) or not ranked.candidates:
            return _timed(replace(first, stopped_because="deadline"), begun)
        candidates = np.concatenate(ranked.candidates, axis=1)
        cost = np.concatenate(ranked.costs, axis=1)
        cost = np.where(np.isfinite(cost), cost, np.inf)
        second = self.improve(replace(problem, deadline_s=left), first, candidates, cost)
        return _timed(_better(first, second), begun)


class _Recorder:
    """A cost that remembers what was ranked."""

    def __init__(self, cost: CostFn) -> None:
        self._cost = cost
        self.candidates: list[FloatArray] = []
        self.costs: list[FloatArray] = []

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """The cost of `[B, K, L, A]`, `[B, K]`."""
        asked = candidates.copy()
        cost = np.asarray(self._cost(candidates))
        if cost.shape == asked.shape[:2]:  # another shape is the caller's to refuse
            self.candidates.append(asked)
            self.costs.append(cost.astype(np.float64))
        return cost


class WarmStarted:
    """The second planner begins at the first's plan, as its `init_action`.

    Args:
        optimizer: Never returns a plan worse than `init_action`.
    """

    def __init__(self, optimizer: ActionOptimizer) -> None:
        self.optimizer = optimizer

    def __call__(
        self,
        problem: PlanningProblem,
        first: PlanResult,
        candidates: FloatArray,
        cost: FloatArray,
        /,
    ) -> PlanResult:
        """Go on from `first`; the other candidates are not used."""
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


def _timed(result: PlanResult, begun: float) -> PlanResult:
    total = time.perf_counter() - begun
    return replace(result, wall_time_s={**result.wall_time_s, "total": total})


def _recorded(parent: Planner) -> dict[str, Any]:
    """The winner of another planner's sweep: what begins at DDIM's plan is not tuned apart."""
    return read_tuned(TUNED_DIR, parent)


def make_ddim_cem(assets: PlannerAssets, settings: TunedSettings) -> StartedOptimizer:
    """DDIM's candidates, then CEM with the settings of `gesture-cem-8x16`.

    What is reused of that sweep is the elites, the smoothing and the covariance; the first standard
    deviation is the elites' own.
    """
    tuned = _recorded(gesture_cem(8, 16))
    del tuned["std"]
    changes = {name: value for name, value in settings.items() if name != "num_candidates"}
    improve = CandidateCEM(assets.action_spec, seed=assets.seed, **tuned, **changes)
    return StartedOptimizer(_ranked_ddim(assets, settings), improve)


def make_ddim_adam(assets: PlannerAssets, settings: TunedSettings) -> StartedOptimizer:
    """DDIM's plan, then Adam as tuned for `gradient-descent-adam-N`."""
    descent = gradient_descent("adam", settings["num_iterations"])
    optimizer = descent.build(assets, _recorded(descent))
    return StartedOptimizer(_ranked_ddim(assets, settings), WarmStarted(optimizer))


def _ranked_ddim(assets: PlannerAssets, settings: TunedSettings) -> ActionOptimizer:
    first = ddim(settings["num_candidates"])
    return first.build(assets, _recorded(first))


def ddim_cem(
    num_candidates: int, *, num_iterations: int = 4, num_samples: int = 16, in_quick: bool = False
) -> Planner:
    """The registry's row; nothing is tuned apart."""
    return Planner(
        f"ddim-{num_candidates}-cem",
        make_ddim_cem,
        in_quick=in_quick,
        fixed={
            "num_candidates": num_candidates,
            "num_iterations": num_iterations,
            "num_samples": num_samples,
        },
        needs=("bundle",),
    )


def ddim_adam(num_candidates: int, num_iterations: int, *, in_quick: bool = False) -> Planner:
    """The registry's row; nothing is tuned apart."""
    return Planner(
        f"ddim-{num_candidates}-adam-{num_iterations}",
        make_ddim_adam,
        in_quick=in_quick,
        fixed={"num_candidates": num_candidates, "num_iterations": num_iterations},
        needs=("bundle",),
    )
