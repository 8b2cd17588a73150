"""The sketch of a gesture: where and when it starts and ends, six numbers in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.measures.gestures import find_gestures

__all__ = ["sketch_of", "sketch_size"]


def sketch_size(spec: ActionSpec) -> int:
    """Numbers in the sketch of one sequence: 6 a block for `(x, y, press)`.

    Raises:
        ActionError: The actions have no press channel.
    """
    if spec.press_channel is None:
        raise ActionError("a sketch describes a press, and these actions have no press_channel")
    return spec.horizon * (2 * len(spec.coordinate_indices) + 2)


def sketch_of(actions: FloatArray, spec: ActionSpec) -> NDArray[np.float32]:
    """Sketch every sequence.

    For each block: the coordinates of the first pressed step, those of the last one (both scaled
    from the bounds to [0, 1]), the press time (first pressed step / T) and the release time (one
    past the last pressed step / T), T being `action_block`.

    Args:
        actions: `[n, L, A]` in the planner's units.
        spec: What they are.

    Returns:
        float32 `[n, sketch_size(spec)]`, the blocks of one sequence one after another.

    Raises:
        ActionError: A block has no press, or the shape is wrong.
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
