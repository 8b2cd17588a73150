"""Expert episodes, by the host's own expert policy and writer.

Two kinds are mixed for training: a good expert, and the very noisy one of the host's own collection
script, so that the world model sees actions far from the expert's as well. Starts and goals of the
comparison come from the good expert's episodes of other seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vj2_ddim_benchmark.two_room.host import ENVIRONMENT, import_host
from vj2_ddim_plugin.files import atomic_path

__all__ = ["IMAGE_SHAPE", "RECORDINGS", "Recording", "collect_episodes", "recording_path"]

IMAGE_SHAPE = (64, 64)
NUM_ENVS = 8


@dataclass(frozen=True)
class Recording:
    """One data set of episodes.

    Attributes:
        split: `train`, `validation` or `test`.
        action_noise: Standard deviation of the noise on the expert's unit-length actions.
        episodes: How many.
        seed: Of the first episode's reset; the others count up from it.
    """

    split: str
    action_noise: float
    episodes: int
    seed: int


RECORDINGS = {
    "train_expert": Recording("train", 0.5, 1500, 0),
    "train_noisy": Recording("train", 3.0, 400, 100_000),
    "validation": Recording("validation", 0.5, 200, 200_000),
    "test": Recording("test", 0.5, 500, 300_000),
}


def recording_path(folder: Path, name: str) -> Path:
    """Where `collect_episodes` puts a recording."""
    return folder / "episodes" / f"{name}.lance"


def collect_episodes(folder: Path, name: str, recording: Recording) -> Path:
    """Record episodes in the host's default format, unless they are there already.

    Args:
        folder: The comparison's folder.
        name: The recording's name.
        recording: What to record.

    Returns:
        The recording's folder.

    Raises:
        ConfigError: The host is not installed.
    """
    target = recording_path(folder, name)
    if target.exists():
        return target
    host = import_host()
    target.parent.mkdir(parents=True, exist_ok=True)
    world = host.World(ENVIRONMENT, num_envs=NUM_ENVS, image_shape=IMAGE_SHAPE)
    expert = host.envs.two_room.ExpertPolicy(
        action_noise=recording.action_noise, seed=recording.seed
    )
    world.set_policy(expert)
    with atomic_path(target) as temporary:
        world.collect(temporary, episodes=recording.episodes, seed=recording.seed, progress=False)
    world.close()
    return target
