"""A gesture in eight numbers, and the gesture again: enough to draw it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_benchmark.world.scripts import drag
from vj2_ddim_benchmark.world.touch import NUM_STEPS, PAGE, gesture_path
from vj2_ddim_plugin.errors import DataError

__all__ = ["from_stroke", "to_stroke"]


def to_stroke(action: ArrayLike) -> list[float]:
    """Put one action block in few words.

    Args:
        action: `[250, 3]` of x, y, press in [0, 1].

    Returns:
        The first step with the finger down and how many it is down; then x and y of the start, of
        the place where the finger is at half time, and of the end, in [0, 1]. Empty without a
        press.

    Raises:
        ActionError: The action is not an array of numbers of that shape.
    """
    path = gesture_path(action) / PAGE
    if not len(path):
        return []
    block = np.asarray(action, float)
    first = ((block[:, 2] > 0.5) & ~np.isnan(block[:, :2]).any(axis=1)).argmax()
    via = path[[(len(path) - 1) // 2, len(path) // 2]].mean(axis=0)
    return [float(first), float(len(path)), *path[0].tolist(), *via.tolist(), *path[-1].tolist()]


def from_stroke(stroke: list[float]) -> NDArray[np.float32]:
    """The action block `[250, 3]` of a stroke: two straight lines, each at constant speed.

    Raises:
        ActionError: The press does not fit its block.
        DataError: There are not eight numbers, nor none.
    """
    if not stroke:
        return np.zeros((NUM_STEPS, 3), np.float32)
    if len(stroke) != 8:
        raise DataError(f"a stroke has eight numbers, or none; found {len(stroke)}")
    first, num_steps, x0, y0, via_x, via_y, x1, y1 = stroke
    blocks = drag(x0, y0, x1, y1, int(first), int(num_steps), via=(via_x, via_y))
    return np.asarray(blocks[0])
