"""Replanning while executing: the first actions of a plan were already sent, the rest goes on.

Works on one block a row, `[n, T, A]`, in the planner's units.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS
from vj2_ddim_plugin.gestures.segments import IntArray, longest_segment
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["continue_blocks"]


def continue_blocks(blocks: FloatArray, frozen: FloatArray, spec: ActionSpec) -> FloatArray:
    """Blocks that begin with `frozen` and go on as `blocks` would, without a jump.

    For touches there are three cases. If the finger has not come down yet, the gesture begins no
    earlier than now; one that would no longer fit is left out. If it came down and up again, the
    block's one gesture is over, and the rest is released. If it is down, it moves from where it is:
    the sampled path, plus what separates it from the finger, fading to nothing at its end. A finger
    that is out of bounds is lifted.

    Args:
        blocks: `[n, T, A]` valid gestures (or any actions, when the spec has no press channel).
        frozen: `[n, m, A]` with m <= T, the actions already sent.
        spec: What a valid gesture is.

    Returns:
        `[n, T, A]`.
    """
    sent = frozen.shape[1]
    continued = blocks.copy()
    if spec.press_channel is not None and 0 < sent < spec.action_block:
        continued = _continue_gestures(blocks, frozen, spec)
    continued[:, :sent] = frozen
    return continued


def _continue_gestures(blocks: FloatArray, frozen: FloatArray, spec: ActionSpec) -> FloatArray:
    sent, steps = frozen.shape[1], np.arange(spec.action_block)
    began, ended = longest_segment(spec.pressed(frozen))
    down = (ended > began) & (ended == sent)
    start, stop = longest_segment(spec.pressed(blocks))
    held = REPRESENTATIONS["held"].encode(blocks, spec)
    # still up: as sampled, but not before now; over, or too late for a gesture: released
    delayed = np.maximum(start, sent)
    length = np.minimum(stop - start, spec.action_block - delayed)
    absent = (ended > began) | (stop <= start) | (length < spec.min_press_steps)
    length = np.where(absent, 0, length)
    # down: until the sampled release, within the valid lengths; lifted at once where out of bounds
    shortest = np.maximum(sent, began + spec.min_press_steps)
    outside = (frozen[:, -1] < spec.low_array) | (frozen[:, -1] > spec.high_array)
    stop = np.where(outside.any(axis=1), sent, stop)
    shortest = np.where(outside.any(axis=1), sent, shortest)
    longest = np.minimum(began + spec.longest_press, spec.action_block)
    release = np.clip(stop, shortest, np.maximum(longest, shortest))
    new_start, new_stop = np.where(down, sent, delayed), np.where(down, release, delayed + length)
    source = np.where(down[:, None], steps, steps - (delayed - start)[:, None])
    source = np.clip(source, 0, spec.action_block - 1)
    path = np.take_along_axis(held, source[:, :, None], axis=1)
    path += _fading_offset(held, frozen, down, new_stop)
    path = np.clip(path, spec.low_array, spec.high_array)
    path[..., spec.press_index] = (steps >= new_start[:, None]) & (steps < new_stop[:, None])
    return spec.release(path)


def _fading_offset(
    held: FloatArray, frozen: FloatArray, down: FloatArray, stop: IntArray
) -> FloatArray:
    """From the sampled path to the finger, `[n, T, A]`: whole now, nothing at the last step."""
    sent, steps = frozen.shape[1], np.arange(held.shape[1])
    offset = np.where(down[:, None], frozen[:, -1] - held[:, sent - 1], 0.0)
    share = (stop[:, None] - 1 - steps) / np.maximum(stop - sent, 1)[:, None]
    return np.asarray(np.clip(share, 0.0, 1.0)[..., None] * offset[:, None], held.dtype)
