"""Collected screens encoded into a denoiser's data: trajectories of latents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.collect import Transitions, load_transitions
from vj2_ddim_benchmark.world.touch import Actions
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_training.data.trajectories import write_trajectories_h5

MOST_MOVED = 0.125  # of the picture, in either direction


def embed_files(
    world_model: WorldModel, files: Mapping[str, Sequence[Path]], out: Path, *,
    changes_only: bool = False, num_moved: int = 0, progress: Progress = silent,
) -> int:  # fmt: skip
    """Encode files of collected screens, and write the trajectories of latents, in half precision.

    Args:
        world_model: Whose encoder sees them.
        files: Of each split, `"train"`, `"validation"` or `"test"`.
        out: The folder to write, by `write_trajectories_h5`.
        changes_only: Leave out touches that change no state.
        num_moved: Copies of what is trained on, moved over the screen.
        progress: Told phase, done, in all.

    Returns:
        How many trajectories there are.

    Raises:
        DataError: A file cannot be read, does not fit the model or the others, or nothing is left.
        ConfigError: The folder holds something that would be lost.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    actions, lengths, splits = list[Actions](), list[IntArray](), dict[str, list[int]]()
    with TemporaryFile(dir=out.parent) as kept:  # all of them are more than memory holds
        for split, part in _embedded(world_model, files, changes_only, num_moved, progress):
            kept.write(np.ascontiguousarray(part[0], np.float16).data)
            first = sum(map(len, actions))
            splits.setdefault(split, []).extend(range(first, first + len(part[1])))
            actions.append(part[1])
            lengths.append(part[2])
        kept.flush()
        if not any(map(len, actions)):
            raise DataError("found no touch that changes a state; collect more, or others")
        touches, shape = np.concatenate(actions), part[0].shape[1:]
        latents = np.memmap(kept, np.float16, "r", shape=(len(touches), *shape))
        how: dict[str, Any] = {"layer_normed": world_model.config.layer_norm}
        how["lengths"] = np.concatenate(lengths)
        write_trajectories_h5(out, latents, touches, splits, **how)
    return len(touches)


def _embedded(
    world_model: WorldModel, files: Mapping[str, Sequence[Path]], changes_only: bool,
    num_moved: int, progress: Progress,
) -> Iterator[tuple[str, tuple[NDArray[np.float32], Actions, IntArray]]]:  # fmt: skip
    """Split, latents, actions and how many states count, of each file and of each moved copy."""
    paths = [(split, path) for split, of_split in files.items() for path in of_split]
    horizon: int | None = None
    for done, (split, path) in enumerate(paths):
        progress("embed", done, len(paths))
        found = recorded_transitions(path, world_model.config)
        if found.actions.shape[1] != (horizon := horizon or found.actions.shape[1]):
            raise DataError(
                f"{path}: has trajectories of {found.actions.shape[1]} touches, those before it of "
                f"{horizon}. Collect them with one horizon"
            )
        moved = num_moved if split == "train" else 0
        for latents, actions in embed_transitions(world_model, found, moved):
            if changes_only:
                yield split, only_changes(latents, replace(found, actions=actions))
            else:
                yield split, (latents, actions, np.full(len(actions), latents.shape[1]))
    progress("embed", len(paths), len(paths))


def recorded_transitions(file: Path, config: WorldModelConfig) -> Transitions:
    """Transitions of a file; a `DataError` if pictures or blocks are not of the model's sizes."""
    found = load_transitions(file)
    height, width = found.frames.shape[2:4]
    length = found.actions.shape[2]
    if (height, width, length) != (config.screen_size, config.screen_size, config.action_block):
        raise DataError(
            f"{file}: has pictures of {height} x {width} and {length} actions a block; expected "
            f"{config.screen_size} x {config.screen_size} and {config.action_block}. Collect again "
            f"in that size, or give this one as screen_size"
        )
    return found


def embed_transitions(
    world_model: WorldModel, transitions: Transitions, num_moved: int = 0, seed: int = 0
) -> list[tuple[NDArray[np.float32], Actions]]:
    """A denoiser's data: latents float32 `[n, T, N, D]` and actions float32 `[n, T-1, 250, 3]`.

    As they are, then `num_moved` times with each trajectory and its touches moved over the screen:
    by whole cells of the encoder, an eighth of the picture at most, and never so far that a touch
    leaves it. It is the random shift of Kostrikov et al. 2020 (arXiv 2004.13649), of features: a
    network is shown widgets where no page has them.
    """
    frames, actions = transitions.frames, transitions.actions
    if not num_moved:
        return [(world_model.encode(frames), actions)]
    unit = world_model.encoder.cell / world_model.config.screen_size
    offsets = _offsets(actions, num_moved, unit, np.random.default_rng(seed))
    shape = world_model.config.num_tokens, world_model.config.token_dim
    latents = np.empty((1 + num_moved, *frames.shape[:2], *shape), np.float32)
    for index in range(len(frames)):
        latents[:, index] = world_model.encoder.encode_moved(frames[index], offsets[index])
    copies = [actions]
    for copy in range(1, 1 + num_moved):
        moved = actions.copy()
        by = (offsets[:, copy, None, None] * unit).astype(np.float32)
        moved[..., :2] += by * (moved[..., 2:] > 0.0)  # a finger that is up is nowhere
        copies.append(np.clip(moved, 0.0, 1.0))
    return list(zip(latents, copies, strict=True))


def _offsets(
    actions: Actions, num_moved: int, unit: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How far each trajectory is moved in x and y, in cells, `[n, 1 + num_moved, 2]`; first not."""
    most = round(MOST_MOVED / unit)
    offsets = np.zeros((len(actions), 1 + num_moved, 2), np.int64)
    for index, touches in enumerate(actions):
        low, high = _room(touches, unit)
        within = np.maximum(low, -most), np.minimum(high, most) + 1
        offsets[index, 1:] = rng.integers(*within, (num_moved, 2))
    return offsets


def _room(touches: Actions, unit: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How far, in cells, touches `[T-1, 250, 3]` can be moved in x and y and stay in the picture.

    Nothing is moved where one is at the edge already.
    """
    places = touches[touches[..., 2] > 0.0, :2]
    if not len(places):
        places = np.full((1, 2), 0.5, np.float32)
    low = np.minimum(np.ceil(-places.min(axis=0) / unit), 0)
    high = np.maximum(np.floor((1.0 - places.max(axis=0)) / unit), 0)
    return low.astype(np.int64), high.astype(np.int64)


def only_changes(
    latents: NDArray[np.float32], transitions: Transitions
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Trajectories of latents `[n, T, N, D]` without the touches that change no state.

    Hindsight takes every touch for a step towards what is reached later; one that does nothing
    would teach idleness. Trajectories in which nothing changes are left out.

    Returns:
        Latents and actions of the m others, what is kept first, and how many of its states, `[m]`.
    """
    changed = (transitions.states[:, 1:] != transitions.states[:, :-1]).any(axis=-1)
    some = changed.any(axis=1)
    order = np.argsort(~changed[some], axis=1, kind="stable")
    states = np.concatenate([np.zeros_like(order[:, :1]), order + 1], axis=1)
    kept = np.take_along_axis(latents[some], states[..., None, None], axis=1)
    actions = np.take_along_axis(transitions.actions[some], order[..., None, None], axis=1)
    return kept, actions, changed[some].sum(axis=1) + 1
