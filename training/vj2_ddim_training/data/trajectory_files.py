"""Files of trajectories: their formats, the manifest with its splits, and writing them.

- `pairs`, memory-mapped: `{stem}_traj_{i:05d}_emb.npy` `[T, N, D]`, `..._act.npy` `[T-1, 250, 3]`
- `npz`: keys `embeddings` and `actions`, of one trajectory, or of n with a leading axis
- `h5`: datasets `embeddings` `[n, T, N, D]` and `actions` `[n, T-1, 250, 3]`
"""

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import load_npy, require_replaceable

__all__ = ["MANIFEST_NAME", "TrajectoryFile", "describe_file", "find_trajectory_files"]
__all__ += ["open_arrays", "read_manifest", "readable", "split_names", "write_trajectories_h5"]

KEYS = ("embeddings", "actions")
PATTERNS = {"pairs": "*_traj_[0-9]*_emb.npy", "npz": "*.npz", "h5": "*.h5"}
UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TrajectoryFile:
    """n trajectories of T steps each, in one file or one pair of files."""

    paths: tuple[Path, ...]
    num_trajectories: int
    num_steps: int
    embedding_shape: tuple[int, int]


def find_trajectory_files(folder: Path) -> tuple[str, list[tuple[Path, ...]]]:
    """The format of a folder, and its files in sorted order (two paths each for `pairs`)."""
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
    pairs = [(file, file.with_name(f"{file.name[:-7]}act.npy")) for file in found[name]]
    if missing := [paths[1] for paths in pairs if not paths[1].is_file()]:
        raise DataError(f"{missing[0]}: missing, though its embeddings are there")
    return name, list(pairs)


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
    """Check the shapes and types of a file without reading its arrays."""
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
        old = np.lib.format.read_magic(stream) == (1, 0)
        format = np.lib.format
        read = format.read_array_header_1_0 if old else format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is none."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Write it again") from error
    splits = manifest.get("splits") if isinstance(manifest, dict) else None
    if not isinstance(splits, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in splits.values()
    ):
        raise DataError(
            f'{path}: expected {{"splits": {{"train": [file names], ...}}}}. Add the splits'
        )
    return dict(manifest)


def split_names(manifest: dict[str, Any], folder: Path, split: str | None) -> list[str]:
    """File names of one split, or of all splits with None."""
    path, splits = folder / MANIFEST_NAME, manifest["splits"]
    if split is not None and split not in splits:
        raise DataError(f"{path}: no split {split!r}; found {', '.join(splits) or 'none'}")
    chosen = splits.values() if split is None else [splits[split]]
    names = [name for listed in chosen for name in listed]
    if not names:
        raise DataError(f"{path}: split {split or 'of any name'!r} lists no files")
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{path}: {name!r} is not a plain file name inside {folder}")
        if not (folder / name).is_file():
            raise DataError(f"{path}: lists {name}, which is not in {folder}")
    return names


def write_trajectories_h5(
    folder: Path | str,
    embeddings: FloatArray,
    actions: FloatArray,
    splits: Mapping[str, Sequence[int]],
    *,
    layer_normed: bool,
    trajectories_per_file: int = 256,
    overwrite: bool = False,
) -> None:
    """Write `{split}_{i:05d}.h5` files and `manifest.json`; the folder appears whole or not at all.

    Args:
        folder: Folder to make.
        embeddings: `[n, T, N, D]` of any floating-point type; may be memory-mapped.
        actions: `[n, T-1, 250, 3]` (or whatever the action block and channels are).
        splits: The trajectories of each of `"train"`, `"validation"` and `"test"`.
        layer_normed: Whether the embeddings were layer-normed; recorded.
        trajectories_per_file: At most.
        overwrite: Replace an earlier data set.

    Raises:
        DataError: The arrays do not go together, or the splits name a trajectory wrongly or twice.
        ConfigError: The folder holds something that would be lost.
    """
    folder = Path(folder).resolve()
    _check_arrays(embeddings, actions, trajectories_per_file)
    _check_splits(splits, len(embeddings))
    require_replaceable(folder, ("*.h5", MANIFEST_NAME), overwrite)
    with atomic_path(folder, folder=True) as temporary:
        names: dict[str, list[str]] = {split: [] for split in splits}
        for split, members in splits.items():
            for first in range(0, len(members), trajectories_per_file):
                rows = np.asarray(members[first : first + trajectories_per_file], dtype=np.int64)
                names[split].append(f"{split}_{len(names[split]):05d}.h5")
                with h5py.File(temporary / names[split][-1], "w") as file:
                    for name, array in zip(KEYS, (embeddings[rows], actions[rows]), strict=True):
                        chunks = (1, 1, *array.shape[2:])  # single steps
                        file.create_dataset(name, data=array, chunks=chunks)
        manifest = {
            "splits": names,
            "layer_normed": layer_normed,
            "num_steps": embeddings.shape[1],
            "embedding_shape": embeddings.shape[2:],
            "action_shape": actions.shape[2:],
        }
        (temporary / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")


def _check_arrays(embeddings: FloatArray, actions: FloatArray, trajectories_per_file: int) -> None:
    fits = embeddings.ndim == 4 and actions.ndim in (3, 4) and embeddings.shape[1] >= 2
    if not fits or actions.shape[:2] != (embeddings.shape[0], embeddings.shape[1] - 1):
        raise DataError(
            f"embeddings {embeddings.shape} and actions {actions.shape} do not go together; "
            f"expected [n, T, N, D] with T >= 2, and [n, T-1, action block, channels]"
        )
    for name, array in zip(KEYS, (embeddings, actions), strict=True):
        if not np.issubdtype(array.dtype, np.floating):
            raise DataError(f"{name} have dtype {array.dtype}, expected floating point")
    if trajectories_per_file < 1:
        raise DataError(f"trajectories_per_file must be at least 1; found {trajectories_per_file}")


def _check_splits(splits: Mapping[str, Sequence[int]], num_trajectories: int) -> None:
    if unknown := set(splits) - set(SPLITS):
        raise DataError(f"unknown splits {sorted(unknown)}; use {', '.join(SPLITS)}")
    named = [
        (split, int(trajectory)) for split, members in splits.items() for trajectory in members
    ]
    for split, trajectory in named:
        if not 0 <= trajectory < num_trajectories:
            raise DataError(
                f"split {split!r} names trajectory {trajectory}; there are {num_trajectories}"
            )
    (trajectory, times), *_ = Counter(number for _, number in named).most_common(1) or [(0, 0)]
    if times > 1:
        raise DataError(f"trajectory {trajectory} is named twice; a split must not leak")
