"""Training examples: the diffused array and its condition, from any of the data formats."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError, DataError
from vj2_ddim_plugin.gestures import encode
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.settings import READ_ALL, ReadingSettings
from vj2_ddim_training.data.sound import naming_the_way_out
from vj2_ddim_training.data.trajectories import Trajectories, open_trajectories
from vj2_ddim_training.gestures import sketch_of

__all__ = ["Batch", "Examples", "GestureExamples", "IndexArray", "action_parts"]
__all__ += ["TransitionExamples", "open_examples", "require_same_norm", "spread_rows"]

IndexArray = NDArray[np.int64]
PART_SEQUENCES = 1024  # looked at at once
MOST_BYTES_IN_MEMORY = 2**28
MOST_NUMBERS = 2**31  # of latents that statistics are taken of; 8,192 states of V-JEPA 2

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Examples: actions `[B, L, A]`, x_0 `[B, M, C]`, and condition inputs `[B, ...]`."""

    actions: FloatArray
    original: FloatArray
    inputs: dict[str, FloatArray]


class Examples(Protocol):
    """A data set that can be asked for any rows."""

    action_spec: ActionSpec
    input_shapes: dict[str, tuple[int, ...]]  # of each condition input without its batch axis
    in_memory: bool  # whether reading costs nothing
    layer_normed: bool | None  # whether the latents were; None where nobody recorded it
    skipped: dict[str, str]  # broken files that were left out, and why

    @property
    def data_fingerprint(self) -> str:
        """Names the exact data."""

    def __len__(self) -> int:
        """Number of examples."""

    def batch(self, indices: IndexArray) -> Batch:
        """The examples at these indices."""

    def latents(self) -> Iterator[FloatArray]:
        """Latents `[n, N, D]` for statistics: each once, or, of very many, evenly spread ones."""

    def some_actions(self, most: int) -> FloatArray:
        """Actions `[n, L, A]` of all the data; where they are read from files, `most` of them."""

    def names(self, indices: IndexArray) -> list[str]:
        """What an error calls them, with their files where these are known."""


def spread_rows(total: int, most: int) -> IndexArray:
    """At most so many of `total` rows, evenly spread: the first rows of sorted files are alike."""
    return np.arange(total) if total <= most else np.arange(most) * total // most


class GestureExamples:
    """Gestures in memory, unconditional or with their sketch."""

    layer_normed: bool | None = None  # there are no latents
    in_memory = True

    def __init__(
        self, actions: FloatArray, action_spec: ActionSpec, condition: str, data_fingerprint: str
    ) -> None:
        self.action_spec, self.data_fingerprint = action_spec, data_fingerprint
        self.actions, self.skipped = actions, dict[str, str]()
        self._original = encode(actions, action_spec)
        self._inputs: dict[str, FloatArray] = {}
        if condition == "sketch":
            self._inputs["sketch"] = sketch_of(actions, action_spec)
        self.input_shapes = {name: array.shape[1:] for name, array in self._inputs.items()}

    def __len__(self) -> int:
        """Number of gestures."""
        return len(self.actions)

    def batch(self, indices: IndexArray) -> Batch:
        """The gestures at these indices."""
        inputs = {name: array[indices] for name, array in self._inputs.items()}
        return Batch(self.actions[indices], self._original[indices], inputs)

    def latents(self) -> Iterator[FloatArray]:
        """There are none."""
        return iter(())

    def some_actions(self, most: int) -> FloatArray:
        """All, for they are in memory."""
        return self.actions

    def names(self, indices: IndexArray) -> list[str]:
        """Their numbers."""
        return [str(index) for index in indices]


