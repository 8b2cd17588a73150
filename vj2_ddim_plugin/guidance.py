"""Classifier-free guidance. Its two conventions differ by one; ours is in the docstring."""

from __future__ import annotations

from vj2_ddim_plugin.ddim import Denoiser
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["classifier_free_guidance"]


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
