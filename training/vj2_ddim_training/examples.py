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
from vj2_ddim_training.data.trajectories import Trajectories, open_trajectories
from vj2_ddim_training.gestures import sketch_of

__all__ = ["Batch", "Examples", "GestureExamples", "IndexArray", "action_parts"]
__all__ += ["open_examples", "spread_rows"]

IndexArray = NDArray[np.int64]
PART_SEQUENCES = 1024  # looked at at once
MOST_BYTES_IN_MEMORY = 2**30
MOST_MEASURED, MEASURED_AT_ONCE = 2**13, 2**5  # transitions whose latents give the statistics

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

    @property
    def data_fingerprint(self) -> str:
        """Names the exact data."""

    def __len__(self) -> int:
        """Number of examples."""

    def batch(self, indices: IndexArray) -> Batch:
        """The examples at these indices."""

    def latents(self) -> Iterator[FloatArray]:
        """The latents `[n, N, D]` that statistics are of, each once and a part at a time."""

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
        self.actions = actions
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

    def names(self, indices: IndexArray) -> list[str]:
        """Their numbers."""
        return [str(index) for index in indices]


class TransitionExamples:
    """Transitions `(z_t, z_goal) -> action`: every one is its own goal (hindsight)."""

    def __init__(self, trajectories: Trajectories, action_spec: ActionSpec) -> None:
        self._trajectories, self.action_spec = trajectories, action_spec
        self.layer_normed = trajectories.layer_normed
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
        """All that are in the files; of very many transitions, the states of some, evenly spread."""
        if self.in_memory or len(self) <= MOST_MEASURED:
            return (part for _, part in self._trajectories.parts("embeddings"))
        rows = spread_rows(len(self), MOST_MEASURED).reshape(-1, MEASURED_AT_ONCE)
        return (self._trajectories.gather(part)[0] for part in rows)

    def names(self, indices: IndexArray) -> list[str]:
        """Their numbers and files."""
        return [f"{row} ({self._trajectories.file_of(row).name})" for row in indices]

    def _read(self, indices: IndexArray) -> Batch:
        state, goal, actions = self._trajectories.gather(indices)
        try:
            original = encode(actions, self.action_spec)
        except ActionError as error:
            names = sorted({self._trajectories.file_of(row).name for row in indices.tolist()})
            raise DataError(f"{names[0]}{' or later' if names[1:] else ''}: {error}") from error
        return Batch(actions, original, {"state": state, "goal": goal})


def action_parts(
    folder: Path | str, spec: ActionSpec, condition: str, split: str = "train"
) -> Iterator[tuple[str, FloatArray]]:
    """All actions `[n, L or action_block, A]` of a data folder, a part at a time; and their file.

    For `open_examples`' arguments of these names.
    """
    if condition == "latents":
        for path, blocks in open_trajectories(folder, spec, split).parts("actions"):
            yield path.name, blocks
        return
    flat = read_flat_actions(folder, spec).actions
    for first in range(0, len(flat), PART_SEQUENCES):
        yield Path(folder).name, flat[first : first + PART_SEQUENCES]


def open_examples(
    folder: Path | str,
    spec: ActionSpec,
    condition: str,
    split: str = "train",
    longest_goal: int = 1,
) -> Examples:
    """Open a data folder for training; what was left out of it is logged as a warning.

    Args:
        folder: Flat `*_actions.npy` files for `none` and `sketch`; trajectories for `latents`.
        spec: What the actions are.
        condition: `none`, `sketch` or `latents`.
        split: Which split of a folder with a manifest.
        longest_goal: How many later states serve as goals for each, for `latents`.

    Raises:
        DataError: The folder cannot be read; the message names the file.
    """
    if condition == "latents":
        trajectories = open_trajectories(folder, spec, split, longest_goal=longest_goal)
        return TransitionExamples(trajectories, spec)
    flat = read_flat_actions(folder, spec)
    for fault in flat.faults:
        logger.warning("%s: %s", folder, fault)
    try:
        return GestureExamples(flat.actions, spec, condition, flat.data_fingerprint)
    except ActionError as error:
        raise DataError(f"{folder}: {error}") from error
