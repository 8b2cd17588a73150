"""Files of trajectories: their formats, what they hold, and writing them.

- `pairs`, memory-mapped: `{stem}_traj_{i:05d}_emb.npy` `[T, N, D]`, `..._act.npy` `[T-1, 250, 3]`
- `npz`: keys `embeddings` and `actions`, of one trajectory, or of n with a leading axis
- `h5`: datasets `embeddings` `[n, T, N, D]` and `actions` `[n, T-1, 250, 3]`
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from vj2_ddim_plugin.arrays import StoredArray, npy_array, npz_arrays
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path, write_json
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import (
    ACTION_FILES,
    find_action_files,
    list_folder,
    require_replaceable,
)
from vj2_ddim_training.data.hdf5 import Hdf5Array, hdf5_arrays
from vj2_ddim_training.data.manifest import MANIFEST_NAME, SPLITS

__all__ = ["KEYS", "PATTERNS", "TrajectoryFile", "describe_file", "find_data_files"]
__all__ += ["find_trajectory_files", "write_trajectories_h5"]

KEYS = ("embeddings", "actions")
PATTERNS = {"pairs": "*_traj_[0-9]*_emb.npy", "npz": "*.npz", "h5": "*.h5"}
ACTIONS_OF_PAIRS = "*_traj_[0-9]*_act.npy"


@dataclass(frozen=True)
class TrajectoryFile:
    """n trajectories of T steps each, in one file or one pair of files, of which none is read."""

    paths: tuple[Path, ...]
    embeddings: StoredArray | Hdf5Array  # [n, T, N, D]
    actions: StoredArray | Hdf5Array  # [n, T-1, ...]

    @property
    def arrays(self) -> tuple[StoredArray | Hdf5Array, StoredArray | Hdf5Array]:
        """Embeddings and actions."""
        return self.embeddings, self.actions

    @property
    def num_trajectories(self) -> int:
        """The trajectories n."""
        return self.embeddings.shape[0]

    @property
    def num_steps(self) -> int:
        """The states T of each."""
        return self.embeddings.shape[1]

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """Tokens N and width D."""
        tokens, width = self.embeddings.shape[2:]
        return tokens, width


def find_trajectory_files(folder: Path) -> tuple[str, list[tuple[Path, ...]]]:
    """The format of a folder, and its files in sorted order (two paths each for `pairs`)."""
    found = {name: list_folder(folder, pattern) for name, pattern in PATTERNS.items()}
    actions = list_folder(folder, ACTIONS_OF_PAIRS)
    found["pairs"] = sorted({_of_pair(file, "emb") for file in (*found["pairs"], *actions)})
    formats = [name for name, files in found.items() if files]
    if len(formats) != 1:
        raise DataError(
            f"{folder}: found {' and '.join(formats) or 'no trajectories'}, expected files of one "
            f"of the formats {', '.join(PATTERNS.values())}"
        )
    (name,) = formats
    if name == "pairs":
        return name, [(file, _of_pair(file, "act")) for file in found[name]]
    return name, [(file,) for file in found[name]]


def find_data_files(path: Path) -> tuple[str, list[tuple[Path, ...]]]:
    """The format of a folder or of one file, `actions` or one of `PATTERNS`, and its files."""
    if os.path.isdir(path):
        if list_folder(path, ACTION_FILES) or not any(
            list_folder(path, pattern) for pattern in (*PATTERNS.values(), ACTIONS_OF_PAIRS)
        ):
            return "actions", [(file,) for file in find_action_files(path)]
        return find_trajectory_files(path)
    if path.suffix in (".npz", ".h5"):
        return path.suffix[1:], [(path,)]
    if fnmatch(path.name, PATTERNS["pairs"]) or fnmatch(path.name, ACTIONS_OF_PAIRS):
        return "pairs", [(_of_pair(path, "emb"), _of_pair(path, "act"))]
    return "actions", [(file,) for file in find_action_files(path)]


def _of_pair(file: Path, end: str) -> Path:
    return file.with_name(f"{file.name[:-7]}{end}.npy")


def describe_file(paths: tuple[Path, ...], spec: ActionSpec | None = None) -> TrajectoryFile:
    """Check the shapes and types of a file, against the actions' too, without reading its arrays.

    Raises:
        DataError: It is broken, does not hold what its format is to hold, or nothing of it.
    """
    embeddings, actions = _arrays(paths)
    for key, array in zip(KEYS, (embeddings, actions), strict=True):
        if not (array.bfloat16 or np.issubdtype(array.dtype, np.floating)):
            raise DataError(
                f"{paths[0]}: {key} have dtype {array.dtype}, expected floating point; two bytes "
                f"count as bfloat16 only where the file says so"
            )
    if len(embeddings.shape) != 4 or 0 in embeddings.shape:
        raise DataError(
            f"{paths[0]}: embeddings have shape {embeddings.shape} (trajectories first), expected "
            f"[n, T, N, D] and at least one of each"
        )
    num, steps = embeddings.shape[:2]
    blocks, horizon = "one or two axes", 1
    fits = len(actions.shape) in (3, 4) and 0 not in actions.shape[2:]
    if spec is not None:
        block, horizon = (spec.action_block, spec.num_channels), spec.horizon
        fits = actions.shape[2:] in (block, (spec.action_block * spec.num_channels,))
        blocks = ", ".join(map(str, block))
    if steps <= horizon:
        raise DataError(
            f"{paths[0]}: {steps} steps are too few for a horizon of {horizon}; a transition "
            f"needs {horizon + 1}"
        )
    if actions.shape[:2] != (num, steps - 1) or not fits:
        raise DataError(
            f"{paths[-1]}: actions have shape {actions.shape}, expected ({num}, {steps - 1}, "
            f"{blocks}) for embeddings of shape {embeddings.shape} (trajectories first)"
        )
    return TrajectoryFile(paths, embeddings, actions)


def _arrays(paths: tuple[Path, ...]) -> list[StoredArray] | list[Hdf5Array]:
    """Embeddings and actions, trajectories first."""
    if paths[0].suffix == ".h5":
        return hdf5_arrays(paths[0], KEYS)
    if len(paths) == 2:
        arrays = [npy_array(path, DataError) for path in paths]
    else:
        arrays = list(npz_arrays(paths[0], DataError, KEYS).values())
        if len(arrays[0].shape) != 3:
            return arrays
    return [replace(array, shape=(1, *array.shape)) for array in arrays]


def write_trajectories_h5(
    folder: Path | str,
    embeddings: FloatArray,
    actions: FloatArray,
    splits: Mapping[str, Sequence[int]],
    *,
    layer_normed: bool,
    lengths: Sequence[int] | None = None,
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
        lengths: How many of its T states are written of each trajectory, from the first, 2 to T;
            all unless told. A file has trajectories of one length.
        trajectories_per_file: At most.
        overwrite: Replace an earlier data set.

    Raises:
        DataError: The arrays do not go together, or the splits name a trajectory wrongly or twice.
        ConfigError: The folder holds something that would be lost.
    """
    folder = Path(os.path.realpath(folder))
    _check_arrays(embeddings, actions, trajectories_per_file)
    _check_splits(splits, len(embeddings))
    num_states = _checked_lengths(lengths, embeddings)
    require_replaceable(folder, ("*.h5", MANIFEST_NAME), overwrite)
    with atomic_path(folder, folder=True) as temporary:
        arrays, most = (embeddings, actions), trajectories_per_file
        write = partial(_write_split, temporary, arrays, num_states, most)
        manifest = {
            "splits": {split: write(split, members) for split, members in splits.items()},
            "layer_normed": layer_normed,
            "num_steps": embeddings.shape[1],
            "embedding_shape": embeddings.shape[2:],
            "action_shape": actions.shape[2:],
        }
        write_json(temporary / MANIFEST_NAME, manifest)


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


