"""Recorded episodes in memory, and the windows that are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vj2_ddim_benchmark.two_room.host import import_host
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Episodes", "load_episodes"]

EPISODES_AT_ONCE = 100


@dataclass(frozen=True)
class Episodes:
    """Episodes one after the other, S steps in all.

    Attributes:
        images: `[S, 3, H, W]`, uint8.
        actions: `[S, A]`, in the environment's units; the one taken in the image beside it. The
            last of an episode is not known to be its own (the host puts the first one there).
        positions: `[S, 2]`, the agent's, for measuring only.
        lengths: `[n]`, steps of each episode.
    """

    images: Tensor
    actions: FloatArray
    positions: FloatArray
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]]

    @property
    def starts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """`[n]`, the first step of each episode."""
        return np.cumsum(self.lengths) - self.lengths

    def windows(self, steps: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """First steps of all windows that reach `steps` ahead within one episode."""
        found = [
            np.arange(start, start + length - steps)
            for start, length in zip(self.starts, self.lengths, strict=True)
            if length > steps
        ]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


def load_episodes(paths: list[Path]) -> Episodes:
    """Read whole recordings.

    Args:
        paths: Recordings of the host's default format.

    Returns:
        All their episodes.
    """
    images, actions, positions, lengths = [], [], [], []
    for path in paths:
        dataset = import_host().data.LanceDataset(
            str(path), keys_to_load=["pixels", "action", "state"]
        )
        of_file = np.asarray(dataset.lengths, np.int64)
        for first in range(0, len(of_file), EPISODES_AT_ONCE):
            chosen = np.arange(first, min(first + EPISODES_AT_ONCE, len(of_file)))
            for episode in dataset.load_chunk(chosen, np.zeros_like(chosen), of_file[chosen]):
                images.append(episode["pixels"])
                actions.append(episode["action"].numpy())
                positions.append(episode["state"].numpy())
        lengths.append(of_file)
    return Episodes(
        torch.cat(images),
        np.concatenate(actions),
        np.concatenate(positions),
        np.concatenate(lengths),
    )
