"""Public fakes, for testing a planner without a trained model.

`GaussianModel` is the exact denoiser of Gaussian data: the posterior mean is known in closed form,
so what a sampler makes of it can be checked to rounding. `QuadraticCost` has one known optimum.
"""

from collections.abc import Mapping

import numpy as np

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.model import EncodedContext
from vj2_ddim_plugin.schedule import NoiseSchedule, signal_and_noise, target_of
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

__all__ = ["GaussianModel", "QuadraticCost"]


class GaussianModel:
    """A `SamplerModel` whose data are N(mean, std^2), independent in every entry.

    `mean` and `std` (0 is a single point) broadcast to the diffused array `[M, C]`. If it is
    `conditional`, the context `mean` `[B, 1]` is added to the mean.
    """

    provider = "exact"

    def __init__(
        self,
        action_spec: ActionSpec,
        schedule: NoiseSchedule,
        mean: FloatArray | float = 0.0,
        std: FloatArray | float = 1.0,
        conditional: bool = False,
    ) -> None:
        self.action_spec, self.schedule = action_spec, schedule
        self.mean, self.std = mean, std
        self.condition = ConditionSpec()
        if conditional:
            self.condition = ConditionSpec("latents", {"mean": (1,)}, 1, 1)

    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """The shift of each problem as one token of width 1."""
        if not self.condition.inputs:
            return None
        shift = context["mean"][:, :, None]
        return EncodedContext(shift, np.zeros_like(shift))

    def close(self) -> None:
        """Nothing to free."""

    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """The posterior mean of x0 given x_t, in the schedule's prediction type."""
        alpha = self.schedule.alpha_cumprod(timestep)
        signal, noise = signal_and_noise(alpha)
        mean = self.mean if condition is None else self.mean + condition
        gain = signal * self.std**2 / (alpha * self.std**2 + noise**2)
        x0 = mean + gain * (sample - signal * mean)
        epsilon = (sample - signal * x0) / noise
        output = target_of(self.schedule.prediction_type, x0, epsilon, alpha)
        return np.asarray(output, sample.dtype)


class QuadraticCost:
    """`CostFn`: mean squared distance to a target `[L, A]` (or `[B, 1, L, A]`)."""

    def __init__(self, target: FloatArray) -> None:
        self.target = target
        self.calls = 0

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """`[B, K, L, A]` to `[B, K]`."""
        self.calls += 1
        return np.asarray(np.mean((candidates - self.target) ** 2, axis=(2, 3)))
