"""Recorded episodes of the host's own expert, by its writer; and windows that are cut from them.

A very noisy expert is mixed in, so that the world model sees actions far from the good one's; its
noise is that of the host's own collection script, and the problems come from such episodes too. Of
an aimless one next to nothing of the expert is left.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vj2_ddim_benchmark.two_room import ENVIRONMENT, IMAGE_SHAPE, import_stable_worldmodel
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray

NUM_ENVS = 8
EPISODES_AT_ONCE = 100
FULL_SHARE = 0.5  # of windows whose goal lies at their very end

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Recording:
    """A data set of episodes; the noise is a standard deviation, seeds count up from the first."""

    split: str
    action_noise: float
    episodes: int
    seed: int


RECORDINGS = {
    "train_expert": Recording("train", 0.5, 1200, 0),
    "train_noisy": Recording("train", 3.0, 500, 100_000),
    "aimless": Recording("aimless", 30.0, 500, 400_000),
    "validation": Recording("validation", 3.0, 240, 200_000),
    "test": Recording("test", 3.0, 1000, 300_000),
    "test_far": Recording("test", 0.5, 500, 500_000),
}


@dataclass(frozen=True)
class Episodes:
    """Episodes one after the other, S steps in all.

    The action beside an image is the one taken there, in the environment's units; the last of an
    episode is not known to be its own (the host puts the first one there).
    """

    images: Tensor  # [S, 3, H, W], uint8
    actions: FloatArray  # [S, A]
    positions: FloatArray  # [S, 2], the agent's, for measuring only
    lengths: Integers  # [n], steps of each episode

    @property
    def starts(self) -> Integers:
        """`[n]`, the first step of each episode."""
        return np.cumsum(self.lengths) - self.lengths

    def windows(self, steps: int) -> Integers:
        """First steps of all windows that reach `steps` ahead within one episode."""
        after = np.repeat(self.starts + self.lengths, self.lengths)  # of each step, its episode's
        return np.flatnonzero(np.arange(len(after)) + steps < after)


def recording_path(folder: Path, name: str) -> Path:
    """Where `collect_episodes` puts a recording."""
    return folder / "episodes" / f"{name}.lance"


def collect_episodes(folder: Path, name: str, recording: Recording) -> Path:
    """Record episodes in the host's default format, unless they are there already."""
    target = recording_path(folder, name)
    if target.exists():
        return target
    host, noise, seed = import_stable_worldmodel(), recording.action_noise, recording.seed
    target.parent.mkdir(parents=True, exist_ok=True)
    world = host.World(ENVIRONMENT, num_envs=NUM_ENVS, image_shape=IMAGE_SHAPE)
    world.set_policy(host.envs.two_room.ExpertPolicy(action_noise=noise, seed=seed))
    with atomic_path(target) as temporary:
        world.collect(temporary, episodes=recording.episodes, seed=seed, progress=False)
    world.close()
    return target


def load_episodes(paths: list[Path]) -> Episodes:
    """Read whole recordings of the host's default format."""
    found, lengths, keys = [], [], ["pixels", "action", "state"]
    for path in paths:
        dataset = import_stable_worldmodel().data.LanceDataset(str(path), keys_to_load=keys)
        of_file = np.asarray(dataset.lengths, np.int64)
        for first in range(0, len(of_file), EPISODES_AT_ONCE):
            chosen = np.arange(first, min(first + EPISODES_AT_ONCE, len(of_file)))
            found += dataset.load_chunk(chosen, np.zeros_like(chosen), of_file[chosen])
        lengths.append(of_file)
    images, actions, positions = (torch.cat([each[key] for each in found]) for key in keys)
    return Episodes(images, actions.numpy(), positions.numpy(), np.concatenate(lengths))


def load_positions(path: Path) -> list[FloatArray]:
    """The agent's positions `[S, 2]` in each episode of a recording."""
    dataset = import_stable_worldmodel().data.LanceDataset(str(path), keys_to_load=["state"])
    return np.split(dataset.get_col_data("state"), np.cumsum(dataset.lengths)[:-1])


def cut_windows(
    episodes: Episodes, steps: int, num: int, rng: np.random.Generator
) -> tuple[Integers, FloatArray]:
    """Draw windows: images of a state and of one h steps later `[num, 2]`, by number, and actions.

    The actions `[num, steps, A]` are those between, and then standing still. That is exact here
    (nothing else moves in TwoRoom), so goals nearer than the window and episodes shorter than one
    are of use, and a plan that arrives early knows that it may stay.
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