class TransitionExamples:
    """Transitions `(z_t, z_goal) -> action`: every one is its own goal (hindsight)."""

    def __init__(
        self,
        trajectories: Trajectories,
        action_spec: ActionSpec,
        reading: ReadingSettings = READ_ALL,
    ) -> None:
        self._trajectories, self.action_spec, self._reading = trajectories, action_spec, reading
        self.layer_normed, self.skipped = trajectories.layer_normed, trajectories.skipped
        shape = trajectories.embedding_shape
        self.input_shapes: dict[str, tuple[int, ...]] = {"state": shape, "goal": shape}
        self._kept: Batch | None = None
        self.in_memory = len(trajectories) * 2 * math.prod(shape) * 4 <= MOST_BYTES_IN_MEMORY
        if self.in_memory:
            self._kept = self._read(np.arange(len(trajectories)))

    @property
    def data_fingerprint(self) -> str:
        """Names the exact files; reads all of them the first time."""
        return self._trajectories.data_fingerprint

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self._trajectories)

    def batch(self, indices: IndexArray) -> Batch:
        """The transitions at these indices."""
        if self._kept is None:
            return self._read(indices)
        actions, original, inputs = self._kept
        kept = {name: array[indices] for name, array in inputs.items()}
        return Batch(actions[indices], original[indices], kept)

    def latents(self) -> Iterator[FloatArray]:
        """All that are in the files, or so many that they hold `MOST_NUMBERS`."""
        most = max(1, MOST_NUMBERS // math.prod(self._trajectories.embedding_shape))
        with naming_the_way_out(self._reading):
            yield from (part for _, part in self._trajectories.parts("embeddings", most))

    def some_actions(self, most: int) -> FloatArray:
        """As many, drawn without their latents."""
        total = len(self._trajectories)
        chosen = np.random.default_rng(0).choice(total, min(most, total), replace=False)
        return self._trajectories.gather_actions(np.sort(chosen))

    def goal_steps(self, indices: IndexArray) -> IndexArray:
        """How many world-model steps away the goal of each is."""
        return self._trajectories.goal_steps(indices)

    def names(self, indices: IndexArray) -> list[str]:
        """Their numbers and files."""
        return [f"{row} ({self._trajectories.file_of(row).name})" for row in indices]

    def _read(self, indices: IndexArray) -> Batch:
        with naming_the_way_out(self._reading):
            state, goal, actions = self._trajectories.gather(indices)
        try:
            original = encode(actions, self.action_spec)
        except ActionError as error:
            names = sorted({self._trajectories.file_of(row).name for row in indices.tolist()})
            raise DataError(f"{names[0]}{' or later' if names[1:] else ''}: {error}") from error
        return Batch(actions, original, {"state": state, "goal": goal})


def action_parts(
    folder: Path | str,
    spec: ActionSpec,
    condition: str,
    split: str = "train",
    reading: ReadingSettings = READ_ALL,
) -> Iterator[tuple[str, FloatArray]]:
    """All actions `[n, L or action_block, A]` of a data folder, a part at a time; and their file.

    For `open_examples`' arguments of these names.
    """
    if condition == "latents":
        trajectories = open_trajectories(folder, spec, split, reading)
        with naming_the_way_out(reading):
            yield from ((path.name, blocks) for path, blocks in trajectories.parts("actions"))
        return
    flat = read_flat_actions(folder, spec, split, reading).actions
    for first in range(0, len(flat), PART_SEQUENCES):
        yield Path(folder).name, flat[first : first + PART_SEQUENCES]


def open_examples(
    folder: Path | str,
    spec: ActionSpec,
    condition: str,
    split: str = "train",
    longest_goal: int = 1,
    reading: ReadingSettings = READ_ALL,
) -> Examples:
    """Open a data folder for training; what was left out of it is logged as a warning.

    Args:
        folder: Flat `*_actions.npy` files for `none` and `sketch`; trajectories for `latents`.
        spec: What the actions are.
        condition: `none`, `sketch` or `latents`.
        split: Which split of a folder with a manifest.
        longest_goal: How many later states serve as goals for each, for `latents`.
        reading: Another manifest, and whether broken files are left out.

    Raises:
        DataError: The folder cannot be read; the message names the file.
    """
    if condition == "latents":
        found = open_trajectories(folder, spec, split, reading, longest_goal=longest_goal)
        return TransitionExamples(found, spec, reading)
    flat = read_flat_actions(folder, spec, split, reading)
    for fault in flat.faults:
        logger.warning("%s: %s", folder, fault)
    try:
        examples = GestureExamples(flat.actions, spec, condition, flat.data_fingerprint)
    except ActionError as error:
        raise DataError(f"{folder}: {error}") from error
    examples.skipped = flat.skipped
    return examples


def require_same_norm(recorded: bool | None, examples: Examples, where: object) -> None:
    """Refuse latents of which it is recorded that they are not normed as those of training."""
    if None not in (recorded, examples.layer_normed) and recorded != examples.layer_normed:
        raise DataError(
            f"{where}: the manifest says layer_normed {examples.layer_normed}, and of the data "
            f"that the model learns from it was recorded as {recorded}. Use latents that were made "
            f"alike, or correct the manifest"
        )
