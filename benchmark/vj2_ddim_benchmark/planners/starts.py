"""Where a search starts: nothing pressed, the centre pressed, or random real gestures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["STARTS", "DrawGestures", "any_gestures", "centre_press", "draw_sequences", "starts"]

STARTS = ("zeros", "centre", "gestures")

DrawGestures = Callable[[int, np.random.Generator], FloatArray]
"""Draws n gestures, one block each: `[n, action_block, A]`."""


def any_gestures(num: int, rng: np.random.Generator) -> FloatArray:
    """Taps and drags anywhere on the screen, half of each, as `[num, 250, 3]`."""
    return random_policy(num, rng)


def draw_sequences(
    num: int, spec: ActionSpec, draw: DrawGestures, rng: np.random.Generator
) -> FloatArray:
    """Sequences `[num, L, A]` of one random gesture a block."""
    blocks = draw(num * spec.horizon, rng)
    return blocks.reshape(num, spec.length, spec.num_channels)


def centre_press(spec: ActionSpec) -> FloatArray:
    """One sequence `[L, A]`: in each block the middle of every coordinate, pressed for a while.

    The press lasts the middle of the valid range and stands in the middle of the block. Actions
    that are not touches simply hold the middle of their bounds.
    """
    middle: FloatArray = np.tile((spec.low_array + spec.high_array) / 2, (spec.action_block, 1))
    if spec.press_channel is not None:
        duration = max(1, (spec.min_press_steps + spec.longest_press) // 2)
        since = np.arange(spec.action_block) - (spec.action_block - duration) // 2
        middle[:, spec.press_index] = (since >= 0) & (since < duration)
        middle = spec.release(middle)
    return np.tile(middle, (spec.horizon, 1))


def starts(
    kind: str, num: int, spec: ActionSpec, draw: DrawGestures, rng: np.random.Generator
) -> FloatArray:
    """Sequences `[num, L, A]` to start from: the first of the kind, the others random gestures.

    Args:
        kind: `zeros`, `centre` or `gestures`.
        num: How many, at least 1.
        spec: What a sequence is.
        draw: Source of the gestures.
        rng: Source of randomness.

    Raises:
        ConfigError: The kind is unknown.
    """
    if kind not in STARTS:
        raise ConfigError(f"start {kind!r} is unknown; use one of {', '.join(STARTS)}")
    if kind == "gestures":
        return draw_sequences(num, spec, draw, rng)
    shape = (spec.length, spec.num_channels)
    first = np.zeros(shape) if kind == "zeros" else centre_press(spec)
    others = draw_sequences(num - 1, spec, draw, rng) if num > 1 else np.zeros((0, *shape))
    return np.concatenate([first[None], others])
