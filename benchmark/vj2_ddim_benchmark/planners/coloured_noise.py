"""Noise whose power falls with frequency as f^-beta: white at 0, pink at 1, Brownian at 2.

Timmer and König (1995), "On generating power law noise".
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_plugin.interface import FloatArray

__all__ = ["coloured_noise"]


def coloured_noise(
    beta: float, num_steps: int, shape: tuple[int, ...], rng: np.random.Generator
) -> FloatArray:
    """Draw series of mean 0 and standard deviation 1 at every step.

    Every frequency gets a random phase and a size of f^(-beta/2); the constant part counts as the
    lowest frequency.

    Args:
        beta: Exponent of the power spectrum, 0 or more.
        num_steps: Length of a series.
        shape: How many series.
        rng: Source of randomness.

    Returns:
        `[*shape, num_steps]`.
    """
    frequency = np.fft.rfftfreq(num_steps)
    frequency[0] = 1 / num_steps
    size = frequency ** (-beta / 2)
    real, imaginary = rng.standard_normal((2, *shape, len(size)))
    # The constant part, and the highest of an even length, are real; they count once, others twice.
    once = [0, -1] if num_steps % 2 == 0 else [0]
    real[..., once] *= np.sqrt(2.0)
    imaginary[..., once] = 0.0
    power = 4.0 * size**2
    power[once] /= 2.0
    series = np.fft.irfft(size * (real + 1j * imaginary), n=num_steps)
    scaled: FloatArray = series * num_steps / np.sqrt(power.sum())
    return scaled
