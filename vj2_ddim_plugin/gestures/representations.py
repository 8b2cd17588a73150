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

All functions work in the planner's units on one block a row, `[n, T, A]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.segments import (
    IntArray,
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
)
from vj2_ddim_plugin.interface import FloatArray

if TYPE_CHECKING:
    from vj2_ddim_plugin.actions import ActionSpec

__all__ = ["REPRESENTATIONS", "Held", "Path", "Raw", "Representation"]


class Representation(Protocol):
    """An invertible map between blocks of actions and the array that is diffused."""

    def shape(self, spec: ActionSpec) -> tuple[int, int]:
        """`(rows, channels)` of one diffused block."""
        ...

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest value of a diffused block, each broadcastable to `shape`."""
        ...

    def scale(self, spec: ActionSpec) -> FloatArray:
        """What is one unit of the sampler, in the planner's units, broadcastable to `shape`."""
        ...

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """`[n, T, A]` actions to `[n, rows, channels]`."""
        ...

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """The inverse of `encode` on valid gestures."""
        ...

    def decode_checked(
        self, diffused: FloatArray, spec: ActionSpec
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """`decode`, and whether each block is surely a valid gesture, `[n]`; False is unknown."""
        ...


class Raw:
    """The actions themselves. The original script's representation."""

    def shape(self, spec: ActionSpec) -> tuple[int, int]:
        """`(T, A)`."""
        return spec.action_block, spec.num_channels

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """The action bounds, `[A]` each."""
        return spec.low_array, spec.high_array

    def scale(self, spec: ActionSpec) -> FloatArray:
        """Half of each channel's range."""
        return (spec.high_array - spec.low_array) / 2

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """Return the actions unchanged."""
        return blocks

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """Return the diffused array unchanged."""
        return diffused

    def decode_checked(
        self, diffused: FloatArray, spec: ActionSpec
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Decode; validity is unknown."""
        return self.decode(diffused, spec), np.zeros(len(diffused), bool)


class Held(Raw):
    """Coordinates keep their first pressed value before the press and their last one after it."""

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """Hold the coordinates; where nothing is pressed, keep them as they are."""
        start, stop = longest_segment(spec.pressed(blocks))
        steps = np.arange(spec.action_block)
        source = np.clip(steps, start[:, None], np.maximum(stop - 1, start)[:, None])
        source = np.where((stop > start)[:, None], source, steps)
        held = np.take_along_axis(blocks, source[:, :, None], axis=1)
        held[..., spec.press_index] = blocks[..., spec.press_index]
        return held

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """Make the press binary again, and zero the coordinates where the finger is up."""
        return spec.release(diffused)


class Path:
    """First knot and displacements, evenly spaced in time over the press; press, release time."""

    def shape(self, spec: ActionSpec) -> tuple[int, int]:
        """`(K * C + 2, 1)`: `x0, y0, dx1, dy1, ..., press time, release time`."""
        return spec.required_path_knots * (spec.num_channels - 1) + 2, 1

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """Coordinate bounds, plus or minus their span, and [0, 1] (a share of the block)."""
        low, high = (
            spec.low_array[spec.coordinate_indices],
            spec.high_array[spec.coordinate_indices],
        )
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
        """Fit the knots of the longest press segment.

        Raises:
            ActionError: A block has no press, or more than one press segment.
        """
        pressed = spec.pressed(blocks)
        _require_one_segment(count_segments(pressed))
        start, stop = longest_segment(pressed)
        coordinates = blocks[..., spec.coordinate_indices]
        knots = fit_knots(coordinates, start, stop, spec.required_path_knots)
        steps = np.diff(knots, axis=1, prepend=0.0).reshape(len(blocks), -1)
        times = np.stack([start, stop], axis=1) / spec.action_block
        return np.concatenate([steps, times], axis=1)[..., None]

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """Draw the path between the rounded press and release times; at least one step long."""
        return self.decode_checked(diffused, spec)[0]

    def decode_checked(
        self, diffused: FloatArray, spec: ActionSpec
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Valid: a valid length, and knots in bounds; the lines between them are in bounds too."""
        knots, start, stop = _path(diffused, spec)
        length = spec.action_block
        blocks = np.zeros((len(diffused), length, spec.num_channels), diffused.dtype)
        blocks[..., spec.coordinate_indices] = interpolate_knots(knots, start, stop, length)
        clock = np.arange(length)
        blocks[..., spec.press_index] = (clock >= start[:, None]) & (clock < stop[:, None])
        low, high = spec.low_array, spec.high_array
        inside = (knots >= low[spec.coordinate_indices]) & (knots <= high[spec.coordinate_indices])
        fits = (stop - start >= spec.min_press_steps) & (stop - start <= spec.longest_press)
        return blocks, np.asarray(inside.all(axis=(1, 2)) & fits)


def _path(diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, IntArray, IntArray]:
    """Knots `[n, K, C]`, first step and one past the last step of each press."""
    flat, length = diffused[..., 0], spec.action_block
    start = np.minimum(np.maximum(np.rint(flat[:, -2] * length), 0), length - 1).astype(np.int64)
    stop = np.minimum(np.maximum(np.rint(flat[:, -1] * length), start + 1), length)
    steps = flat[:, :-2].reshape(len(flat), spec.required_path_knots, -1)
    return np.cumsum(steps, axis=1), start, stop.astype(np.int64)


def _require_one_segment(counts: IntArray) -> None:
    bad = np.flatnonzero(counts != 1)
    if len(bad):
        raise ActionError(
            f"representation 'path' needs exactly one press segment a block; block {bad[0]} has "
            f"{counts[bad[0]]} ({len(bad)} of {len(counts)} blocks differ). Use representation "
            f"'raw' or 'held', or drop these blocks"
        )


REPRESENTATIONS: dict[str, Representation] = {"raw": Raw(), "held": Held(), "path": Path()}
