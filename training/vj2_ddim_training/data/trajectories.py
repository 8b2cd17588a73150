"""Trajectories of embeddings and action blocks, read one transition at a time.

A transition is `(z_t, z_g) -> action blocks t ... t+H-1`, H being the spec's horizon: every
trajectory gives its later states as goals for its earlier ones (hindsight). The nearest goal is
g = t+H, right after the actions; farther ones, up to `longest_goal - 1` steps later, teach first
actions of longer ways. The nearest ones count as often as there are distances.
"""

import logging
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.arrays import StoredArray, readable, stamp_of
from vj2_ddim_plugin.errors import ConfigError, DataError, escaped
from vj2_ddim_plugin.gestures import outside_bounds
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import (
    fingerprint_files,
    require_finite,
    require_in_range,
    settled,
)
from vj2_ddim_training.data.hdf5 import Hdf5Array, Layout
from vj2_ddim_training.data.manifest import choose_files, read_manifest
from vj2_ddim_training.data.settings import READ_ALL, ReadingSettings
from vj2_ddim_training.data.sound import keep_sound, report_skipped
from vj2_ddim_training.data.steps import Steps
from vj2_ddim_training.data.trajectory_files import (
    TrajectoryFile,
    describe_file,
    find_trajectory_files,
    write_trajectories_h5,
)

__all__ = ["Trajectories", "open_trajectories", "write_trajectories_h5"]

Float32 = NDArray[np.float32]
Version = tuple[tuple[int, int, int], ...]  # inode, bytes and time of change, of each path
Layouts = tuple[Layout | None, Layout | None]  # of embeddings and actions
MAX_OPEN_FILES, MAX_BYTES_HELD = 128, 2**28
MAX_GOALS = 1_000_000

logger = logging.getLogger(__name__)


