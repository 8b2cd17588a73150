"""When the host stops: what it sees looks like the goal. It does not know the screen's state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.planners.host import Frames
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world_model.cost import latent_distance
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["picture_distance", "stop_distance_of"]

NUM_PAIRS = 600  # pairs of screens that one gesture tells apart
SHARE = 0.5  # of the smallest distance among them


def picture_distance(world_model: Any, frames: Frames, goals: Frames) -> FloatArray:  # noqa: ANN401
    """Latent distance of pictures uint8 `[n, H, W, 3]` from others, as `[n]`.

    Args:
        world_model: Encodes them; its configuration names the distance.
        frames: What the screens show.
        goals: What they should show.
    """
    state, goal = np.split(world_model.encode(np.concatenate([frames, goals])), 2)
    kind = world_model.config.cost_kind
    distance = latent_distance(torch.as_tensor(state), torch.as_tensor(goal), kind)
    return np.asarray(distance.numpy())


def stop_distance_of(
    world_model: Any,  # noqa: ANN401
    *,
    size: int = 64,
    seed: int = 0,
    num_pairs: int = NUM_PAIRS,
) -> float:
    """A latent distance below which the host may take two pictures for the same screen state.

    Half the smallest distance that one gesture on one widget makes, over screens of the training
    split and all kinds of widgets. Equal pictures have distance 0.

    Args:
        world_model: What encodes.
        size: Width and height of its pictures, in pixels.
        seed: Which screens.
        num_pairs: How many of them.
    """
    pairs = one_gesture_problems(num_pairs, split="train", seed=seed, size=size)
    apart = picture_distance(world_model, pairs.start.render(), pairs.goal.render())
    return SHARE * float(apart.min())
