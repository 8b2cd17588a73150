"""Training examples for the denoiser: what the expert did between two latents.

A window is a state, a goal that the same episode reached h steps later, and the actions of the
whole planning window: the h that were taken, then standing still. Standing still is exact here
(nothing else moves in TwoRoom), so goals nearer than the window are examples too, whole episodes
shorter than a window are of use, and a plan that arrives early knows that it may stay.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vj2_ddim_benchmark.two_room.episodes import Episodes
from vj2_ddim_benchmark.two_room.lewm import WorldModel, encode_images
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.data.trajectories import write_trajectories_h5

__all__ = ["action_bounds", "cut_windows", "write_windows"]

FULL_SHARE = 0.5  # of windows whose goal lies at their very end


def action_bounds(world_model: WorldModel) -> tuple[FloatArray, FloatArray]:
    """The environment's bounds, -1 and 1, in normalized units: `[A]` each."""
    low, high = (
        (bound - world_model.action_mean) / world_model.action_std for bound in (-1.0, 1.0)
    )
    return low, high


def cut_windows(
    episodes: Episodes, steps: int, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, FloatArray]:
    """Draw windows at random.

    Args:
        episodes: To draw from.
        steps: Actions of a window.
        num: Windows.
        rng: Their randomness.

    Returns:
        `[num, 2]`, the numbers of the images of state and goal, and the actions
        `[num, steps, A]` in the environment's units.
    """
    lengths = np.where(rng.random(num) < FULL_SHARE, steps, rng.integers(1, steps + 1, num))
    first = np.zeros(num, np.int64)
    for length in np.unique(lengths):
        chosen = lengths == length
        first[chosen] = rng.choice(episodes.windows(int(length)), int(chosen.sum()))
    within = first[:, None] + np.arange(steps)
    actions = episodes.actions[np.minimum(within, len(episodes.actions) - 1)]
    actions = np.where((np.arange(steps) < lengths[:, None])[..., None], actions, 0.0)
    return np.stack([first, first + lengths], axis=1), actions


def write_windows(
    folder: Path,
    world_model: WorldModel,
    splits: dict[str, tuple[Episodes, int]],
    steps: int,
    seed: int = 0,
) -> None:
    """Write windows as trajectories of two latents `[1, D]` and one block of normalized actions.

    Args:
        folder: Replaced if it is there.
        world_model: Encodes the images, and normalizes the actions.
        splits: Episodes and number of windows by split.
        steps: Actions of a window.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    latents, actions, members, count = [], [], {}, 0
    for split, (episodes, num) in splits.items():
        images, taken = cut_windows(episodes, steps, num, rng)
        used, where = np.unique(images, return_inverse=True)
        encoded = encode_images(world_model, episodes.images[torch.from_numpy(used)])
        latents.append(encoded[where.reshape(images.shape)][:, :, None])
        normalized = (taken - world_model.action_mean) / world_model.action_std
        low, high = action_bounds(world_model)
        actions.append(np.clip(normalized, low, high)[:, None].astype(np.float32))
        members[split] = np.arange(count, count + num).tolist()
        count += num
    write_trajectories_h5(
        folder,
        np.concatenate(latents),
        np.concatenate(actions),
        members,
        layer_normed=False,
        trajectories_per_file=16384,
        overwrite=True,
    )
