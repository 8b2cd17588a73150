"""Trajectories of embeddings and action blocks, read one transition at a time.

A transition is `(z_t, z_g) -> action blocks t ... t+H-1`, H being the spec's horizon: every
trajectory gives its later states as goals for its earlier ones (hindsight). The nearest goal is
g = t+H, right after the actions; farther ones, up to `longest_goal - 1` steps later, teach first
actions of longer ways. The nearest ones count as often as there are distances.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import (
    fingerprint_files,
    require_finite,
    require_in_range,
    settled,
)
from vj2_ddim_training.data.trajectory_files import (
    KEYS,
    MANIFEST_NAME,
    TrajectoryFile,
    describe_file,
    find_trajectory_files,
    open_arrays,
    read_manifest,
    readable,
    split_names,
    write_trajectories_h5,
)

__all__ = ["Trajectories", "open_trajectories", "write_trajectories_h5"]

Float32 = NDArray[np.float32]
MAX_OPEN_FILES = 64
PART_NUMBERS = 2**22  # in one part of a pass through the files, 16 MiB


def _file_cache() -> Callable[[tuple[Path, ...], int], tuple[Any, Any]]:
    """`open_arrays` that keeps files open, by process: HDF5 handles must not be shared by two."""
    return lru_cache(MAX_OPEN_FILES)(lambda paths, process_id: open_arrays(paths))


class Trajectories:
    """All transitions of some files, numbered from 0: file by file, trajectory by trajectory.

    Nothing but shapes is read before `gather`. `layer_normed` says whether the embeddings were; it
    is None where nobody recorded it. See `open_trajectories` for the rest.
    """

    def __init__(
        self,
        files: Sequence[TrajectoryFile],
        spec: ActionSpec,
        layer_normed: bool | None = None,
        allow_out_of_range: bool = False,
        longest_goal: int = 1,
    ) -> None:
        self.files, self.spec = tuple(files), spec
        self.layer_normed, self.allow_out_of_range = layer_normed, allow_out_of_range
        self.embedding_shape = self.files[0].embedding_shape
        for file in self.files:
            if file.embedding_shape != self.embedding_shape:
                raise DataError(
                    f"{file.paths[0]}: embeddings are {file.embedding_shape} (N, D), but "
                    f"{self.embedding_shape} in {self.files[0].paths[0].name}; keep them in "
                    f"different folders"
                )
        self._pairs = [_pairs(file.num_steps, spec.horizon, longest_goal) for file in self.files]
        both = zip(self.files, self._pairs, strict=True)
        counts = [file.num_trajectories * len(pairs) for file, pairs in both]
        self._offsets: IntArray = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._open = _file_cache()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open files."""
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Files are opened anew."""
        vars(self).update(state)
        self._open = _file_cache()

    def __len__(self) -> int:
        """Transitions in all."""
        return int(self._offsets[-1])

    @cached_property
    def data_fingerprint(self) -> str:
        """Names the exact files; reads all of them the first time."""
        return fingerprint_files(path for file in self.files for path in file.paths)

    def file_of(self, index: int) -> Path:
        """The file that a transition is in."""
        return self.files[np.searchsorted(self._offsets, index, side="right") - 1].paths[0]

    def gather(self, indices: Sequence[int] | IntArray) -> tuple[Float32, Float32, Float32]:
        """Read b transitions: states and goals `[b, N, D]`, actions `[b, L, A]`, all float32.

        Raises:
            DataError: An index is out of range, a file cannot be read any more, or it holds NaN,
                infinite or out-of-bounds values.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        bad = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(bad):
            raise DataError(f"transition {bad[0]} does not exist: there are {len(self)}")
        z_t = np.empty((len(chosen), *self.embedding_shape), np.float32)
        z_next = np.empty_like(z_t)
        actions = np.empty((len(chosen), self.spec.length, self.spec.num_channels), np.float32)
        file_numbers = np.searchsorted(self._offsets, chosen, side="right") - 1
        for number in np.unique(file_numbers):
            rows = np.flatnonzero(file_numbers == number)
            file = self.files[number]
            pairs = self._pairs[number]
            open_embeddings, blocks = self._open(file.paths, os.getpid())
            trajectories, of = np.divmod(chosen[rows] - self._offsets[number], len(pairs))
            steps, goals = pairs[of].T.tolist()
            with readable(file.paths), np.errstate(over="ignore"):
                for row, i, t, g in zip(rows, trajectories.tolist(), steps, goals, strict=True):
                    z_t[row], z_next[row] = open_embeddings[i, t], open_embeddings[i, g]
                    block = blocks[i, t : t + self.spec.horizon]
                    actions[row] = block.reshape(actions.shape[1:])
            for embeddings in (z_t, z_next):
                require_finite(embeddings[rows], file.paths[0], "embedding value")
            actions[rows] = self._checked(actions[rows], file.paths[-1], blocks.dtype)
        return z_t, z_next, actions

    def parts(self, name: str) -> Iterator[tuple[Path, Float32]]:
        """All `embeddings` `[n, N, D]` or all `actions` `[n, action_block, A]`, each of them once.

        Yields a bounded part at a time, in order, with the file that it is from. Raises as `gather`
        does.
        """
        which = KEYS.index(name)
        for file in self.files:
            path = file.paths[which * (len(file.paths) - 1)]
            array = self._open(file.paths, os.getpid())[which]
            steps = max(1, PART_NUMBERS // math.prod(array.shape[2:]))
            several = max(1, steps // array.shape[1])
            for first in range(0, array.shape[0], several):
                for step in range(0, array.shape[1], steps):
                    with readable(file.paths), np.errstate(over="ignore"):
                        read = array[first : first + several, step : step + steps]
                        part = np.asarray(read, np.float32)
                    if name == "embeddings":
                        require_finite(part, path, "embedding value")
                        yield path, part.reshape(-1, *self.embedding_shape)
                    else:
                        block = (self.spec.action_block, self.spec.num_channels)
                        yield path, self._checked(part.reshape(-1, *block), path, array.dtype)

    def _checked(self, actions: Float32, path: Path, recorded: np.dtype[Any]) -> Float32:
        """Finite and in range; what left the bounds by rounding alone is put on them."""
        require_finite(actions, path, "action value")
        if self.allow_out_of_range:
            return actions
        actions = settled(actions, self.spec, recorded)
        require_in_range(actions, self.spec, path)
        return actions


def _pairs(num_steps: int, horizon: int, longest_goal: int) -> IntArray:
    """Start and goal `[n, 2]` of every transition in a trajectory of `num_steps` states."""
    pairs = [
        (start, goal)
        for start in range(num_steps - horizon)
        for goal in range(start + horizon, min(start + horizon + longest_goal, num_steps))
        for _ in range(longest_goal if goal == start + horizon else 1)
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def open_trajectories(
    folder: Path | str,
    spec: ActionSpec,
    split: str | None = "train",
    *,
    allow_out_of_range: bool = False,
    longest_goal: int = 1,
) -> Trajectories:
    """Open a folder of trajectories: pairs of `.npy`, `.npz`, or HDF5 with a manifest.

    Args:
        folder: Holds files of one format, and perhaps a `manifest.json` (HDF5 must have one).
        spec: What the actions are.
        split: `"train"`, `"validation"` or `"test"` of the manifest, or None for every file. A
            folder without a manifest is all `"train"`.
        allow_out_of_range: Accept actions outside the spec's bounds.
        longest_goal: How many later states serve as goals for each, see `Trajectories`.

    Raises:
        DataError: There are no such files or split, or a file is broken or of a wrong shape.
    """
    folder, layer_normed = Path(folder), None
    name, files = find_trajectory_files(folder)
    manifest = read_manifest(folder)
    if manifest is not None:
        layer_normed = manifest.get("layer_normed")
        listed = set(split_names(manifest, folder, split))
        files = [paths for paths in files if listed & {path.name for path in paths}]
    elif split not in (None, "train") or (name == "h5" and split is not None):
        raise DataError(
            f"{folder / MANIFEST_NAME}: missing, so no file is known to belong to split {split!r}. "
            f"Write one that lists file names by split, or open the folder with split=None"
        )
    if not files:
        raise DataError(f"{folder / MANIFEST_NAME}: split {split!r} lists no trajectory files")
    described = [describe_file(paths, spec) for paths in files]
    return Trajectories(described, spec, layer_normed, allow_out_of_range, longest_goal)
