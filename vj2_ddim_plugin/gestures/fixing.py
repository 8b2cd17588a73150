"""Gestures with given entries: the press is made to agree with them, the path to meet them.

Works on one block a row, `[n, T, A]`, in the planner's units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS
from vj2_ddim_plugin.gestures.segments import longest_segment
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["meet_fixed"]

Mask = NDArray[np.bool_]


def meet_fixed(blocks: FloatArray, fixed: FloatArray, spec: ActionSpec) -> FloatArray:
    """Gestures moved as little as possible so that given entries fit into them.

    The press covers the steps that are given as pressed (or have a given coordinate), keeps out of
    those given as released, and stays of a valid length. The path is moved onto the coordinates
    that are given, by offsets that are linear in time between them. A row where one gesture cannot
    do all of this is left as it was.

    Args:
        blocks: `[n, T, A]` gestures.
        fixed: `[n, T, A]`, NaN where nothing is given.
        spec: What a valid gesture is.

    Returns:
        `[n, T, A]`; the given entries themselves are not written yet.
    """
    met = blocks.copy()
    held = REPRESENTATIONS["held"].encode(blocks, spec)
    starts, stops = longest_segment(spec.pressed(blocks))
    press, axes = fixed[..., spec.press_index], spec.coordinate_indices
    lifted = press <= 0.5
    touched = (press > 0.5) | (~np.isnan(fixed[..., axes]).all(axis=2) & ~lifted)
    steps = np.arange(spec.action_block)
    for row in np.flatnonzero((touched | lifted).any(axis=1)):
        span = _press_span((starts[row], stops[row]), touched[row], lifted[row], spec)
        if span is None:
            continue
        path = held[row].copy()
        for axis in axes:
            given = np.flatnonzero(~np.isnan(fixed[row, :, axis]) & ~lifted[row])
            if len(given):
                offset = fixed[row, given, axis] - path[given, axis]
                path[:, axis] += np.interp(steps, given, offset)
        path = np.clip(path, spec.low_array, spec.high_array)
        path[:, spec.press_index] = (steps >= span[0]) & (steps < span[1])
        met[row] = spec.release(path)
    return met


def _press_span(
    span: tuple[int, int], touched: Mask, lifted: Mask, spec: ActionSpec
) -> tuple[int, int] | None:
    """First step and one past the last of a press that fits, near `span`; None where none does."""
    start, stop = span
    if not touched.any() and stop <= start:
        return 0, 0
    steps = np.arange(len(lifted))
    free_part = ~lifted & (steps >= start) & (steps < stop)
    core = np.flatnonzero(touched if touched.any() else _longest(free_part))
    if len(core) == 0 or lifted[core[0] : core[-1] + 1].any():
        return None
    first, last = int(core[0]), int(core[-1]) + 1
    low = int(np.max(steps[:first][lifted[:first]], initial=-1)) + 1
    high = int(np.min(steps[last:][lifted[last:]], initial=len(lifted)))
    begin = max(min(max(start, low), first), last - spec.longest_press)
    end = min(max(min(stop, high), last), begin + spec.longest_press)
    end = max(end, min(high, begin + spec.min_press_steps))
    begin = min(begin, max(low, end - spec.min_press_steps))
    return (begin, end) if spec.min_press_steps <= end - begin <= spec.longest_press else None


def _longest(steps: Mask) -> Mask:
    """Only the longest run of True."""
    (start,), (stop,) = longest_segment(steps[None])
    clock = np.arange(len(steps))
    return np.asarray((clock >= start) & (clock < stop))
