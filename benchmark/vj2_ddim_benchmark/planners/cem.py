"""The cross-entropy method: refit a Gaussian to the best of its samples, again and again.

Rubinstein (1999); de Boer, Kroese, Mannor, Rubinstein (2005), "A tutorial on the cross-entropy
method".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.parameter_spaces import ActionKnots, ParameterSpace
from vj2_ddim_benchmark.planners.population import (
    POPULATION_STARTS,
    PopulationOptimizer,
    Proposal,
    require_at_least,
    require_in,
)
from vj2_ddim_benchmark.planners.starts import DrawGestures, any_gestures
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["CEMOptimizer", "CrossEntropy", "Gaussian", "GaussianSettings", "cem", "elites_of"]


def elites_of(
    parameters: FloatArray, cost: FloatArray, num_elites: int
) -> tuple[FloatArray, FloatArray]:
    """The rows of lowest cost, best first: `[B, E, M, C]` and their cost `[B, E]`.

    Of equal costs the earlier row comes first.
    """
    best = np.argsort(cost, axis=1, kind="stable")[:, :num_elites]
    chosen = np.take_along_axis(parameters, best[:, :, None, None], axis=1)
    return chosen, np.take_along_axis(cost, best, axis=1)


@dataclass(frozen=True)
class GaussianSettings:
    """How a Gaussian is refitted.

    Attributes:
        std: Standard deviation of the first population, in units of the space.
        num_elites: Best samples it is fitted to.
        smoothing: Share of the old mean and std that is kept, in [0, 1).
        min_std: Floor of the standard deviation.

    Raises:
        ConfigError: On construction, for a setting out of range.
    """

    std: float
    num_elites: int
    smoothing: float
    min_std: float

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_at_least(1, num_elites=self.num_elites)
        require_in(0.0, np.inf, min_std=self.min_std, std=self.std)
        require_in(0.0, 1.0, smoothing=self.smoothing)
        if self.std == 0.0:
            raise ConfigError("std must be above 0; found 0.0")


class Gaussian:
    """Independent normal distributions of all parameters, one set a problem.

    Attributes:
        mean: `[B, M, C]`.
        std: `[B, M, C]`.
    """

    def __init__(self, mean: FloatArray, settings: GaussianSettings) -> None:
        self.mean, self.settings = mean, settings
        self.std = np.full(mean.shape, settings.std)

    def sample(self, noise: FloatArray) -> FloatArray:
        """Standard normal noise `[K, M, C]` to samples `[B, K, M, C]`."""
        return self.mean[:, None] + self.std[:, None] * noise

    def refit(self, elites: FloatArray) -> None:
        """Move towards the mean and the standard deviation of `[B, E, M, C]`."""
        kept, floor = self.settings.smoothing, self.settings.min_std
        self.mean = kept * self.mean + (1 - kept) * elites.mean(axis=1)
        self.std = np.maximum(kept * self.std + (1 - kept) * elites.std(axis=1), floor)


class CrossEntropy:
    """The `Proposal` of CEM."""

    def __init__(self, gaussian: Gaussian, num_samples: int) -> None:
        self.gaussian, self.num_samples = gaussian, num_samples

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Sample the Gaussian."""
        shape = (self.num_samples, *self.gaussian.mean.shape[1:])
        return self.gaussian.sample(rng.standard_normal(shape))

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Refit to the elites."""
        elites, _ = elites_of(parameters, cost, self.gaussian.settings.num_elites)
        self.gaussian.refit(elites)


class CEMOptimizer(PopulationOptimizer):
    """An `ActionOptimizer` that refits a Gaussian over the actions to its elites.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        num_samples: Candidates of a population.
        num_elites: Best candidates that the Gaussian is fitted to.
        num_iterations: Populations.
        std: Its standard deviation at first; 1 is half of each channel's range.
        smoothing: Share of the old mean and std that each fit keeps.
        min_std: Floor of the standard deviation.
        num_knots: Actions at so many knots in time are drawn, the others interpolated; None draws
            every action.
        start: `middle` or `gestures`; see `PopulationOptimizer`.
        space: Searched over in place of the actions' knots.
        draw_gestures: Source of real gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range or unknown.
    """

    name = "CEM"

    def __init__(
        self,
        action_spec: ActionSpec,
        *,
        num_samples: int = 32,
        num_elites: int = 4,
        num_iterations: int = 8,
        std: float = 0.5,
        smoothing: float = 0.1,
        min_std: float = 0.01,
        num_knots: int | None = None,
        start: str = "middle",
        space: ParameterSpace | None = None,
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        super().__init__(
            action_spec,
            space or ActionKnots(action_spec, num_knots),
            num_samples=num_samples,
            num_iterations=num_iterations,
            start=start,
            draw_gestures=draw_gestures,
            seed=seed,
        )
        if num_elites > num_samples:
            raise ConfigError(
                f"num_elites must be at most num_samples, {num_samples}; found {num_elites}"
            )
        self.settings = GaussianSettings(std, num_elites, smoothing, min_std)
        self.num_elites, self.std, self.smoothing = num_elites, std, smoothing
        self.min_std, self.num_knots = min_std, num_knots

    def proposal(self, mean: FloatArray) -> Proposal:
        """A Gaussian around the mean."""
        return CrossEntropy(Gaussian(mean, self.settings), self.num_samples)


def make_cem(assets: PlannerAssets, settings: TunedSettings) -> CEMOptimizer:
    """What the registry builds."""
    return CEMOptimizer(assets.action_spec, seed=assets.seed, **settings)


def cem(num_iterations: int, num_samples: int, *, in_quick: bool = False) -> Planner:
    """The registry's entry."""
    return Planner(
        f"cem-{num_iterations}x{num_samples}",
        make_cem,
        search_space={
            "num_elites": (4, 8),
            "smoothing": (0.1, 0.4, 0.7),
            "num_knots": (None, 10),
            "start": POPULATION_STARTS,
        },
        in_quick=in_quick,
        fixed={"num_iterations": num_iterations, "num_samples": num_samples},
    )
