"""CEM over the gesture itself: six numbers in place of 750, and nothing but valid gestures.

The strongest opponent that knows no data beyond what a gesture is.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.planners.cem import CEMOptimizer, CrossEntropy, Gaussian, GaussianSettings
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.parameter_spaces import GestureParameters
from vj2_ddim_benchmark.planners.population import Proposal
from vj2_ddim_benchmark.planners.starts import DrawGestures, any_gestures
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["COVARIANCES", "CorrelatedGaussian", "GestureCEMOptimizer", "gesture_cem"]

COVARIANCES = ("diagonal", "full")


class CorrelatedGaussian(Gaussian):
    """One normal distribution of all parameters together, for each problem.

    With D = M * C parameters it takes `[B, D, D]`: for a few numbers, not for whole sequences.
    """

    def __init__(self, mean: FloatArray, settings: GaussianSettings) -> None:
        super().__init__(mean, settings)
        size = mean[0].size
        self.covariance = np.tile(settings.std**2 * np.eye(size), (len(mean), 1, 1))

    def sample(self, noise: FloatArray) -> FloatArray:
        """Standard normal noise `[K, M, C]` to samples `[B, K, M, C]`."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        spread = noise.reshape(len(noise), -1) @ root.transpose(0, 2, 1)
        samples: FloatArray = self.mean[:, None] + spread.reshape(len(root), *noise.shape)
        return samples

    def refit(self, elites: FloatArray) -> None:
        """Move towards the mean and the covariance of `[B, E, M, C]`, its diagonal kept up."""
        kept = self.settings.smoothing
        centred = (elites - elites.mean(axis=1, keepdims=True)).reshape(*elites.shape[:2], -1)
        found = centred.transpose(0, 2, 1) @ centred / elites.shape[1]
        covariance = kept * self.covariance + (1 - kept) * found
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        lacking = np.maximum(self.settings.min_std**2 - variance, 0.0)
        self.covariance = covariance + lacking[:, None] * np.eye(lacking.shape[1])
        self.mean = kept * self.mean + (1 - kept) * elites.mean(axis=1)


class GestureCEMOptimizer(CEMOptimizer):
    """`CEMOptimizer` over start, displacement, press time and release time.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        num_samples: Candidates of a population.
        num_elites: Best candidates that the Gaussian is fitted to.
        num_iterations: Populations.
        std: Standard deviation at first; 1 is half the screen, and half the block. With real
            gestures as the first population it counts only as far as `smoothing` keeps it.
        smoothing: Share of the old mean and std that each fit keeps.
        min_std: Floor of the standard deviation.
        covariance: `diagonal`, or `full`, which can stretch along a valley of the cost.
        start: `middle`, or `gestures`, which makes the first population real gestures.
        draw_gestures: Source of real gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range or unknown, or the actions are no touches.
    """

    name = "gesture CEM"

    def __init__(
        self,
        action_spec: ActionSpec,
        *,
        num_samples: int = 16,
        num_elites: int = 4,
        num_iterations: int = 8,
        std: float = 0.5,
        smoothing: float = 0.7,
        min_std: float = 0.03,
        covariance: str = "diagonal",
        start: str = "gestures",
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        super().__init__(
            action_spec,
            num_samples=num_samples,
            num_elites=num_elites,
            num_iterations=num_iterations,
            std=std,
            smoothing=smoothing,
            min_std=min_std,
            start=start,
            space=GestureParameters(action_spec),
            draw_gestures=draw_gestures,
            seed=seed,
        )
        if covariance not in COVARIANCES:
            raise ConfigError(
                f"covariance {covariance!r} is unknown; use one of {', '.join(COVARIANCES)}"
            )
        self.covariance = covariance

    def proposal(self, mean: FloatArray) -> Proposal:
        """A Gaussian around the mean."""
        gaussian = CorrelatedGaussian if self.covariance == "full" else Gaussian
        return CrossEntropy(gaussian(mean, self.settings), self.num_samples)


def make_gesture_cem(assets: PlannerAssets, settings: TunedSettings) -> GestureCEMOptimizer:
    """What the registry builds."""
    return GestureCEMOptimizer(assets.action_spec, seed=assets.seed, **settings)


def gesture_cem(num_iterations: int, num_samples: int, *, in_quick: bool = False) -> Planner:
    """The registry's entry."""
    return Planner(
        f"gesture-cem-{num_iterations}x{num_samples}",
        make_gesture_cem,
        search_space={
            "num_elites": (max(1, num_samples // 8), max(1, num_samples // 4)),
            "smoothing": (0.3, 0.5, 0.7, 0.9),
            "std": (0.5, 0.8),
            "covariance": COVARIANCES,
        },
        in_quick=in_quick,
        fixed={"num_iterations": num_iterations, "num_samples": num_samples},
    )
