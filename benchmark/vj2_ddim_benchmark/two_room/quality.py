"""How well a LeWM predicts, in pixels: a predicted latent is where its nearest known image was."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from vj2_ddim_benchmark.two_room.episodes import Episodes
from vj2_ddim_benchmark.two_room.lewm import WorldModel, encode_images
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["prediction_error"]


def prediction_error(
    world_model: WorldModel, known: Episodes, held_out: Episodes, num_blocks: int, num: int = 500
) -> dict[str, list[float]]:
    """Distance between where the agent is predicted to be and where it went.

    Args:
        world_model: To measure.
        known: Images whose positions are known, all over the rooms.
        held_out: Episodes to predict.
        num_blocks: World-model steps H.
        num: Windows to predict.

    Returns:
        `moved`, how far the agent went, and `error`: medians in pixels after 1 to H steps; and
        `error_p90`, the 90th percentile.
    """
    block = world_model.config.action_block
    tree = cKDTree(encode_images(world_model, known.images))
    windows = held_out.windows(num_blocks * block)
    rng = np.random.default_rng(0)
    first = rng.choice(windows, min(num, len(windows)), replace=False)
    predicted = _rollout(world_model, held_out, first, num_blocks)
    measured: dict[str, list[float]] = {"moved": [], "error": [], "error_p90": []}
    for step in range(1, num_blocks + 1):
        went = held_out.positions[first + step * block]
        found = known.positions[tree.query(predicted[:, step])[1]]
        error = np.linalg.norm(found - went, axis=-1)
        moved = np.linalg.norm(held_out.positions[first] - went, axis=-1)
        measured["moved"].append(float(np.median(moved)))
        measured["error"].append(float(np.median(error)))
        measured["error_p90"].append(float(np.quantile(error, 0.9)))
    return measured


def _rollout(
    world_model: WorldModel, episodes: Episodes, first: np.ndarray, num_blocks: int
) -> FloatArray:
    """Latents `[n, 1 + H, D]`: the first image's, then the predicted ones."""
    block = world_model.config.action_block
    within = first[:, None] + np.arange(num_blocks * block)
    actions = (episodes.actions[within] - world_model.action_mean) / world_model.action_std
    blocks = torch.from_numpy(actions.astype(np.float32)).reshape(len(first), 1, num_blocks, -1)
    start = torch.from_numpy(encode_images(world_model, episodes.images[torch.from_numpy(first)]))
    info = {"pixels": torch.zeros(len(first), 1, 1), "emb": start[:, None, None]}
    with torch.inference_mode():
        latents = world_model.model.rollout(info, blocks)["predicted_emb"]
    return np.asarray(latents[:, 0].numpy())
