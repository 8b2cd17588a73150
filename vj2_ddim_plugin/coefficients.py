"""The numbers of one DDIM step, worked out once: plans take the same few steps again and again."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from vj2_ddim_plugin.schedule import NoiseSchedule

__all__ = ["AffineStep", "affine_step"]


class AffineStep(NamedTuple):
    """x0 is a sum of known multiples of sample and output, the next sample of x0 and sample.

    Attributes:
        x0_of_sample: What of the sample is in x0.
        x0_of_output: What of the model output is in x0.
        prev_of_x0: What of x0 is in the next sample.
        prev_of_sample: What of the sample is in the next sample.
        sigma: The standard deviation of the noise that is added.
    """

    x0_of_sample: float
    x0_of_output: float
    prev_of_x0: float
    prev_of_sample: float
    sigma: float


@lru_cache(maxsize=4096)
def affine_step(
    schedule: NoiseSchedule, timestep: int, prev_timestep: int, eta: float
) -> AffineStep:
    """DDIM eq. 9, 12 and 16; Salimans & Ho 2022, appendix D, for v. A plan asks for few."""
    alpha, alpha_prev = schedule.alpha_cumprod(timestep), schedule.alpha_cumprod(prev_timestep)
    signal, noise = math.sqrt(alpha), math.sqrt(1.0 - alpha)
    if schedule.prediction_type == "epsilon":
        of_sample, of_output = 1.0 / signal, -noise / signal
    elif schedule.prediction_type == "sample":
        of_sample, of_output = 0.0, 1.0
    else:
        of_sample, of_output = signal, -noise
    sigma = eta * math.sqrt((1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev))
    direction = math.sqrt(max(1.0 - alpha_prev - sigma**2, 0.0)) / noise
    return AffineStep(
        of_sample, of_output, math.sqrt(alpha_prev) - direction * signal, direction, sigma
    )
