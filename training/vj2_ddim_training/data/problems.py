"""What can be wrong with sequences that were read, one line for each kind of trouble."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.gestures.segments import (
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
)
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.data.values import out_of_range

__all__ = ["find_problems"]

REST_TOLERANCE = 1e-6  # coordinates this near 0 are 0, in the planner's units
PATH_TOLERANCE = 1e-4  # how far a straight path may leave its line, as a share of the bounds


def find_problems(actions: FloatArray, spec: ActionSpec) -> list[str]:
    """Say what is wrong with some sequences.

    Args:
        actions: `[n, L, A]`; NaN and infinite values are allowed.
        spec: The rules.

    Returns:
        One line for each kind of trouble: how many sequences have it, and the first that does.
    """
    finite = np.isfinite(actions).all(axis=(1, 2))
    numbers = np.arange(len(actions))
    broken, whole = numbers[~finite], numbers[finite]
    found = [("hold NaN or infinite values", broken)]
    found += [(trouble, whole[bad]) for trouble, bad in _troubles(actions[finite], spec)]
    return [
        f"{len(bad)} of {len(actions)} sequences {trouble} (the first is number {bad[0]})"
        for trouble, bad in found
        if len(bad)
    ]


def _troubles(actions: FloatArray, spec: ActionSpec) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each trouble of finite sequences `[n, L, A]`, and those `[n]` that have it."""
    outside = np.asarray(out_of_range(actions, spec).any(axis=1))
    for index, channel in enumerate(spec.channels):
        yield f"leave the bounds of channel {channel!r}", outside[:, index]
    if spec.press_channel is not None:
        blocks = actions.reshape(-1, spec.action_block, spec.num_channels)
        for trouble, bad in _press_troubles(blocks, spec):
            yield trouble, np.asarray(bad.reshape(-1, spec.horizon).any(axis=1))
    keys = [sequence.tobytes() for sequence in actions]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    repeats = [first[key] != number for number, key in enumerate(keys)]
    yield "repeat an earlier one", np.array(repeats, dtype=np.bool_)


def _press_troubles(
    blocks: FloatArray, spec: ActionSpec
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The troubles of presses, and the blocks `[m]` that have them."""
    press = blocks[..., spec.press_index]
    pressed = spec.pressed(blocks)
    coordinates = blocks[..., spec.coordinate_indices]
    yield "have a press other than 0 and 1", np.asarray((~np.isin(press, (0.0, 1.0))).any(axis=1))
    moved = np.abs(coordinates).max(axis=2) > REST_TOLERANCE
    yield "have coordinates other than 0 where released", np.asarray((moved & ~pressed).any(axis=1))
    segments = count_segments(pressed)
    if spec.min_press_steps > 0:
        yield "have a block without a press", segments == 0
    yield "have several press segments in a block", segments > 1
    if spec.path_knots is not None:
        start, stop = longest_segment(pressed)
        knots = fit_knots(coordinates, start, stop, spec.path_knots)
        path = interpolate_knots(knots, start, stop, spec.action_block)
        steps = np.arange(spec.action_block)
        on_path = (steps >= start[:, None]) & (steps < stop[:, None])
        span = (spec.high_array - spec.low_array)[spec.coordinate_indices]
        drift = (np.abs(path - coordinates) / span).max(axis=2)
        shape = "straight" if spec.path_knots == 2 else f"through {spec.path_knots} even knots"
        crooked = ((drift > PATH_TOLERANCE) & on_path).any(axis=1)
        yield f"have a path that is not {shape}", np.asarray(crooked)
