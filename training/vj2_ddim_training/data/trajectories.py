"""Trajectories of embeddings and action blocks, read one transition at a time.

A transition is `(z_t, z_g) -> action blocks t ... t+H-1`, H being the spec's horizon: every
trajectory gives its later states as goals for its earlier ones (hindsight). The nearest goal is
g = t+H, right after the actions; farther ones, up to `longest_goal - 1` steps later, teach first
actions of longer ways. The nearest ones count as often as there are distances.
"""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.arrays import StoredArray, readable
from vj2_ddim_plugin.errors import ConfigError, DataError, escaped
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import (
    fingerprint_files,
    require_finite,
    require_in_range,
    settled,
)
from vj2_ddim_training.data.hdf5 import Hdf5Array
from vj2_ddim_training.data.manifest import choose_files, read_manifest
from vj2_ddim_training.data.trajectory_files import (
    TrajectoryFile,
    describe_file,
    find_trajectory_files,
    write_trajectories_h5,
)

__all__ = ["Trajectories", "open_trajectories", "write_trajectories_h5"]

Float32 = NDArray[np.float32]
MAX_OPEN_FILES, MAX_BYTES_HELD = 64, 2**30
MAX_GOALS = 1_000_000
PART_NUMBERS = 2**22  # in one part of a pass through the files, 16 MiB

logger = logging.getLogger(__name__)


class _OpenFiles:
    """The arrays of files; the least used are closed where 64 files or 1 GiB would be exceeded.

    They are of one process: HDF5's handles must not be shared by two. What makes reading slow is
    said once.
    """

    def __init__(self, files: Sequence[TrajectoryFile]) -> None:
        self._files, self._process = files, os.getpid()
        self._open: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._weight = 0
        self._known: set[int] = set()  # the files that were open before
        self._warned = False

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        """Embeddings and actions of a file, indexed like numpy arrays."""
        if self._process != os.getpid():
            self._process, self._weight = os.getpid(), 0
            self._open.clear()
        if number not in self._open:
            file = self._files[number]
            self._warn_if_slow(file, number in self._known)
            self._open[number] = file.embeddings.open(), file.actions.open()
            self._known.add(number)
            self._weight += _weight(file)
            while self._weight > MAX_BYTES_HELD and len(self._open) > 1:
                closed, _ = self._open.popitem(last=False)
                self._weight -= _weight(self._files[closed])
        self._open.move_to_end(number)
        return self._open[number]

    def _warn_if_slow(self, file: TrajectoryFile, again: bool) -> None:
        both = (file.embeddings, file.actions)
        slow = any(
            array.slow if isinstance(array, Hdf5Array) else again and array.compressed
            for array in both
        )
        if slow and not self._warned:
            self._warned = True
            logger.warning(
                "%s: is compressed, and large parts of it or the whole file are read again and "
                "again, for there is more than the %d MiB that are held. Use `vj2-ddim data "
                "convert`: of what it writes single steps are read",
                escaped(str(file.paths[0])),
                MAX_BYTES_HELD // 2**20,
            )


def _weight(file: TrajectoryFile) -> int:
    """Bytes that an open file holds in memory; a handle counts as the most files have room."""
    both = (file.embeddings, file.actions)
    loaded = sum(
        array.nbytes for array in both if isinstance(array, StoredArray) and array.compressed
    )
    return loaded or MAX_BYTES_HELD // MAX_OPEN_FILES


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
        if not 1 <= longest_goal <= MAX_GOALS:
            raise ConfigError(f"longest_goal must be 1 to {MAX_GOALS}; found {longest_goal}")
        self._longest_goal = longest_goal
        lengths = {file.num_steps for file in self.files}
        self._pairs_before = {steps: self._count_pairs(steps) for steps in lengths}
        counts = [
            file.num_trajectories * int(self._pairs_before[file.num_steps][-1])
            for file in self.files
        ]
        if longest_goal > (most := max(max(lengths) - spec.horizon, 1)):
            logger.warning(
                "longest_goal=%d, but no trajectory has more than %d later states to be goals "
                "(%d states, horizon %d); farther ones there are none",
                longest_goal, most, max(lengths), spec.horizon,
            )  # fmt: skip
        self._offsets: IntArray = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._open = _OpenFiles(self.files)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open files."""
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Files are opened anew."""
        vars(self).update(state)
        self._open = _OpenFiles(self.files)

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
            open_embeddings, blocks = self._open[number]
            of = self._transitions(file.num_steps, chosen[rows] - self._offsets[number])
            with readable(file.paths[0], DataError), np.errstate(over="ignore"):
                for row, (i, t, g) in zip(rows, of.tolist(), strict=True):
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
        for number, file in enumerate(self.files):
            array = self._open[number][name == "actions"]
            path = file.paths[0 if name == "embeddings" else -1]
            steps = max(1, PART_NUMBERS // math.prod(array.shape[2:]))
            several = max(1, steps // array.shape[1])
            for first in range(0, array.shape[0], several):
                for step in range(0, array.shape[1], steps):
                    with readable(path, DataError), np.errstate(over="ignore"):
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

    def _count_pairs(self, num_steps: int) -> IntArray:
        """How many pairs of start and goal come before each start, and how many there are."""
        goals = num_steps - self.spec.horizon - np.arange(max(num_steps - self.spec.horizon, 0))
        counts = np.minimum(goals, self._longest_goal) + self._longest_goal - 1
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def _transitions(self, num_steps: int, numbers: IntArray) -> IntArray:
        """Trajectory, start and goal `[b, 3]` of a file's transitions, by their number in it."""
        before = self._pairs_before[num_steps]
        trajectories, pairs = np.divmod(numbers, before[-1])
        starts = np.searchsorted(before, pairs, side="right") - 1
        farther = np.maximum(pairs - before[starts] - self._longest_goal + 1, 0)
        return np.stack([trajectories, starts, starts + self.spec.horizon + farther], axis=1)


def open_trajectories(
    folder: Path | str,
    spec: ActionSpec,
    split: str | None = "train",
    *,
    allow_out_of_range: bool = False,
    longest_goal: int = 1,
) -> Trajectories:
    """Open a folder of trajectories: pairs of `.npy`, `.npz`, or HDF5.

    Args:
        folder: Holds files of one format, and perhaps a `manifest.json` with its splits.
        spec: What the actions are.
        split: `"train"`, `"validation"` or `"test"` of the manifest, or None for every file. A
            folder without a manifest belongs whole to what it is given for.
        allow_out_of_range: Accept actions outside the spec's bounds.
        longest_goal: How many later states serve as goals for each, see `Trajectories`.

    Raises:
        DataError: There are no such files or split, a split leaks into another, or a file is
            broken or of a wrong shape.
    """
    folder, layer_normed = Path(folder), None
    _, files = find_trajectory_files(folder)
    manifest = read_manifest(folder)
    if manifest is not None:
        layer_normed = manifest.get("layer_normed")
        files = choose_files(manifest, folder, files, split)
    described = [describe_file(paths, spec) for paths in files]
    return Trajectories(described, spec, layer_normed, allow_out_of_range, longest_goal)
