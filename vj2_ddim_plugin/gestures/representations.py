"""What is diffused: three invertible views of a block of actions.

- `raw`, `[T, A]`: the actions as they are. Inverts everything.
- `held`, `[T, A]`: coordinates held where the finger is up. Inverts one press segment, or none.
- `path`, `[K * C + 2, 1]`: the first of K knots of the path, the displacements from knot to knot,
  then press and release time. Inverts one press segment whose path is piecewise linear between K
  even knots. Displacements rather than ends, because a tap is then a point in each channel (0), not
  a diagonal that the denoiser has to learn.

`raw` coordinates jump to 0 where the finger is up; a denoiser blurs that edge and a jitter of a few
pixels turns a tap into a drag. `held` removes the edge. `path` removes the jitter: every sample
decodes to one smooth gesture, and the data fill the diffused space, so that DDIM inversion is well
posed (noise-free `[T, A]` arrays lie on a thin manifold and invert to something far from Gaussian).

All work in the planner's units on one block a row, `[n, T, A]`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.segments import (
    IntArray,
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
    pressed,
    release,
)
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["REPRESENTATIONS", "Normalization", "Representation", "held_blocks", "normalization_of"]

Sure = NDArray[np.bool_]
"""`[n]`: whether a block is surely a valid gesture; False is unknown."""


class Representation:
    """An invertible map between blocks of actions and what is diffused of them; `raw` is this one.

    Another one is added here and in `vj2_ddim_plugin.spec`, which knows the shapes.
    """

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest value of a diffused block, each broadcastable to its shape."""
        return spec.low_array, spec.high_array

    def scale(self, spec: ActionSpec) -> FloatArray:
        """What is one unit of the sampler, in the planner's units, broadcastable likewise."""
        return (spec.high_array - spec.low_array) / 2

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """`[n, T, A]` actions to `[n, rows, channels]`."""
        return blocks

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, Sure]:
        """The inverse of `encode` on valid gestures, and which of them surely are valid."""
        return diffused, np.zeros(len(diffused), bool)


def held_blocks(blocks: FloatArray, spec: ActionSpec) -> FloatArray:
    """Blocks `[n, T, A]` whose coordinates keep their first pressed value before the press.

    After it they keep their last one; where nothing is pressed, they stay as they are.
    """
    start, stop = longest_segment(pressed(blocks, spec))
    steps = np.arange(spec.action_block)
    source = np.clip(steps, start[:, None], np.maximum(stop - 1, start)[:, None])
    source = np.where((stop > start)[:, None], source, steps)
    held = np.take_along_axis(blocks, source[:, :, None], axis=1)
    held[..., spec.press_index] = blocks[..., spec.press_index]
    return held


class _Held(Representation):
    """Decoding makes the press binary again, and zeroes coordinates where the finger is up."""

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        return held_blocks(blocks, spec)

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, Sure]:
        return release(diffused, spec), np.zeros(len(diffused), bool)


class _Path(Representation):
    """`x0, y0, dx1, dy1, ..., press time, release time`, as shares of the block."""

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """Coordinate bounds, plus or minus their span, and [0, 1]."""
        axes = spec.coordinate_indices
        low, high = spec.low_array[axes], spec.high_array[axes]
        span = np.tile(high - low, spec.required_path_knots - 1)
        return (
            np.concatenate([low, -span, [0.0, 0.0]])[:, None],
            np.concatenate([high, span, [1.0, 1.0]])[:, None],
        )

    def scale(self, spec: ActionSpec) -> FloatArray:
        """Half of each coordinate's range, for displacements too; half a block for the times."""
        half = (spec.high_array - spec.low_array)[spec.coordinate_indices] / 2
        return np.concatenate([np.tile(half, spec.required_path_knots), [0.5, 0.5]])[:, None]

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """Fit the knots of the one press segment; `ActionError` where a block has not just one."""
        down = pressed(blocks, spec)
        _require_one_segment(count_segments(down))
        start, stop = longest_segment(down)
        coordinates = blocks[..., spec.coordinate_indices]
        knots = fit_knots(coordinates, start, stop, spec.required_path_knots)
        steps = np.diff(knots, axis=1, prepend=0.0).reshape(len(blocks), -1)
        times = np.stack([start, stop], axis=1) / spec.action_block
        return np.concatenate([steps, times], axis=1)[..., None]

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, Sure]:
        """Draw the path between the rounded times, at least one step long.

        Valid: a valid length, and knots in bounds; the lines between them are in bounds too.
        """
        flat, length = diffused[..., 0], spec.action_block
        start = np.minimum(np.maximum(np.rint(flat[:, -2] * length), 0), length - 1)
        start = start.astype(np.int64)
        stop = np.minimum(np.maximum(np.rint(flat[:, -1] * length), start + 1), length)
        stop = stop.astype(np.int64)
        steps = flat[:, :-2].reshape(len(flat), spec.required_path_knots, -1)
        knots = np.cumsum(steps, axis=1)
        blocks = np.zeros((len(diffused), length, spec.num_channels), diffused.dtype)
        blocks[..., spec.coordinate_indices] = interpolate_knots(knots, start, stop, length)
        clock = np.arange(length)
        blocks[..., spec.press_index] = (clock >= start[:, None]) & (clock < stop[:, None])
        low, high = spec.low_array, spec.high_array
        inside = (knots >= low[spec.coordinate_indices]) & (knots <= high[spec.coordinate_indices])
        fits = (stop - start >= spec.min_press_steps) & (stop - start <= spec.longest_press)
        return blocks, np.asarray(inside.all(axis=(1, 2)) & fits)


def _require_one_segment(counts: IntArray) -> None:
    bad = np.flatnonzero(counts != 1)
    if len(bad):
        raise ActionError(
            f"representation 'path' needs exactly one press segment a block; block {bad[0]} has "
            f"{counts[bad[0]]} ({len(bad)} of {len(counts)} blocks differ). Use representation "
            f"'raw' or 'held', or drop these blocks"
        )


REPRESENTATIONS: dict[str, Representation] = {
    "raw": Representation(),
    "held": _Held(),
    "path": _Path(),
}


class Normalization(NamedTuple):
    """From the planner's units to the sampler's, in which what is diffused is about 1 around 0."""

    centre: FloatArray  # what becomes 0, in the planner's units, broadcastable to `[M, C]`
    scale: FloatArray  # what becomes 1
    bounds: tuple[FloatArray, FloatArray]  # lowest and highest valid value, in the sampler's


@lru_cache(maxsize=64)
def normalization_of(spec: ActionSpec) -> Normalization:
    """That of a spec; one that is not `normalized` stays in the planner's units."""
    representation = REPRESENTATIONS[spec.representation]
    low, high = representation.bounds(spec)
    scale = representation.scale(spec)
    if low.ndim > 1:  # one value a row: the same in every block
        low, high, scale = (np.tile(part, (spec.horizon, 1)) for part in (low, high, scale))
    if not spec.normalized:
        return Normalization(np.zeros_like(scale), np.ones_like(scale), (low, high))
    reach = (high - low) / 2 / scale
    return Normalization((low + high) / 2, scale, (-reach, reach))
