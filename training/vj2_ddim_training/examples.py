"""Training examples: the diffused array and its condition, from any of the data formats."""

import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError, DataError
from vj2_ddim_plugin.gestures import PATH_TOLERANCE, decode, encode, is_valid, pressed
from vj2_ddim_plugin.gestures.segments import count_segments, longest_segment
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.trajectories import Trajectories, open_trajectories
from vj2_ddim_training.gestures import sketch_of

__all__ = ["Batch", "Examples", "GestureExamples", "IndexArray", "infer_action_spec"]
__all__ += ["open_examples"]

IndexArray = NDArray[np.int64]
KNOT_CHOICES = (2, 3, 5, 9)
MOST_BYTES_IN_MEMORY = 2**30

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
    data_fingerprint: str
    layer_normed: bool | None  # whether the latents were; None where nobody recorded it

    def __len__(self) -> int:
        """Number of examples."""

    def batch(self, indices: IndexArray) -> Batch:
        """The examples at these indices."""

    def names(self, indices: IndexArray) -> list[str]:
        """What an error calls them, with their files where these are known."""


class GestureExamples:
    """Gestures in memory, unconditional or with their sketch."""

    layer_normed: bool | None = None  # there are no latents

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

    def names(self, indices: IndexArray) -> list[str]:
        """Their numbers."""
        return [str(index) for index in indices]


class TransitionExamples:
    """Transitions `(z_t, z_goal) -> action`: every one is its own goal (hindsight)."""

    def __init__(self, trajectories: Trajectories, action_spec: ActionSpec) -> None:
        self._trajectories, self.action_spec = trajectories, action_spec
        self.data_fingerprint = trajectories.data_fingerprint
        self.layer_normed = trajectories.layer_normed
        shape = trajectories.embedding_shape
        self.input_shapes: dict[str, tuple[int, ...]] = {"state": shape, "goal": shape}
        self._kept: Batch | None = None
        if len(trajectories) * 2 * math.prod(shape) * 4 <= MOST_BYTES_IN_MEMORY:
            self._kept = self._read(np.arange(len(trajectories)))

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

    def names(self, indices: IndexArray) -> list[str]:
        """Their numbers and files."""
        return [f"{row} ({self._trajectories.file_of(row).name})" for row in indices]

    def _read(self, indices: IndexArray) -> Batch:
        state, goal, actions = self._trajectories.gather(indices)
        return Batch(actions, encode(actions, self.action_spec), {"state": state, "goal": goal})


def infer_action_spec(actions: FloatArray, representation: str, template: ActionSpec) -> ActionSpec:
    """The template with what actions `[n, L, A]` keep: press lengths, knots and representation.

    `auto` is the best representation that inverts exactly: `path` for straight and piecewise linear
    gestures, else `held`, else `raw`. One that cannot hold these actions is an `ActionError`.
    """
    if template.press_channel is None:
        return replace(template, representation="raw", path_knots=None)
    blocks = actions.reshape(-1, template.action_block, template.num_channels)
    down = pressed(blocks, template)
    start, stop = longest_segment(down)
    lengths = stop - start
    shortest, longest = int(lengths.min()), max(int(lengths.max()), 1)
    with_settings = partial(replace, template, min_press_steps=shortest, max_press_steps=longest)
    segments = count_segments(down)
    for knots in KNOT_CHOICES if (segments == 1).all() else ():
        if lengths.min() < knots:
            break
        spec = with_settings(representation="path", path_knots=knots)
        if is_valid(actions, spec).all():
            chosen = "path" if representation == "auto" else representation
            return with_settings(representation=chosen, path_knots=knots)
    if representation == "path":
        raise ActionError(
            f"representation 'path' cannot hold these actions exactly: their paths are not "
            f"piecewise linear between up to {KNOT_CHOICES[-1]} knots, or a block has more or "
            f"fewer than one press. Use representation 'auto' or 'held'"
        )
    held = with_settings(representation="held", path_knots=None)
    drift = np.abs(decode(encode(actions, held), held) - actions)
    inverts = (drift / (held.high_array - held.low_array)).max() <= PATH_TOLERANCE
    if representation == "held" and not inverts:
        raise ActionError(
            "representation 'held' cannot hold these actions exactly: a block has several presses, "
            "or values other than 0 where the finger is up. Use representation 'auto' or 'raw'"
        )
    if representation == "auto":
        representation = "held" if inverts else "raw"
    return with_settings(representation=representation, path_knots=None)


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
