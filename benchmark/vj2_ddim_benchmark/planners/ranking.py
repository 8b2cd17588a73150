"""What was ranked in one planning call, projected as it would be executed, and the best of it."""

import time
from dataclasses import dataclass

import numpy as np

from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.gestures import is_valid, project
from vj2_ddim_plugin.interface import CostFn, FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning import checks
from vj2_ddim_plugin.planning.deadline import Deadline, Pace
from vj2_ddim_plugin.spec import ActionSpec

ROWS_BETWEEN_LOOKS = 16  # candidates of all problems that are ranked between looks at the clock


@dataclass(frozen=True, kw_only=True)
class RankedPlan(PlanResult):
    """A plan, and the candidate `[B, L, A]` it was projected from, equal to it where valid."""

    unprojected_actions: FloatArray


class Ranking:
    """Ranks candidates for one problem until its deadline, and keeps the best.

    What is not expected to end in time, by how long it took lately (`pace`), is not begun, and a
    smaller part of it is tried first. The seed is used where the problem brings none; errors name
    the planner.
    """

    def __init__(
        self, problem: PlanningProblem, spec: ActionSpec, seed: int, planner: str, pace: Pace,
        *, needs_cost: bool = True,
    ) -> None:  # fmt: skip
        self._deadline, self._pace = Deadline(checks.checked_deadline(problem), pace), pace
        self._ended: float | None = None  # when the last round was ranked
        require_free_plan(problem, planner)
        if needs_cost:
            required_cost(problem, planner)
        self._problem, self._planner, self._spec = problem, planner, spec
        self.batch = checks.checked_batch(problem, problem.context)
        self.rng = np.random.default_rng(checks.checked_seed(problem, seed))
        self.warm_start = checks.padded_warm_start(problem.init_action, spec, self.batch)
        shape = (self.batch, spec.length, spec.num_channels)
        self._best = self._unprojected = np.zeros(shape, np.float32)
        self._best_cost = np.full(self.batch, np.inf)
        self._history: list[FloatArray] = []
        self._num_evaluations, self._cost_s, self._stopped = 0, 0.0, "finished"

    def once(self, candidates: FloatArray, provider: str, **phases: float) -> RankedPlan:
        """The best of the warm start and `[B, K, L, A]`; the first of these where nothing ranks."""
        if self._problem.cost is not None:
            self.rank(np.concatenate([self.warm_start, candidates], axis=1))
        else:
            self._unprojected, self._best_cost = candidates[:, 0], np.full(self.batch, np.nan)
            self._best = onto_valid(self._unprojected, self._spec)
            self._stopped = "finished" if self._deadline.remaining() > 0.0 else "deadline"
        return self.result(provider, **phases)

    def rank(self, candidates: FloatArray) -> FloatArray:
        """Rank one round of `[B, K, L, A]`; their cost when projected, `[B, K]`."""
        if self._ended is not None:
            self._deadline.record("between", self.batch, time.perf_counter() - self._ended)
        cost, first = np.full(candidates.shape[:2], np.inf), 0
        while size := self._affordable(candidates.shape[1] - first):
            part = slice(first, first + size)
            cost[:, part] = self._rank(candidates[:, part])
            first += size
        self._history.append(self._best_cost)
        self._ended = time.perf_counter()
        return cost

    def out_of_time(self) -> bool:
        """Whether another round, of one candidate at least, is not expected to fit."""
        if not self._deadline.allows(("between", self.batch, 1), ("rank", self.batch, 1)):
            self._stopped = "deadline"
        return self._stopped == "deadline"

    def _affordable(self, num: int) -> int:
        """How many of `num` candidates a problem to rank at once; 0 when not one more fits."""
        if not (num and self._deadline.is_set):
            return num
        size = min(num, max(1, ROWS_BETWEEN_LOOKS // self.batch))
        remaining = self._deadline.remaining()
        while size > 1 and self._pace.expected("rank", size * self.batch) >= remaining:
            size //= 2
        if self._num_evaluations and not self._deadline.allows(("rank", size * self.batch, 1)):
            self._stopped = "deadline"
            return 0
        return size

    def result(self, provider: str = "numpy", **phases: float) -> RankedPlan:
        """The best candidates."""
        total = time.perf_counter() - self._deadline.started
        return RankedPlan(
            actions=self._best,
            cost=self._best_cost,
            history=np.reshape(self._history, (-1, self.batch)),
            num_cost_evaluations=self._num_evaluations,
            num_denoiser_evaluations=0,
            wall_time_s={**phases, "cost": self._cost_s, "total": total},
            provider=provider,
            stopped_because=self._stopped,
            projection_distance=np.abs(self._best - self._unprojected).max(axis=(1, 2)),
            unprojected_actions=self._unprojected,
        )

    def _rank(self, candidates: FloatArray) -> FloatArray:
        """Project, ask for the cost, and remember the best and the time it took."""
        started = time.perf_counter()
        projected = onto_valid(candidates, self._spec)
        begun = time.perf_counter()
        cost = checks.cost_of(required_cost(self._problem, self._planner), projected)
        self._cost_s += time.perf_counter() - begun
        self._num_evaluations += cost.size
        best = np.arange(self.batch), cost.argmin(axis=1)
        better = (cost[best] < self._best_cost)[:, None, None]
        self._best_cost = np.minimum(cost[best], self._best_cost)
        checks.require_finite_cost(self._best_cost)
        self._best = np.where(better, projected[best], self._best)
        self._unprojected = np.where(better, candidates[best], self._unprojected)
        self._deadline.record("rank", cost.size, time.perf_counter() - started)
        return cost


def onto_valid(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """`[..., L, A]` projected onto valid gestures; valid ones stay as they are, not rounded."""
    valid = is_valid(actions, spec)[..., None, None]
    projected: FloatArray = np.where(valid, actions, project(actions, spec))
    return projected


def require_free_plan(problem: PlanningProblem, planner: str) -> None:
    """Raise `ContextError` for a problem that asks for what these planners cannot keep."""
    if problem.frozen_action is not None or problem.constraints is not None:
        message = "keeps neither frozen_action nor constraints; leave both None"
        raise ContextError(f"{planner} {message}")


def required_cost(problem: PlanningProblem, planner: str) -> CostFn:
    """The problem's cost; raises `ContextError` where there is none."""
    if problem.cost is None:
        raise ContextError(f"{planner} needs a cost; this problem has none")
    return problem.cost
