"""Predictive sampling from real gestures: take the best of many, then the best around it.

Howell et al. (2022), "Predictive sampling: real-time behaviour synthesis with MuJoCo".
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.planners.cem import elites_of
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.parameter_spaces import natural_space
from vj2_ddim_benchmark.planners.population import PopulationOptimizer, Proposal, require_in
from vj2_ddim_benchmark.planners.starts import DrawGestures, any_gestures
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["PredictiveSamplingOptimizer", "predictive_sampling"]


class AroundTheBest:
    """The `Proposal` of predictive sampling."""

    def __init__(self, mean: FloatArray, optimizer: PredictiveSamplingOptimizer) -> None:
        self.best, self.optimizer = mean, optimizer
        self.best_cost = np.full(len(mean), np.inf)

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Samples around the best parameters so far."""
        shape = (self.optimizer.num_samples, *self.best.shape[1:])
        return self.best[:, None] + self.optimizer.noise_std * rng.standard_normal(shape)

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Keep the best; it is never lost."""
        first, lowest = elites_of(parameters, cost, 1)
        better = lowest[:, 0] < self.best_cost
        self.best = np.where(better[:, None, None], first[:, 0], self.best)
        self.best_cost = np.where(better, lowest[:, 0], self.best_cost)


class PredictiveSamplingOptimizer(PopulationOptimizer):
    """An `ActionOptimizer`: the best of real gestures, then the best of its neighbours.

    Touches are perturbed in their gesture parameters, other actions as they are.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        num_samples: Gestures of the first round, and neighbours of the others.
        num_iterations: Rounds; 1 is random gestures, ranked.
        noise_std: Standard deviation of the neighbours, in units of the space (touches: half the
            screen, half the block).
        draw_gestures: Source of the gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range.
    """

    name = "predictive sampling"

    def __init__(
        self,
        action_spec: ActionSpec,
        *,
        num_samples: int = 32,
        num_iterations: int = 8,
        noise_std: float = 0.1,
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        super().__init__(
            action_spec,
            natural_space(action_spec),
            num_samples=num_samples,
            num_iterations=num_iterations,
            start="gestures",
            draw_gestures=draw_gestures,
            seed=seed,
        )
        require_in(0.0, np.inf, noise_std=noise_std)
        if not noise_std:
            raise ConfigError("noise_std must be above 0; found 0.0")
        self.noise_std = noise_std

    def proposal(self, mean: FloatArray) -> Proposal:
        """Samples around the mean until there is a best."""
        return AroundTheBest(mean, self)


def make_predictive_sampling(
    assets: PlannerAssets, settings: TunedSettings
) -> PredictiveSamplingOptimizer:
    """What the registry builds."""
    return PredictiveSamplingOptimizer(assets.action_spec, seed=assets.seed, **settings)


def predictive_sampling(
    num_iterations: int, num_samples: int, *, in_quick: bool = False
) -> Planner:
    """The registry's entry."""
    return Planner(
        f"predictive-sampling-{num_iterations}x{num_samples}",
        make_predictive_sampling,
        search_space={"noise_std": (0.02, 0.05, 0.1, 0.2, 0.4)},
        in_quick=in_quick,
        fixed={"num_iterations": num_iterations, "num_samples": num_samples},
    )
