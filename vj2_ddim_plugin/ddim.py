"""DDIM in numpy (Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models").

A denoiser is a function `(sample, timestep) -> model_output` of equal shapes; conditions are closed
over. Samplers never branch on the prediction type: `to_x0_and_epsilon` normalises it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vj2_ddim_plugin.coefficients import affine_step
from vj2_ddim_plugin.errors import ScheduleError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule, TimestepPairs

__all__ = [
    "Bounds",
    "Correction",
    "Denoiser",
    "Step",
    "add_noise",
    "clip_to",
    "ddim_invert",
    "ddim_sample",
    "ddim_step",
    "ddim_steps",
    "to_x0_and_epsilon",
]

Denoiser = Callable[[FloatArray, int], FloatArray]
Bounds = tuple[FloatArray, FloatArray]
Correction = Callable[[FloatArray], FloatArray]
"""What is done to every predicted x0: clipping, or making it continue what was already sent."""
DrawNoise = Callable[[], FloatArray]


class Step(NamedTuple):
    """What one step of sampling leaves: the next sample, and the x0 predicted on the way."""

    prev_sample: FloatArray
    pred_original_sample: FloatArray


def add_noise(
    original: FloatArray, noise: FloatArray, timestep: int, schedule: NoiseSchedule
) -> FloatArray:
    """Forward process to `timestep`: DDPM eq. 4 (Ho et al. 2020). Shapes `[...]`, all equal."""
    alpha = schedule.alpha_cumprod(timestep)
    noisy: FloatArray = math.sqrt(alpha) * original + math.sqrt(1.0 - alpha) * noise
    return noisy


def to_x0_and_epsilon(
    model_output: FloatArray, sample: FloatArray, timestep: int, schedule: NoiseSchedule
) -> tuple[FloatArray, FloatArray]:
    """Turn any prediction type into `(pred_original_sample, epsilon)`.

    DDIM eq. 9 for epsilon; Salimans & Ho 2022, appendix D, for v.
    """
    alpha = schedule.alpha_cumprod(timestep)
    signal, noise = math.sqrt(alpha), math.sqrt(1.0 - alpha)
    if schedule.prediction_type == "epsilon":
        return (sample - noise * model_output) / signal, model_output
    if schedule.prediction_type == "sample":
        return model_output, (sample - signal * model_output) / noise
    return signal * sample - noise * model_output, signal * model_output + noise * sample


def clip_to(bounds: Bounds) -> Correction:
    """Clipping of x0 to its lowest and highest valid value, broadcastable to the sample."""
    low, high = (np.asarray(bound) for bound in bounds)

    def clip(original: FloatArray) -> FloatArray:
        clipped = np.minimum(np.maximum(original, low), high)  # np.clip is ten times slower here
        return clipped.astype(original.dtype, copy=False)

    return clip


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

    Args:
        model_output: The denoiser's output, of the sample's shape.
        sample: x_t.
        timestep: t.
        prev_timestep: The timestep to arrive at; -1 is the end.
        schedule: The noise schedule.
        eta: 0 is DDIM, 1 is DDPM.
        correct: Applied to the predicted x0, for example `clip_to(bounds)`.
        noise: Standard normal noise of the sample's shape; needed when `eta` is above 0.

    Returns:
        The next sample and the predicted x0.

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
) -> Iterator[Step]:
    """Sampling, one `Step` at a time, so that a caller with a deadline can stop in between."""
    for timestep, prev_timestep in pairs:
        noise = draw_noise() if draw_noise is not None and eta > 0.0 else None
        output = denoiser(sample, timestep)
        step = ddim_step(
            output, sample, timestep, prev_timestep, schedule, eta=eta, correct=correct, noise=noise
        )
        sample = step.prev_sample
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

    Args:
        denoiser: `(sample, timestep) -> model_output`.
        sample: x_T `[...]`, standard normal; or x at `start_timestep`.
        schedule: The noise schedule.
        num_inference_steps: N.
        spacing: Overrides the schedule's timestep spacing.
        start_timestep: The timestep of `sample`, if not the last one.
        eta: 0 is DDIM, 1 is DDPM.
        correct: Applied to every predicted x0, see `ddim_step`.
        draw_noise: Standard normal noise of the sample's shape, called once a step if `eta` > 0.

    Returns:
        The sample at the end, of the same shape and type.

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

    Each step solves DDIM eq. 13 for x_t, which stands on both sides: x_t is a known multiple of
    x_prev plus a known multiple of epsilon(x_t). The first guess takes epsilon at x_prev (the usual
    DDIM inversion); every fixed-point iteration puts the last guess in (Pan et al. 2023, "AIDI").

    Args:
        denoiser: `(sample, timestep) -> model_output`.
        original: x_0 `[...]`.
        schedule: The noise schedule.
        num_inference_steps: N, the same as for sampling back.
        spacing: Overrides the schedule's timestep spacing.
        num_fixed_point_iterations: Iterations after the first guess, each one denoiser call.

    Returns:
        x_T, of the same shape.

    Raises:
        ScheduleError: The schedule has zero terminal SNR: its last step forgets x_0.
    """
    pairs = schedule.timesteps(num_inference_steps, spacing=spacing)
    if schedule.alpha_cumprod(pairs[0][0]) == 0.0:
        raise ScheduleError(
            "a schedule with zero terminal SNR cannot be inverted: at its last timestep nothing of "
            "the data is left. Use beta_schedule 'linear' or 'cosine'"
        )
    sample = original
    for timestep, prev_timestep in reversed(pairs):
        alpha, alpha_prev = schedule.alpha_cumprod(timestep), schedule.alpha_cumprod(prev_timestep)
        shrink = math.sqrt(alpha / alpha_prev)
        gain = math.sqrt(1.0 - alpha) - shrink * math.sqrt(1.0 - alpha_prev)
        guess = sample
        for _ in range(1 + num_fixed_point_iterations):
            _, epsilon = to_x0_and_epsilon(denoiser(guess, timestep), guess, timestep, schedule)
            guess = shrink * sample + gain * epsilon
        sample = guess
    return sample
