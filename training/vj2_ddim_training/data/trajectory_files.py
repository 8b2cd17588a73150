"""The three formats of trajectories, each opened lazily and described alike.

- `pairs`, memory-mapped: `{stem}_traj_{i:05d}_emb.npy` `[T, N, D]`, `..._act.npy` `[T-1, 250, 3]`
- `npz`: keys `embeddings` and `actions`, of one trajectory, or of n with a leading axis
- `h5`: datasets `embeddings` `[n, T, N, D]` and `actions` `[n, T-1, 250, 3]`
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_training.data.flat import load_npy

__all__ = ["TrajectoryFile", "describe_file", "find_trajectory_files", "open_arrays", "readable"]

KEYS = ("embeddings", "actions")
PATTERNS = {"pairs": "*_traj_[0-9]*_emb.npy", "npz": "*.npz", "h5": "*.h5"}
UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class TrajectoryFile:
    """n trajectories of T steps each, in one file or one pair of files.

    Attributes:
        paths: The file, or the embeddings' and the actions' file.
        num_trajectories: n.
        num_steps: T.
        embedding_shape: `(N, D)`: tokens, width.
    """

    paths: tuple[Path, ...]
    num_trajectories: int
    num_steps: int
    embedding_shape: tuple[int, int]


def find_trajectory_files(folder: Path) -> tuple[str, list[tuple[Path, ...]]]:
    """The format of a folder, and its files in sorted order (two paths each for `pairs`).

    Raises:
        DataError: The folder is missing, holds no trajectories or several formats, or an embedding
            file has no action file beside it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a folder of trajectories")
    found = {name: sorted(folder.glob(pattern)) for name, pattern in PATTERNS.items()}
    formats = [name for name, files in found.items() if files]
    if len(formats) != 1:
        raise DataError(
            f"{folder}: found {' and '.join(formats) or 'no trajectories'}, expected files of one "
            f"of the formats {', '.join(PATTERNS.values())}"
        )
    (name,) = formats
    if name != "pairs":
        return name, [(file,) for file in found[name]]
    pairs: list[tuple[Path, ...]] = [(file, _action_file_of(file)) for file in found[name]]
    missing = [paths[1] for paths in pairs if not paths[1].is_file()]
    if missing:
        raise DataError(f"{missing[0]}: missing, though its embeddings are there")
    return name, pairs


def _action_file_of(embedding_file: Path) -> Path:
    """`..._emb.npy` to `..._act.npy`."""
    return embedding_file.with_name(embedding_file.name.removesuffix("_emb.npy") + "_act.npy")


@contextmanager
def readable(paths: tuple[Path, ...]) -> Iterator[None]:
    """Turn whatever a broken file raises into a `DataError` that names it."""
    try:
        yield
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(
            f"{paths[0]}: cannot be read ({type(error).__name__}: {error}). It may be truncated or "
            f"lack one of the arrays {' and '.join(KEYS)}: write it again"
        ) from error


def open_arrays(paths: tuple[Path, ...]) -> tuple[Any, Any]:
    """Embeddings `[n, T, N, D]` and actions `[n, T-1, ...]`, indexed like numpy arrays.

    Pairs are memory-mapped, HDF5 datasets are read where they are indexed, `.npz` files are loaded.

    Raises:
        DataError: A file cannot be read.
    """
    with readable(paths):
        if len(paths) == 2:
            return load_npy(paths[0])[None], load_npy(paths[1])[None]
        if paths[0].suffix == ".h5":
            file = h5py.File(paths[0], "r")
            return file[KEYS[0]], file[KEYS[1]]
        with np.load(paths[0], allow_pickle=False) as archive:
            embeddings, actions = archive[KEYS[0]], archive[KEYS[1]]
        one = embeddings.ndim == 3
        return (embeddings[None], actions[None]) if one else (embeddings, actions)


def describe_file(paths: tuple[Path, ...], spec: ActionSpec) -> TrajectoryFile:
    """Check the shapes and types of a file without reading its arrays.

    Raises:
        DataError: The file cannot be read, or its arrays do not fit each other or the spec.
    """
    (embeddings, embedding_type), (actions, action_type) = _shapes_and_types(paths)
    for key, found in zip(KEYS, (embedding_type, action_type), strict=True):
        if not np.issubdtype(found, np.floating):
            raise DataError(f"{paths[0]}: {key} have dtype {found}, expected floating point")
    if len(embeddings) != 4:
        raise DataError(
            f"{paths[0]}: embeddings of one trajectory have shape {embeddings[1:]}, expected "
            f"[T, N, D]"
        )
    num, steps, tokens, width = embeddings
    block = (spec.action_block, spec.num_channels)
    flattened = (spec.action_block * spec.num_channels,)
    if actions[:2] != (num, steps - 1) or actions[2:] not in (block, flattened):
        raise DataError(
            f"{paths[-1]}: actions have shape {actions}, expected {(num, steps - 1, *block)} for "
            f"embeddings of shape {embeddings} (trajectories first)"
        )
    if steps <= spec.horizon:
        raise DataError(
            f"{paths[0]}: {steps} steps are too few for a horizon of {spec.horizon}; a transition "
            f"needs {spec.horizon + 1}"
        )
    return TrajectoryFile(paths, num, steps, (tokens, width))


def _shapes_and_types(paths: tuple[Path, ...]) -> list[tuple[tuple[int, ...], Any]]:
    """Shape (trajectories first) and dtype of the embeddings and of the actions."""
    if paths[0].suffix != ".npz":
        return [(array.shape, array.dtype) for array in open_arrays(paths)]
    with readable(paths), zipfile.ZipFile(paths[0]) as archive:
        headers = [_npz_header(archive, key) for key in KEYS]
    one = len(headers[0][0]) == 3
    return [((1, *shape) if one else shape, dtype) for shape, dtype in headers]


def _npz_header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of one array of an `.npz` file."""
    with archive.open(f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return shape, dtype
