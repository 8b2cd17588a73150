"""Copies of a plan moved a little: a good plan must not depend on being hit exactly.

A learned model is not exact about edges. Of two plans that it likes alike, the one that it still
likes when it is moved is the safer: the minimum of the worst cost in a neighbourhood, as in
Bertsimas, Nohadani & Teo 2010, "Robust Optimization for Unconstrained Simulation-Based Problems",
eq. 2, with the corners of a cross for the neighbourhood.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["moved_copies"]


def moved_copies(actions: FloatArray, spec: ActionSpec, radius: float) -> FloatArray:
    """Every plan moved as a whole along each channel, back and forth, and kept in bounds.

    Where there is a press channel it stays, and only what is pressed is moved.

    Args:
        actions: `[..., L, A]`.
        spec: The channels and their bounds.
        radius: How far, as a share of each channel's range.

    Returns:
        `[..., S, L, A]`, S being twice the number of channels that are moved.
    """
    names = [name for name in spec.channels if name != spec.press_channel]
    low, high = spec.low_array, spec.high_array
    shifts = np.zeros((2 * len(names), spec.num_channels), actions.dtype)
    for index, name in enumerate(names):
        channel = spec.channels.index(name)
        shifts[2 * index : 2 * index + 2, channel] = radius * (high - low)[channel]
        shifts[2 * index + 1] *= -1.0
    copies = actions[..., None, :, :]
    moved = np.clip(copies + shifts[:, None, :], low, high).astype(actions.dtype)
    if spec.press_channel is None:
        return moved
    return np.where(spec.pressed(copies)[..., None], moved, copies)