def _files_of(
    members: Sequence[int], lengths: IntArray, most: int
) -> Iterator[tuple[IntArray, int]]:
    """The trajectories of each file and their length, long ones first."""
    rows = np.asarray(members, dtype=np.int64)
    for length in np.unique(lengths[rows])[::-1].tolist():
        equal = rows[lengths[rows] == length]
        yield from ((equal[first : first + most], length) for first in range(0, len(equal), most))


def _write_split(
    folder: Path, arrays: Sequence[FloatArray], lengths: IntArray, most: int,
    split: str, members: Sequence[int],
) -> list[str]:  # fmt: skip
    """Write the files of a split, and return their names."""
    names: list[str] = []
    for rows, length in _files_of(members, lengths, most):
        names.append(f"{split}_{len(names):05d}.h5")
        with h5py.File(folder / names[-1], "w") as file:
            for key, array, steps in zip(KEYS, arrays, (length, length - 1), strict=True):
                chunks = (1, 1, *array.shape[2:])  # single steps
                file.create_dataset(key, data=array[rows][:, :steps], chunks=chunks)
    return names


def _checked_lengths(lengths: Sequence[int] | None, embeddings: FloatArray) -> IntArray:
    num, most = embeddings.shape[:2]
    found = np.full(num, most) if lengths is None else np.asarray(lengths)
    fits = found.shape == (num,) and found.dtype.kind in "iu"
    if not fits or not ((found >= 2) & (found <= most)).all():
        raise DataError(
            f"lengths must be {num} integers of 2 to {most}; found {found.dtype} of shape "
            f"{found.shape}" + (f", {found.min()} to {found.max()}" if fits and num else "")
        )
    return found.astype(np.int64)


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
