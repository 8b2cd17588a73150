"""Your own optimizer behind the seam: it can be compared, and stand by when a plan fails."""

import time

import numpy as np
from plan import cost

from vj2_ddim_plugin import ActionSpec, DDIMOptimizer, PlanningProblem, PlanResult
from vj2_ddim_plugin.gestures import project
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel


class RandomSearch:
    """An `ActionOptimizer`: it needs one method, and the actions it plans."""

    def __init__(self, action_spec: ActionSpec, num_candidates: int = 64) -> None:
        self.action_spec, self.num_candidates = action_spec, num_candidates

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """The cheapest of many random gestures."""
        assert problem.cost is not None, "random search needs a cost"
        began, spec = time.perf_counter(), self.action_spec
        rng = np.random.default_rng(problem.seed)
        shape = (1, self.num_candidates, spec.length, spec.num_channels)
        candidates = project(rng.uniform(spec.low_array, spec.high_array, shape), spec)
        costs = problem.cost(candidates)
        best = costs.argmin(axis=1)
        return PlanResult(
            actions=candidates[np.arange(1), best],
            cost=costs.min(axis=1),
            history=costs.min(axis=1)[None],
            num_cost_evaluations=costs.size,
            num_denoiser_evaluations=0,
            wall_time_s={"total": time.perf_counter() - began},
            provider="numpy",
            stopped_because="finished",
            projection_distance=np.zeros(1),
        )


def main() -> None:
    """The same problem for both; then ours with the other standing by."""
    spec = ActionSpec()
    own = RandomSearch(spec)
    sampler = DDIMOptimizer(GaussianModel(spec, NoiseSchedule()), on_failure=(own,))
    problem = PlanningProblem(cost=cost, seed=0)
    for optimizer in (own, sampler):
        result = optimizer.optimize(problem)
        print(f"{type(optimizer).__name__}: cost {result.cost[0]:.3f}, by {result.planned_by}")


if __name__ == "__main__":
    main()
