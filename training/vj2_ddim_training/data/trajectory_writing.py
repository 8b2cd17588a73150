"""Write trajectories as HDF5 files with a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.data.folders import require_replaceable
from vj2_ddim_training.data.manifest import MANIFEST_NAME, SPLITS

__all__ = ["write_trajectories_h5"]


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
                _write_file(temporary / names[split][-1], embeddings[rows], actions[rows])
        manifest = {
            "splits": names,
            "layer_normed": layer_normed,
            "num_steps": embeddings.shape[1],
            "embedding_shape": embeddings.shape[2:],
            "action_shape": actions.shape[2:],
        }
        (temporary / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")


def _write_file(path: Path, embeddings: FloatArray, actions: FloatArray) -> None:
    """Write one HDF5 file whose chunks are single steps."""
    with h5py.File(path, "w") as file:
        for name, array in (("embeddings", embeddings), ("actions", actions)):
            file.create_dataset(name, data=array, chunks=(1, 1, *array.shape[2:]))


def _check_arrays(embeddings: FloatArray, actions: FloatArray, trajectories_per_file: int) -> None:
    """Refuse arrays that do not go together."""
    fits = embeddings.ndim == 4 and actions.ndim in (3, 4) and embeddings.shape[1] >= 2
    if not fits or actions.shape[:2] != (embeddings.shape[0], embeddings.shape[1] - 1):
        raise DataError(
            f"embeddings {embeddings.shape} and actions {actions.shape} do not go together; "
            f"expected [n, T, N, D] with T >= 2, and [n, T-1, action block, channels]"
        )
    for name, array in (("embeddings", embeddings), ("actions", actions)):
        if not np.issubdtype(array.dtype, np.floating):
            raise DataError(f"{name} have dtype {array.dtype}, expected floating point")
    if trajectories_per_file < 1:
        raise DataError(f"trajectories_per_file must be at least 1; found {trajectories_per_file}")


def _check_splits(splits: Mapping[str, Sequence[int]], num_trajectories: int) -> None:
    """Refuse unknown splits, unknown trajectories, and trajectories used twice."""
    unknown = set(splits) - set(SPLITS)
    if unknown:
        raise DataError(f"unknown splits {sorted(unknown)}; use {', '.join(SPLITS)}")
    seen: set[int] = set()
    for split, members in splits.items():
        for trajectory in members:
            if not 0 <= trajectory < num_trajectories:
                raise DataError(
                    f"split {split!r} names trajectory {trajectory}; there are {num_trajectories}"
                )
            if trajectory in seen:
                raise DataError(f"trajectory {trajectory} is named twice; a split must not leak")
            seen.add(int(trajectory))
