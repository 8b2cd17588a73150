"""What kind of gesture each block is: where it starts and ends, when, which way; and its sketch.

Positions are scaled so that the spec's bounds are 0 and 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import pressed
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["GESTURE_TYPES", "Gestures", "blocks_of", "find_gestures", "gesture_type"]
__all__ += ["scaled_coordinates", "sketch_of", "sketch_size"]

GESTURE_TYPES = ("click", "horizontal", "vertical", "diagonal", "none")
CLICK_DISTANCE = 0.05  # a press that moves less is a click
DOMINANCE = 2.0  # one axis outweighs the other when it moves more than this many times as far


class Gestures(NamedTuple):
    """One gesture for each of m blocks; C coordinates."""

    start: IntArray
    stop: IntArray
    start_point: FloatArray
    end_point: FloatArray

    @property
    def has_press(self) -> NDArray[np.bool_]:
        """`[m]`, whether anything is pressed."""
        return np.asarray(self.stop > self.start)


def blocks_of(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """`[n, L, A]` as one block a row, `[n * horizon, action_block, A]`."""
    if actions.ndim != 3 or actions.shape[1:] != (spec.length, spec.num_channels):
        raise ActionError(
            f"actions have shape {actions.shape}, expected [n, {spec.length}, {spec.num_channels}]"
        )
    return actions.reshape(-1, spec.action_block, spec.num_channels)


def scaled_coordinates(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """The coordinates of `[..., A]` in float64, scaled from the bounds to [0, 1]: `[..., C]`."""
    index = spec.coordinate_indices
    low, high = spec.low_array[index], spec.high_array[index]
    return np.asarray((actions[..., index].astype(np.float64) - low) / (high - low))


def find_gestures(actions: FloatArray, spec: ActionSpec) -> Gestures:
    """Describe every block of `[n, L, A]`, m = n * horizon of them.

    A block pressed more than once counts from its first pressed step to its last.
    """
    blocks = blocks_of(actions, spec)
    down = pressed(blocks, spec)
    has_press = down.any(axis=1)
    start = np.where(has_press, down.argmax(axis=1), 0)
    stop = np.where(has_press, spec.action_block - down[:, ::-1].argmax(axis=1), 0)
    rows = np.arange(len(blocks))
    start_point = scaled_coordinates(blocks[rows, start], spec)
    end_point = scaled_coordinates(blocks[rows, np.maximum(stop - 1, 0)], spec)
    return Gestures(start, stop, start_point, end_point)


def gesture_type(actions: FloatArray, spec: ActionSpec) -> NDArray[np.str_]:
    """The type of each block of `[n, L, A]`: `[n * horizon]` of `GESTURE_TYPES`.

    `click` if the press moved less than 0.05; else `horizontal` or `vertical` if one axis (the
    first is horizontal) moved more than twice as far as the other, and `diagonal` if neither did;
    `none` without a press.
    """
    if len(spec.coordinate_indices) != 2:
        raise ActionError(
            f"gesture types need two coordinates beside the press; found {list(spec.channels)}"
        )
    gestures = find_gestures(actions, spec)
    move = np.abs(gestures.end_point - gestures.start_point)
    dx, dy = move[:, 0], move[:, 1]
    conditions = [
        ~gestures.has_press,
        np.hypot(dx, dy) < CLICK_DISTANCE,
        dx > DOMINANCE * dy,
        dy > DOMINANCE * dx,
    ]
    return np.select(conditions, ["none", "click", "horizontal", "vertical"], "diagonal")


def sketch_size(spec: ActionSpec) -> int:
    """Numbers in the sketch of one sequence: 6 a block for `(x, y, press)`."""
    if spec.press_channel is None:
        raise ActionError("a sketch describes a press, and these actions have no press_channel")
    return spec.horizon * (2 * len(spec.coordinate_indices) + 2)


def sketch_of(actions: FloatArray, spec: ActionSpec) -> NDArray[np.float32]:
    """Sketch every sequence of `[n, L, A]`: float32 `[n, sketch_size(spec)]`, block by block.

    For each block: the coordinates of the first pressed step, those of the last one (both scaled
    from the bounds to [0, 1]), the press time (first pressed step / T) and the release time (one
    past the last pressed step / T), T being `action_block`. A block without a press is an
    `ActionError`.
    """
    size = sketch_size(spec)
    gestures = find_gestures(actions, spec)
    absent = np.flatnonzero(~gestures.has_press)
    if len(absent):
        sequence, block = divmod(int(absent[0]), spec.horizon)
        raise ActionError(
            f"a sketch describes a press, and block {block} of sequence {sequence} has none "
            f"({len(absent)} of {len(gestures.start)} blocks). Drop these sequences, or train "
            f"without the sketch"
        )
    times = np.stack([gestures.start, gestures.stop], axis=1) / spec.action_block
    sketch = np.concatenate([gestures.start_point, gestures.end_point, times], axis=1)
    clipped: NDArray[np.float32] = np.clip(sketch, 0.0, 1.0).astype(np.float32)
    return clipped.reshape(len(actions), size)
