"""A Gaussian prior, ranked: the predicted mean, and samples around it, the cheapest of which wins.

It is what sampling-based planning from a learned prior comes to when the prior has one mode.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.amortised.planning import plan_from_prediction, require_same_actions
from vj2_ddim_benchmark.amortised.predictor import Predictor
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.population import require_at_least, require_in
from vj2_ddim_benchmark.planners.ranking import RankedPlan
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.deadline import Pace

__all__ = ["GaussianPriorOptimizer", "gaussian_prior"]


class GaussianPriorOptimizer:
    """An `ActionOptimizer` that ranks the mean of a predicted Gaussian and samples from it.

    Every problem of a batch gets the same standard normal noise, drawn from the seed alone, as with
    DDIM. Samples are projected onto valid gestures before they are ranked.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        predictor: The trained model.
        num_candidates: The mean and `num_candidates` - 1 samples.
        std_scale: Factor of the predicted standard deviation.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range, or the model plans other actions.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        predictor: Predictor,
        *,
        num_candidates: int = 16,
        std_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        require_at_least(1, num_candidates=num_candidates)
        require_at_least(0, seed=seed)
        require_in(0.0, np.inf, std_scale=std_scale)
        require_same_actions(predictor, action_spec)
        self.action_spec, self.predictor = action_spec, predictor
        self.num_candidates, self.std_scale, self.seed = num_candidates, std_scale, seed
        self._pace = Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan in one round; `init_action`, when given, is one candidate more.

        Without a cost the plan is the mean.

        Raises:
            ContextError: The problem does not fit, or its cost failed.
        """
        return plan_from_prediction(
            problem,
            self.predictor,
            self.action_spec,
            self._draw,
            seed=self.seed,
            planner="the Gaussian prior",
            pace=self._pace,
        )

    def _draw(self, mean: FloatArray, std: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Normalized candidates `[B, K, M, C]`."""
        noise = rng.standard_normal((self.num_candidates - 1, *mean.shape[1:]))
        noise = np.concatenate([np.zeros((1, *mean.shape[1:])), noise])
        return mean[:, None] + self.std_scale * std[:, None] * noise


def make_gaussian_prior(assets: PlannerAssets, settings: TunedSettings) -> GaussianPriorOptimizer:
    """What the registry builds."""
    predictor = Predictor.load(assets.path("gaussian"), "gaussian")
    return GaussianPriorOptimizer(assets.action_spec, predictor, seed=assets.seed, **settings)


def gaussian_prior(num_candidates: int, *, in_quick: bool = True) -> Planner:
    """The registry's row."""
    return Planner(
        f"gaussian-prior-{num_candidates}",
        make_gaussian_prior,
        search_space={"std_scale": (0.25, 0.5, 1.0, 1.5)},
        in_quick=in_quick,
        fixed={"num_candidates": num_candidates},
        needs=("gaussian",),
    )
