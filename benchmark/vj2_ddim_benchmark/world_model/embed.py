"""Trajectories of screens to trajectories of latents, the denoiser's training data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.collect import Transitions
from vj2_ddim_benchmark.world_model.model import WorldModel

__all__ = ["embed_transitions"]


def embed_transitions(
    world_model: WorldModel, transitions: Transitions
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Encode every screen.

    Returns:
        Latents float32 `[n, T, N, D]` and actions float32 `[n, T-1, 250, 3]`.
    """
    return world_model.encode(transitions.frames), transitions.actions
