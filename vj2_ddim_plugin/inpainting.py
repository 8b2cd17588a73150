"""Sampling when part of the answer is known: RePaint (Lugmayr et al. 2022), without gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vj2_ddim_plugin.ddim import Correction, Denoiser, DrawNoise, Step, ddim_step
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule, TimestepPairs

__all__ = ["NUM_RESAMPLES", "inpainting_steps"]

NUM_RESAMPLES = 3
"""Each step is taken so often. On Gaussian data whose exact posterior is known, in 10 steps, one
left the unknown part a third of the way to the prior, three an eighteenth."""


def inpainting_steps(
    denoiser: Denoiser,
    sample: FloatArray,
    pairs: TimestepPairs,
    schedule: NoiseSchedule,
    *,
    correct: Correction,
    draw_noise: DrawNoise,
    eta: float = 0.0,
) -> Iterator[Step]:
    """`ddim_steps` whose every step is taken `NUM_RESAMPLES` times, re-noised in between.

    `correct` puts what is known into the predicted x0 (eq. 8). The rest of the sample was drawn
    without knowing it; going back and forth (algorithm 1) lets the denoiser make the two agree.

    Args:
        denoiser: `(sample, timestep) -> model_output`.
        sample: x_T.
        pairs: The timesteps.
        schedule: The noise schedule.
        correct: Replaces the known part of a predicted x0.
        draw_noise: Standard normal noise of the sample's shape.
        eta: 0 is DDIM, 1 is DDPM.

    Returns:
        One `Step` for each pair.
    """
    for timestep, prev_timestep in pairs:
        kept = schedule.alpha_cumprod(timestep) / schedule.alpha_cumprod(prev_timestep)
        for again in reversed(range(NUM_RESAMPLES)):
            step = ddim_step(
                denoiser(sample, timestep),
                sample,
                timestep,
                prev_timestep,
                schedule,
                eta=eta,
                correct=correct,
                noise=draw_noise() if eta > 0.0 else None,
            )
            sample = step.prev_sample
            if again:
                sample = math.sqrt(kept) * sample + math.sqrt(1.0 - kept) * draw_noise()
        yield step
