"""DDIM in numpy (Song, Meng & Ermon 2021), with guidance, inpainting and inversion.

A denoiser is a function `(sample, timestep) -> model_output` of equal shapes; conditions are closed
over. Samplers never branch on the prediction type: `vj2_ddim_plugin.schedule.conversion` does.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vj2_ddim_plugin.errors import ScheduleError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule, TimestepPairs, conversion, signal_and_noise

__all__ = [
    "NUM_RESAMPLES", "AffineStep", "Bounds", "Correction", "Denoiser", "Step", "add_noise",
    "affine_step", "classifier_free_guidance", "clip_to", "ddim_invert", "ddim_sample", "ddim_step",
    "ddim_steps", "to_x0_and_epsilon",
]  # fmt: skip

Denoiser = Callable[[FloatArray, int], FloatArray]
Bounds = tuple[FloatArray, FloatArray]
Correction = Callable[[FloatArray], FloatArray]
"""What is done to every predicted x0: clipping, or making it continue what was already sent."""
DrawNoise = Callable[[], FloatArray]

NUM_RESAMPLES = 3
"""Times that a step of inpainting is taken. On Gaussian data whose exact posterior is known, in 10
steps, one left the unknown part a third of the way to the prior, three an eighteenth."""


class Step(NamedTuple):
    """What one step of sampling leaves: the next sample, and the x0 predicted on the way."""

    prev_sample: FloatArray
    pred_original_sample: FloatArray


def add_noise(
    original: FloatArray, noise: FloatArray, timestep: int, schedule: NoiseSchedule
) -> FloatArray:
    """Forward process to `timestep`: DDPM eq. 4 (Ho et al. 2020). Shapes `[...]`, all equal."""
    share_of_x0, share_of_noise = signal_and_noise(schedule.alpha_cumprod(timestep))
    noisy: FloatArray = share_of_x0 * original + share_of_noise * noise
    return noisy


def to_x0_and_epsilon(
    model_output: FloatArray, sample: FloatArray, timestep: int, schedule: NoiseSchedule
) -> tuple[FloatArray, FloatArray]:
    """Turn any prediction type into `(pred_original_sample, epsilon)`, see `conversion`."""
    of_x0, of_epsilon = conversion(schedule.prediction_type, schedule.alpha_cumprod(timestep))
    x0 = of_x0[0] * sample + of_x0[1] * model_output
    return x0, of_epsilon[0] * sample + of_epsilon[1] * model_output


def clip_to(bounds: Bounds) -> Correction:
    """Clipping of x0 to its lowest and highest valid value, broadcastable to the sample."""
    low, high = (np.asarray(bound) for bound in bounds)

    def clip(original: FloatArray) -> FloatArray:
        clipped = np.minimum(np.maximum(original, low), high)  # np.clip is ten times slower here
        return clipped.astype(original.dtype, copy=False)

    return clip


def classifier_free_guidance(
    conditional: Denoiser, unconditional: Denoiser, guidance_scale: float
) -> Denoiser:
    """`uncond + s * (cond - uncond)` (Ho & Salimans 2022, with their w equal to s - 1).

    At a scale of 1 this is the conditional denoiser itself, and the unconditional one is not asked.
    """
    if guidance_scale == 1.0:
        return conditional

    def guided(sample: FloatArray, timestep: int) -> FloatArray:
        without = unconditional(sample, timestep)
        return without + guidance_scale * (conditional(sample, timestep) - without)

    return guided


class AffineStep(NamedTuple):
    """The numbers of one DDIM step: all it computes are sums of known multiples."""

    x0_of_sample: float  # what of the sample is in x0
    x0_of_output: float
    prev_of_x0: float  # what of x0 is in the next sample
    prev_of_sample: float
    sigma: float  # the standard deviation of the noise that is added


@lru_cache(maxsize=4096)
def affine_step(
    schedule: NoiseSchedule, timestep: int, prev_timestep: int, eta: float
) -> AffineStep:
    """DDIM eq. 12 and 16, worked out once: plans take the same few steps again and again."""
    alpha, alpha_prev = schedule.alpha_cumprod(timestep), schedule.alpha_cumprod(prev_timestep)
    signal, noise = signal_and_noise(alpha)
    sigma = eta * math.sqrt((1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev))
    direction = math.sqrt(max(1.0 - alpha_prev - sigma**2, 0.0)) / noise
    of_sample_and_output, _ = conversion(schedule.prediction_type, alpha)
    of_x0 = math.sqrt(alpha_prev) - direction * signal
    return AffineStep(*of_sample_and_output, of_x0, direction, sigma)


def ddim_step(
    model_output: FloatArray,
    sample: FloatArray,
    timestep: int,
    prev_timestep: int,
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    correct: Correction | None = None,
    noise: FloatArray | None = None,
) -> Step:
    """One step from `timestep` to `prev_timestep`: DDIM eq. 12, with the sigma of eq. 16.

    Epsilon is always derived from the (corrected) x0, so that the step stays on the line between x0
    and x_t; it is then a sum of known multiples of the two.

    `eta` 0 is DDIM, 1 is DDPM; above 0 it needs `noise`, standard normal, of the sample's shape.
    `prev_timestep` -1 is the end. `correct` is applied to the predicted x0, as `clip_to(bounds)`.

    Raises:
        ScheduleError: `eta` is outside [0, 1], or above 0 without `noise`.
    """
    if not 0.0 <= eta <= 1.0:
        raise ScheduleError(f"eta must be in [0, 1] (0 is DDIM, 1 is DDPM); found {eta}")
    if eta > 0.0 and noise is None:
        raise ScheduleError("eta above 0 adds noise at every step: pass noise like the sample")
    step = affine_step(schedule, timestep, prev_timestep, eta)
    x0 = step.x0_of_sample * sample + step.x0_of_output * model_output
    x0 = x0 if correct is None else correct(x0)
    prev_sample = step.prev_of_x0 * x0 + step.prev_of_sample * sample
    if noise is not None:
        prev_sample = prev_sample + step.sigma * noise
    return Step(prev_sample, x0)


def ddim_steps(
    denoiser: Denoiser,
    sample: FloatArray,
    pairs: TimestepPairs,
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    correct: Correction | None = None,
    draw_noise: DrawNoise | None = None,
    num_resamples: int = 1,
) -> Iterator[Step]:
    """Sampling, one `Step` at a time, so that a caller with a deadline can stop in between.

    With `num_resamples` above 1 it is RePaint (Lugmayr et al. 2022): `correct` puts what is known
    into the predicted x0 (eq. 8). The rest of the sample was drawn without knowing it; going back
    and forth (algorithm 1) lets the denoiser make the two agree.
    """
    for timestep, prev in pairs:
        for again in reversed(range(num_resamples)):
            output = denoiser(sample, timestep)
            noise = draw_noise() if draw_noise is not None and eta > 0.0 else None
            step = ddim_step(
                output, sample, timestep, prev, schedule, eta=eta, correct=correct, noise=noise
            )
            sample = step.prev_sample
            if again and draw_noise is not None:
                kept = schedule.alpha_cumprod(timestep) / schedule.alpha_cumprod(prev)
                sample = math.sqrt(kept) * sample + math.sqrt(1.0 - kept) * draw_noise()
        yield step


def ddim_sample(
    denoiser: Denoiser,
    sample: FloatArray,
    schedule: NoiseSchedule,
    num_inference_steps: int,
    *,
    spacing: str | None = None,
    start_timestep: int | None = None,
    eta: float = 0.0,
    correct: Correction | None = None,
    draw_noise: DrawNoise | None = None,
) -> FloatArray:
    """From noise (or from x at `start_timestep`) to data in N steps.

    `sample` is `[...]`, and `draw_noise` draws such an array once a step if `eta` is above 0; for
    `eta` and `correct` see `ddim_step`. `spacing` overrides the schedule's.

    Raises:
        ScheduleError: N does not fit the schedule, or `eta` lacks its noise.
    """
    pairs = schedule.timesteps(num_inference_steps, spacing=spacing, start_timestep=start_timestep)
    for step in ddim_steps(
        denoiser, sample, pairs, schedule, eta=eta, correct=correct, draw_noise=draw_noise
    ):
        sample = step.prev_sample
    return sample


def ddim_invert(
    denoiser: Denoiser,
    original: FloatArray,
    schedule: NoiseSchedule,
    num_inference_steps: int,
    *,
    spacing: str | None = None,
    num_fixed_point_iterations: int = 0,
) -> FloatArray:
    """From data to the noise that `ddim_sample` (eta 0, no clipping) turns back into it.

    Each step solves DDIM eq. 13 for x_t, a known multiple of x_prev plus one of epsilon(x_t). The
    first guess takes epsilon at x_prev (the usual DDIM inversion); every fixed-point iteration, one
    more denoiser call, puts the last guess in (Pan et al. 2023, "AIDI").

    Raises:
        ScheduleError: The schedule has zero terminal SNR: its last step forgets x_0.
    """
    pairs, sample = schedule.timesteps(num_inference_steps, spacing=spacing), original
    if schedule.alpha_cumprod(pairs[0][0]) == 0.0:
        raise ScheduleError(
            "a schedule with zero terminal SNR cannot be inverted: at its last timestep nothing of "
            "the data is left. Use beta_schedule 'linear' or 'cosine'"
        )
    for timestep, prev_timestep in reversed(pairs):
        alpha, alpha_prev = map(schedule.alpha_cumprod, (timestep, prev_timestep))
        shrink = math.sqrt(alpha / alpha_prev)
        gain = math.sqrt(1.0 - alpha) - shrink * math.sqrt(1.0 - alpha_prev)
        guess = sample
        for _ in range(1 + num_fixed_point_iterations):
            _, epsilon = to_x0_and_epsilon(denoiser(guess, timestep), guess, timestep, schedule)
            guess = shrink * sample + gain * epsilon
        sample = guess
    return sample
