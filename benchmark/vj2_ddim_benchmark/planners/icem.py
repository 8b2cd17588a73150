"""iCEM: CEM with noise that is smooth in time, elites that are kept, and shrinking populations.

Pinneri et al. (2020), "Sample-efficient cross-entropy method for real-time planning". Its elites
that are shifted from one planning call to the next are left to the host: they arrive as
`init_action`, so that a plan depends on its problem alone.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.planners.cem import Gaussian, GaussianSettings, elites_of
from vj2_ddim_benchmark.planners.coloured_noise import coloured_noise
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

__all__ = ["ICEMOptimizer", "icem", "population_size"]


def population_size(num_samples: int, decay: float, iteration: int, num_elites: int) -> int:
    """Samples of a population: `num_samples / decay^iteration`, at least twice the elites.

    A first population that is smaller than that is left as it is.
    """
    return min(num_samples, max(round(num_samples / decay**iteration), 2 * num_elites))


class ImprovedCrossEntropy:
    """The `Proposal` of iCEM."""

    def __init__(self, mean: FloatArray, optimizer: ICEMOptimizer) -> None:
        self.gaussian, self.optimizer = Gaussian(mean, optimizer.settings), optimizer
        self.elites: FloatArray = np.zeros((len(mean), 0, *mean.shape[1:]))
        self.elite_cost: FloatArray = np.zeros((len(mean), 0))

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Sample with coloured noise; the mean is one of the last population."""
        optimizer, (num_steps, channels) = self.optimizer, self.gaussian.mean.shape[1:]
        num = population_size(
            optimizer.num_samples, optimizer.decay, iteration, optimizer.num_elites
        )
        noise = coloured_noise(optimizer.noise_beta, num_steps, (num, channels), rng)
        noise = np.moveaxis(noise, -1, 1)
        if 0 < iteration == optimizer.num_iterations - 1:
            noise[0] = 0.0
        return self.gaussian.sample(noise)

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Refit to the elites of this population and of those kept from the one before."""
        parameters = np.concatenate([self.elites, parameters], axis=1)
        cost = np.concatenate([self.elite_cost, cost], axis=1)
        elites, elite_cost = elites_of(parameters, cost, self.optimizer.num_elites)
        self.gaussian.refit(elites)
        num_kept = round(self.optimizer.keep_share * elites.shape[1])
        self.elites, self.elite_cost = elites[:, :num_kept], elite_cost[:, :num_kept]


class ICEMOptimizer(PopulationOptimizer):
    """An `ActionOptimizer`: the improved cross-entropy method over the actions.

    Kept elites are compared by the cost they had; they are not evaluated again.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        num_samples: Candidates of the first population.
        num_elites: Best candidates that the Gaussian is fitted to.
        num_iterations: Populations.
        std: Standard deviation at first; 1 is half of each channel's range.
        smoothing: Share of the old mean and std that each fit keeps.
        min_std: Floor of the standard deviation.
        noise_beta: Exponent of the noise's spectrum; 0 is CEM's white noise.
        decay: Each population is smaller than the last by this factor.
        keep_share: Share of the elites that compete again in the next round.
        start: `middle` or `gestures`; see `PopulationOptimizer`.
        draw_gestures: Source of real gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range or unknown.
    """

    name = "iCEM"

    def __init__(
        self,
        action_spec: ActionSpec,
        *,
        num_samples: int = 48,
        num_elites: int = 4,
        num_iterations: int = 8,
        std: float = 0.5,
        smoothing: float = 0.1,
        min_std: float = 0.0,
        noise_beta: float = 2.0,
        decay: float = 1.25,
        keep_share: float = 0.3,
        start: str = "middle",
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        super().__init__(
            action_spec,
            ActionKnots(action_spec),
            num_samples=num_samples,
            num_iterations=num_iterations,
            start=start,
            draw_gestures=draw_gestures,
            seed=seed,
        )
        require_in(0.0, np.inf, noise_beta=noise_beta)
        require_in(1.0, np.inf, decay=decay)
        if num_elites > num_samples or not 0.0 <= keep_share <= 1.0:
            raise ConfigError(
                f"need num_elites <= num_samples and keep_share in [0, 1]; found {num_elites}, "
                f"{num_samples} and {keep_share}"
            )
        self.settings = GaussianSettings(std, num_elites, smoothing, min_std)
        self.num_elites, self.std, self.smoothing = num_elites, std, smoothing
        self.min_std = min_std
        self.noise_beta, self.decay, self.keep_share = noise_beta, decay, keep_share

    def proposal(self, mean: FloatArray) -> Proposal:
        """A Gaussian around the mean, and no elites yet."""
        return ImprovedCrossEntropy(mean, self)


def make_icem(assets: PlannerAssets, settings: TunedSettings) -> ICEMOptimizer:
    """What the registry builds."""
    return ICEMOptimizer(assets.action_spec, seed=assets.seed, **settings)


def icem(num_iterations: int, num_samples: int, *, in_quick: bool = False) -> Planner:
    """The registry's entry."""
    return Planner(
        f"icem-{num_iterations}x{num_samples}",
        make_icem,
        search_space={
            "noise_beta": (1.0, 2.0, 3.0, 4.0),
            "std": (0.25, 0.5, 1.0),
            "start": POPULATION_STARTS,
        },
        in_quick=in_quick,
        fixed={"num_iterations": num_iterations, "num_samples": num_samples},
    )
