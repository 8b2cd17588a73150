"""What is diffused: three invertible views of a block of actions.

- `raw`, `[T, A]`: the actions as they are. Inverts everything.
- `held`, `[T, A]`: coordinates held where the finger is up. Inverts one press segment, or none.
- `path`, `[K * C + 2, 1]`: K knots of the path, then press and release time. Inverts one press
  segment whose path is piecewise linear between K even knots.

`raw` coordinates jump to 0 where the finger is up; a denoiser blurs that edge and a jitter of a few
pixels turns a tap into a drag. `held` removes the edge. `path` removes the jitter: every sample
decodes to one smooth gesture, and the data fill the diffused space, so that DDIM inversion is well
posed (noise-free `[T, A]` arrays lie on a thin manifold and invert to something far from Gaussian).

All functions work in the planner's units on one block a row, `[n, T, A]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from vj2_ddim_plugin.gestures import count_segments, fit_knots, interpolate_knots, longest_segment
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

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """`[n, T, A]` actions to `[n, rows, channels]`."""
        ...

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """The inverse of `encode` on valid gestures."""
        ...


class Raw:
    """The actions themselves. The original script's representation."""

    def shape(self, spec: ActionSpec) -> tuple[int, int]:
        """`(T, A)`."""
        return spec.action_block, spec.num_channels

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """The action bounds, `[A]` each."""
        return spec.low_array, spec.high_array

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """Return the actions unchanged."""
        return blocks

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """Return the diffused array unchanged."""
        return diffused


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
    """Knots of the path, evenly spaced in time over the press, then press and release time."""

    def shape(self, spec: ActionSpec) -> tuple[int, int]:
        """`(K * C + 2, 1)`: `x0, y0, x1, y1, ..., press time, release time`."""
        return spec.required_path_knots * (spec.num_channels - 1) + 2, 1

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        """Coordinate bounds for the knots, [0, 1] (a share of the block) for the two times."""
        knots = spec.required_path_knots
        coordinates = spec.coordinate_indices
        low = np.concatenate([np.tile(spec.low_array[coordinates], knots), [0.0, 0.0]])
        high = np.concatenate([np.tile(spec.high_array[coordinates], knots), [1.0, 1.0]])
        return low[:, None], high[:, None]

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        """Fit the knots of the longest press segment.

        Raises:
            ActionError: A block has no press, or more than one press segment.
        """
        pressed = spec.pressed(blocks)
        spec.require_one_segment(count_segments(pressed))
        start, stop = longest_segment(pressed)
        coordinates = blocks[..., spec.coordinate_indices]
        knots = fit_knots(coordinates, start, stop, spec.required_path_knots)
        times = np.stack([start, stop], axis=1) / spec.action_block
        return np.concatenate([knots.reshape(len(blocks), -1), times], axis=1)[..., None]

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> FloatArray:
        """Draw the path between the rounded press and release times; at least one step long."""
        flat = diffused[..., 0]
        length = spec.action_block
        start = np.clip(np.rint(flat[:, -2] * length), 0, length - 1).astype(np.int64)
        stop = np.clip(np.rint(flat[:, -1] * length), start + 1, length).astype(np.int64)
        knots = flat[:, :-2].reshape(len(flat), spec.required_path_knots, -1)
        blocks = np.zeros((len(flat), length, spec.num_channels), diffused.dtype)
        blocks[..., spec.coordinate_indices] = interpolate_knots(knots, start, stop, length)
        steps = np.arange(length)
        blocks[..., spec.press_index] = (steps >= start[:, None]) & (steps < stop[:, None])
        return blocks


REPRESENTATIONS: dict[str, Representation] = {"raw": Raw(), "held": Held(), "path": Path()}