class _OpenFiles:
    """The arrays of files; the least used are closed where 128 or 256 MiB would be exceeded.

    They are of one process: HDF5's handles must not be shared by two. What makes reading slow is
    said once.
    """

    def __init__(self, files: Sequence[TrajectoryFile]) -> None:
        self._files, self._process = files, os.getpid()
        self._open: OrderedDict[int, tuple[Steps, Steps]] = OrderedDict()
        self._weight = 0
        self._known: dict[int, tuple[Version, Layouts]] = {}  # of files that were open before
        self._warned = False

    def __getitem__(self, number: int) -> tuple[Steps, Steps]:
        """Embeddings and actions of a file."""
        if self._process != os.getpid():
            self._process, self._weight = os.getpid(), 0
            self._open.clear()
        if number not in self._open:
            file = self._files[number]
            self._warn_if_slow(file, number in self._known)
            with readable(file.paths[0], DataError):
                self._open[number] = self._opened(number)
            self._weight += _weight(file)
            while self._weight > MAX_BYTES_HELD and len(self._open) > 1:
                closed, _ = self._open.popitem(last=False)
                self._weight -= _weight(self._files[closed])
        self._open.move_to_end(number)
        return self._open[number]

    def _opened(self, number: int) -> tuple[Steps, Steps]:
        """A file's arrays. Where their steps lie is asked once, while the file stays as it is."""
        file = self._files[number]
        version = tuple((path.stat().st_ino, *stamp_of(path)) for path in file.paths)
        before, layouts = self._known.get(number, (version, (None, None)))
        in_embeddings, in_actions = layouts if before == version else (None, None)
        found = Steps(file.embeddings, in_embeddings), Steps(file.actions, in_actions)
        self._known[number] = version, (found[0].layout, found[1].layout)
        return found

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
    loaded = sum(each.nbytes for each in both if isinstance(each, StoredArray) and each.compressed)
    cached = sum(each.chunk_bytes for each in both if isinstance(each, Hdf5Array))
    return loaded or max(cached, MAX_BYTES_HELD // MAX_OPEN_FILES)


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
        longest_goal: int = 1,
    ) -> None:
        self.files, self.spec = tuple(files), spec
        self.skipped: dict[str, str] = {}  # broken files that were left out, and why
        self.layer_normed = layer_normed
        self.embedding_shape = self.files[0].embedding_shape
        for file in self.files:
            if file.embedding_shape != self.embedding_shape:
                where = self.files[0].paths[0].name
                raise DataError(_other_shape(file, self.embedding_shape, where))
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
        num = len(chosen)
        states = np.empty((2 * num, *self.embedding_shape), np.float32)  # then the goals
        actions = np.empty((num, self.spec.length, self.spec.num_channels), np.float32)
        for rows, number, of in self._by_file(chosen):
            file, (embeddings, blocks) = self.files[number], self._open[number]
            both = of[:, :1] * file.num_steps + of[:, 1:]  # one after the other: a chunk holds both
            with readable(file.paths[0], DataError), np.errstate(over="ignore"):
                embeddings.read(both.ravel(), states, np.stack([rows, num + rows], 1).ravel())
            actions[rows] = self._read_actions(blocks, of, file)
        if not _sound(states):
            for rows, number, _ in self._by_file(chosen):
                found = states[np.concatenate([rows, num + rows])]
                require_finite(found, self.files[number].paths[0], "embedding value")
        self._check_actions(actions, chosen)
        return states[:num], states[num:], actions

    def goal_steps(self, indices: Sequence[int] | IntArray) -> NDArray[np.int64]:
        """How many world-model steps after its state the goal of each transition is, `[b]`."""
        chosen = np.asarray(indices, dtype=np.int64)
        found = np.empty(len(chosen), np.int64)
        for rows, _, of in self._by_file(chosen):
            found[rows] = of[:, 2] - of[:, 1]
        return found

    def gather_actions(self, indices: Sequence[int] | IntArray) -> Float32:
        """The actions `[b, L, A]` of some transitions, without their latents."""
        chosen = np.asarray(indices, dtype=np.int64)
        found = np.empty((len(chosen), self.spec.length, self.spec.num_channels), np.float32)
        for rows, number, of in self._by_file(chosen):
            found[rows] = self._read_actions(self._open[number][1], of, self.files[number])
        self._check_actions(found, chosen)
        return found

    def _by_file(self, chosen: IntArray) -> Iterator[tuple[IntArray, int, IntArray]]:
        """By file: rows of `chosen`, its number, and their trajectory, start and goal `[b, 3]`."""
        numbers = np.searchsorted(self._offsets, chosen, side="right") - 1
        for number in np.unique(numbers):
            rows = np.flatnonzero(numbers == number)
            within = chosen[rows] - self._offsets[number]
            yield rows, number, self._transitions(self.files[number].num_steps, within)

    def _read_actions(self, blocks: Steps, of: IntArray, file: TrajectoryFile) -> Float32:
        horizon = np.arange(self.spec.horizon)
        steps = of[:, :1] * (file.num_steps - 1) + of[:, 1:2] + horizon
        found = np.empty((steps.size, self.spec.action_block, self.spec.num_channels), np.float32)
        with readable(file.paths[-1], DataError), np.errstate(over="ignore"):
            blocks.read(steps.ravel(), found)
        actions = found.reshape(len(of), self.spec.length, self.spec.num_channels)
        return settled(actions, self.spec, blocks.array.dtype)

    def _check_actions(self, actions: Float32, chosen: IntArray) -> None:
        """Raise unless all are finite and in range: of all at once, then by file."""
        if not _sound(actions) or outside_bounds(actions, self.spec, released_is_zero=True).any():
            for rows, number, _ in self._by_file(chosen):
                self._checked(actions[rows], self.files[number].paths[-1], actions.dtype)

    def parts(self, name: str, most: int | None = None) -> Iterator[tuple[Path, Float32]]:
        """All `embeddings` `[n, N, D]` or all `actions` `[n, action_block, A]`, each of them once.

        Where there are more than `most`, those that are evenly spread over all. Yields a bounded
        part at a time, in order, with the file that it is from. Raises as `gather` does.
        """
        step, skipped = 1, 0
        if most is not None:
            arrays = [
                file.embeddings if name == "embeddings" else file.actions for file in self.files
            ]
            step = -(-sum(math.prod(array.shape[:2]) for array in arrays) // most)
        for number, file in enumerate(self.files):
            steps = self._open[number][name == "actions"]
            path = file.paths[0 if name == "embeddings" else -1]
            block = (self.spec.action_block, self.spec.num_channels)
            shape = self.embedding_shape if name == "embeddings" else block
            chosen = np.arange(skipped, math.prod(steps.array.shape[:2]), step)
            skipped = (skipped - math.prod(steps.array.shape[:2])) % step
            for part in steps.parts(shape, chosen):
                if name == "actions":
                    part = self._checked(part, path, steps.array.dtype)
                elif not _sound(part):
                    require_finite(part, path, "embedding value")
                yield path, part

    def _checked(self, actions: Float32, path: Path, recorded: np.dtype[Any]) -> Float32:
        """Finite and in range; what left the bounds by rounding alone is put on them."""
        require_finite(actions, path, "action value")
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


def _sound(numbers: Float32) -> bool:
    """Whether all are finite, told by their sum; False may be a sum that is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(numbers.sum()))


def open_trajectories(
    folder: Path | str,
    spec: ActionSpec,
    split: str | None = "train",
    reading: ReadingSettings = READ_ALL,
    *,
    longest_goal: int = 1,
) -> Trajectories:
    """Open a folder of trajectories: pairs of `.npy`, `.npz`, or HDF5.

    Args:
        folder: Holds files of one format, and perhaps a `manifest.json` with its splits.
        spec: What the actions are.
        split: `"train"`, `"validation"` or `"test"` of the manifest, or None for every file. A
            folder without a manifest belongs whole to what it is given for.
        reading: Another manifest, and whether broken files are left out: then every number is
            looked at first.
        longest_goal: How many later states serve as goals for each, see `Trajectories`.

    Raises:
        DataError: There are no such files or split, a split leaks into another, or a file is
            broken or of a wrong shape.
    """
    folder, skip = Path(folder), reading.skip_broken
    _, files = find_trajectory_files(folder)
    manifest = read_manifest(folder, reading.manifest)
    files = choose_files(manifest, folder, files, split)

    def check(paths: tuple[Path, ...]) -> TrajectoryFile:
        described = describe_file(paths, spec)
        if skip:
            _look_at_all(described, spec)
        return described

    sound, skipped = keep_sound(files, check, reading)
    if skip and sound:  # a file of another shape is the broken one where most have this one
        skipped |= _of_other_shapes(sound)
        sound = [file for file in sound if file.paths[0].name not in skipped]
    report_skipped(folder, skipped, len(files))
    normed = None if manifest is None else manifest.layer_normed
    data = Trajectories(sound, spec, normed, longest_goal)
    data.skipped = skipped
    return data


def _other_shape(file: TrajectoryFile, shape: tuple[int, int], where: str = "other files") -> str:
    return (
        f"{file.paths[0]}: embeddings are {file.embedding_shape} (N, D), but {shape} in {where}; "
        f"keep them in different folders"
    )


def _of_other_shapes(files: Sequence[TrajectoryFile]) -> dict[str, str]:
    """The files that are not of the shape that most have, and why they are broken."""
    shape, _ = Counter(file.embedding_shape for file in files).most_common(1)[0]
    others = [file for file in files if file.embedding_shape != shape]
    return {file.paths[0].name: _other_shape(file, shape) for file in others}


_FAULTS: dict[tuple[Any, ...], str] = {}  # of files that were looked at, which takes long


def _look_at_all(file: TrajectoryFile, spec: ActionSpec) -> None:
    """Raise what reading any of a file would; once for as long as it is not changed."""
    stamps = [(path, *stamp_of(path)) for path in file.paths]
    key = (*stamps, spec.action_block, spec.action_low, spec.action_high)
    if key not in _FAULTS:
        data, _FAULTS[key] = Trajectories([file], spec), ""
        try:
            for name in ("actions", "embeddings"):
                for _ in data.parts(name):
                    pass
        except DataError as error:
            _FAULTS[key] = str(error)
    if fault := _FAULTS[key]:
        raise DataError(fault)
