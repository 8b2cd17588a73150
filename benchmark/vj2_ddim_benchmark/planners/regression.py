"""Direct regression: the mean of what was done between such states, in one pass, never ranked.

Where one goal has one obvious gesture this is all that is needed; where it has several, their mean.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.amortised.planning import plan_from_prediction, require_same_actions
from vj2_ddim_benchmark.amortised.predictor import Predictor
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.ranking import RankedPlan
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.deadline import Pace

__all__ = ["RegressionOptimizer", "regression"]


class RegressionOptimizer:
    """An `ActionOptimizer` that returns the predicted plan, projected onto valid gestures.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        predictor: The trained model.

    Raises:
        ConfigError: The model plans other actions.
    """

    def __init__(self, action_spec: ActionSpec, predictor: Predictor) -> None:
        require_same_actions(predictor, action_spec)
        self.action_spec, self.predictor = action_spec, predictor
        self._pace = Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan; with a cost, the plan's is asked, and `init_action` returned where it is lower.

        Raises:
            ContextError: The problem does not fit, or its cost failed.
        """
        return plan_from_prediction(
            problem,
            self.predictor,
            self.action_spec,
            _mean_alone,
            seed=0,
            planner="regression",
            pace=self._pace,
        )


def _mean_alone(mean: FloatArray, std: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The mean as the only candidate, `[B, 1, M, C]`."""
    return mean[:, None]


def make_regression(assets: PlannerAssets, settings: TunedSettings) -> RegressionOptimizer:
    """What the registry builds."""
    predictor = Predictor.load(assets.path("regression"), "regression")
    return RegressionOptimizer(assets.action_spec, predictor, **settings)


def regression() -> Planner:
    """The registry's row; it sees no world model."""
    return Planner("regression", make_regression, with_cost=False, needs=("regression",))
