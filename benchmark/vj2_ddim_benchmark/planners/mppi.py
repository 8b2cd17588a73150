"""MPPI: every sample moves the plan, the more the lower its cost.

Williams et al. (2017), "Information theoretic MPC for model-based reinforcement learning". The
latent cost has no term for the controls themselves, so none is added to the weights.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.parameter_spaces import ActionKnots
from vj2_ddim_benchmark.planners.population import (
    POPULATION_STARTS,
    PopulationOptimizer,
    Proposal,
    require_in,
)
from vj2_ddim_benchmark.planners.starts import DrawGestures, any_gestures
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["MPPIOptimizer", "mppi", "path_integral_weights"]


def path_integral_weights(cost: FloatArray, temperature: float) -> FloatArray:
    """`exp(-(cost - lowest) / temperature)`, summing to 1 over K.

    Args:
        cost: `[B, K]`; infinite costs get no weight, and one of each row at least is finite.
        temperature: Cost differences of this size matter by a factor of e.

    Returns:
        `[B, K]`.
    """
    weights: FloatArray = np.exp(-(cost - cost.min(axis=1, keepdims=True)) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


class PathIntegral:
    """The `Proposal` of MPPI."""

    def __init__(self, mean: FloatArray, optimizer: MPPIOptimizer) -> None:
        self.mean, self.optimizer = mean, optimizer

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """The mean itself, then samples around it."""
        shape = (self.optimizer.num_samples, *self.mean.shape[1:])
        noise = self.optimizer.noise_std * rng.standard_normal(shape)
        noise[0] = 0.0
        return self.mean[:, None] + noise

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Move to the weighted mean; samples count as they were after clipping."""
        known = np.flatnonzero(np.isfinite(cost).any(axis=1))
        weights = path_integral_weights(cost[known], self.optimizer.temperature)
        self.mean = self.mean.copy()
        self.mean[known] = np.einsum("bk,bkmc->bmc", weights, parameters[known])


class MPPIOptimizer(PopulationOptimizer):
    """An `ActionOptimizer` that averages its samples by the exponential of their cost.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        num_samples: Candidates of a population; the first is the mean.
        num_iterations: Populations.
        temperature: Cost differences of this size matter by a factor of e.
        noise_std: Standard deviation of the samples; 1 is half of each channel's range.
        num_knots: Actions at so many knots in time are drawn, the others interpolated; None draws
            every action.
        start: `middle` or `gestures`; see `PopulationOptimizer`.
        draw_gestures: Source of real gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range or unknown.
    """

    name = "MPPI"

    def __init__(
        self,
        action_spec: ActionSpec,
        *,
        num_samples: int = 32,
        num_iterations: int = 8,
        temperature: float = 1e-4,
        noise_std: float = 0.5,
        num_knots: int | None = None,
        start: str = "middle",
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        super().__init__(
            action_spec,
            ActionKnots(action_spec, num_knots),
            num_samples=num_samples,
            num_iterations=num_iterations,
            start=start,
            draw_gestures=draw_gestures,
            seed=seed,
        )
        require_in(0.0, np.inf, temperature=temperature, noise_std=noise_std)
        if not temperature * noise_std:
            raise ConfigError(
                f"temperature and noise_std must be above 0; found {temperature} and {noise_std}"
            )
        self.temperature, self.noise_std, self.num_knots = temperature, noise_std, num_knots

    def proposal(self, mean: FloatArray) -> Proposal:
        """Samples around the mean."""
        return PathIntegral(mean, self)


def make_mppi(assets: PlannerAssets, settings: TunedSettings) -> MPPIOptimizer:
    """What the registry builds."""
    return MPPIOptimizer(assets.action_spec, seed=assets.seed, **settings)


def mppi(num_iterations: int, num_samples: int, *, in_quick: bool = False) -> Planner:
    """The registry's entry."""
    return Planner(
        f"mppi-{num_iterations}x{num_samples}",
        make_mppi,
        search_space={
            "temperature": (1e-6, 1e-5, 1e-4, 1e-3),
            "noise_std": (0.1, 0.25, 0.5),
            "num_knots": (None, 25),
            "start": POPULATION_STARTS,
        },
        in_quick=in_quick,
        fixed={"num_iterations": num_iterations, "num_samples": num_samples},
    )
