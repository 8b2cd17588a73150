"""What a touch is: what is diffused of it, when it is valid, and the nearest one that is.

Every function takes actions `[..., L, A]` (flattened leading axes are fine) and their `ActionSpec`.
A valid gesture stays in bounds, has a binary press, is zero where the finger is up, has at most one
press segment of a length in range, and follows a path that is piecewise linear between the spec's
knots; each block of a sequence is one gesture. An array of the wrong shape is an `ActionError`.

Three invertible views of a block may be diffused:

- `raw`, `[T, A]`: the actions as they are. They jump to 0 where the finger is up; a denoiser blurs
  that edge, and a jitter of a few pixels turns a tap into a drag.
- `held`, `[T, A]`: coordinates held where the finger is up. Inverts one press segment, or none.
- `path`, `[K * C + 2, 1]`: the first of K knots of the path, the displacements from knot to knot
  (of a tap they are 0), then press and release time. Inverts one press segment whose path is
  piecewise linear between K even knots. Every sample decodes to one smooth gesture, and the data
  fill the diffused space, so that DDIM inversion is well posed.
"""

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

__all__ = [
    "PATH_TOLERANCE", "REPRESENTATIONS", "Normalization", "Representation", "coarse_rounding",
    "decode", "decode_checked", "diffused_bounds", "encode", "held_blocks", "is_valid",
    "normalization_of", "outside_bounds", "pressed", "project", "release",
]  # fmt: skip

PATH_TOLERANCE = 1e-4
"""How far, as a share of the bounds, a valid path may leave its knots."""

Sure = NDArray[np.bool_]  # `[n]`, whether a block is surely a valid gesture; False is unknown


class Representation:
    """An invertible map between blocks `[n, T, A]` and what is diffused of them; this one is `raw`.

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
    """`x0, y0, dx1, dy1, ..., press time, release time`, the times as shares of the block.

    One unit of the sampler is half of a coordinate's range, for displacements `displacement_scale`
    of it, and half a block for times.
    """

    def bounds(self, spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
        axes = spec.coordinate_indices
        low, high = spec.low_array[axes], spec.high_array[axes]
        span = np.tile(high - low, spec.required_path_knots - 1)
        rows = np.concatenate([low, -span, [0.0, 0.0]]), np.concatenate([high, span, [1.0, 1.0]])
        return rows[0][:, None], rows[1][:, None]

    def scale(self, spec: ActionSpec) -> FloatArray:
        half = (spec.high_array - spec.low_array)[spec.coordinate_indices] / 2
        away = np.tile(spec.displacement_scale * half, spec.required_path_knots - 1)
        return np.concatenate([half, away, [0.5, 0.5]])[:, None]

    def encode(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray:
        down = pressed(blocks, spec)
        counts = count_segments(down)
        if len(bad := np.flatnonzero(counts != 1)):
            raise ActionError(
                f"representation 'path' needs exactly one press segment a block; block {bad[0]} "
                f"has {counts[bad[0]]} ({len(bad)} of {len(counts)} blocks differ). Use "
                f"representation 'raw' or 'held', or drop these blocks"
            )
        start, stop = longest_segment(down)
        coordinates = blocks[..., spec.coordinate_indices]
        knots = fit_knots(coordinates, start, stop, spec.required_path_knots)
        steps = np.diff(knots, axis=1, prepend=0.0).reshape(len(blocks), -1)
        times = np.stack([start, stop], axis=1) / spec.action_block
        return np.concatenate([steps, times], axis=1)[..., None]

    def decode(self, diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, Sure]:
        # the times are rounded, the press at least one step long; valid: a valid length, and knots
        # in bounds, between which the lines are in bounds too
        flat, length = diffused[..., 0], spec.action_block
        start = np.clip(np.rint(flat[:, -2] * length), 0, length - 1).astype(np.int64)
        stop = np.clip(np.rint(flat[:, -1] * length), start + 1, length).astype(np.int64)
        steps = flat[:, :-2].reshape(len(flat), spec.required_path_knots, -1)
        knots = np.cumsum(steps, axis=1)
        blocks = np.zeros((len(diffused), length, spec.num_channels), diffused.dtype)
        blocks[..., spec.coordinate_indices] = interpolate_knots(knots, start, stop, length)
        clock = np.arange(length)
        blocks[..., spec.press_index] = (clock >= start[:, None]) & (clock < stop[:, None])
        axes = spec.coordinate_indices
        inside = (knots >= spec.low_array[axes]) & (knots <= spec.high_array[axes])
        fits = (stop - start >= spec.min_press_steps) & (stop - start <= spec.longest_press)
        return blocks, np.asarray(inside.all(axis=(1, 2)) & fits)


REPRESENTATIONS = {"raw": Representation(), "held": _Held(), "path": _Path()}


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


def diffused_bounds(spec: ActionSpec) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest valid value of the diffused array `[M, C]`, for clipping."""
    return normalization_of(spec).bounds


def encode(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Actions `[..., L, A]` in the planner's units to the diffused array `[..., M, C]`.

    It is of the actions' dtype, in the sampler's units. `ActionError` where the representation
    cannot hold these gestures.
    """
    blocks, lead = _blocks(actions, spec)
    units = normalization_of(spec)
    values = REPRESENTATIONS[spec.representation].encode(blocks, spec)
    diffused = (values.reshape(*lead, *spec.diffused_shape) - units.centre) / units.scale
    return diffused.astype(actions.dtype, copy=False)


def decode(diffused: FloatArray, spec: ActionSpec) -> FloatArray:
    """The inverse of `encode` on valid gestures: `[..., M, C]` to actions `[..., L, A]`."""
    return decode_checked(diffused, spec)[0]


def decode_checked(diffused: FloatArray, spec: ActionSpec) -> tuple[FloatArray, NDArray[np.bool_]]:
    """`decode`, and whether each of `[..., M, C]` is surely a valid gesture, as `[...]`.

    Read off the array itself, where that is quicker than looking at the gesture; False is "maybe".
    """
    if diffused.shape[-2:] != spec.diffused_shape:
        raise ActionError(
            f"diffused array ends in {diffused.shape[-2:]}, expected {spec.diffused_shape} for "
            f"representation {spec.representation!r}"
        )
    (rows, channels), lead = spec.diffused_shape, diffused.shape[:-2]
    units = normalization_of(spec)
    values = (units.centre + units.scale * diffused).reshape(-1, rows // spec.horizon, channels)
    blocks, valid = REPRESENTATIONS[spec.representation].decode(values, spec)
    actions = blocks.reshape(*lead, spec.length, spec.num_channels)
    surely = valid.reshape(*lead, spec.horizon).all(axis=-1)
    return actions.astype(diffused.dtype, copy=False), np.asarray(surely)


def outside_bounds(
    actions: FloatArray, spec: ActionSpec, *, released_is_zero: bool = False
) -> NDArray[np.bool_]:
    """Which values of `[..., A]` leave the bounds: the one rule, wherever values are checked.

    A value may exceed a bound by `BOUND_TOLERANCE` times the channel's larger bound. NaN does not
    leave them: whether numbers are finite is another question.

    Where the finger is up any value may leave them, because nothing is done with it; or, with
    `released_is_zero`, only 0 may.
    """
    slack = spec.bound_slack
    outside = (actions < spec.low_array - slack) | (actions > spec.high_array + slack)
    if spec.press_channel is not None:
        down = pressed(actions, spec)[..., None]
        outside &= (down | (actions != 0.0)) if released_is_zero else down
    return np.asarray(outside)


def coarse_rounding(blocks: FloatArray, spec: ActionSpec) -> FloatArray:
    """How far a fitted path may leave blocks `[n, T, A]` recorded in float16: `[n, 1, A]`.

    It is 0 for blocks that hold a number, beside the bounds, that float16 does not.
    """
    low, high = (bound.astype(blocks.dtype) for bound in (spec.low_array, spec.high_array))
    with np.errstate(over="ignore"):
        coarse = (blocks == blocks.astype(np.float16)) | (blocks == low) | (blocks == high)
    largest = np.maximum(np.abs(low), np.abs(high))
    eps = np.finfo(np.float16).eps
    return np.asarray(coarse.all(axis=(1, 2))[:, None, None] * eps * largest)


def is_valid(actions: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Whether each sequence of `[..., L, A]` keeps every rule of the spec, as `[...]`."""
    blocks, lead = _blocks(actions, spec)
    return np.asarray(_valid_blocks(blocks, spec).reshape(*lead, spec.horizon).all(axis=-1))


def project(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """Move `[..., L, A]` onto valid gestures; valid ones come back as they were.

    The longest press segment is kept and its length brought into range, its path replaced by the
    least-squares path through the spec's knots, and the coordinates clipped to the bounds.
    """
    blocks, lead = _blocks(actions, spec)
    projected = _project_blocks(blocks, spec).reshape(*lead, spec.length, spec.num_channels)
    return projected.astype(actions.dtype, copy=False)


def _blocks(actions: FloatArray, spec: ActionSpec) -> tuple[FloatArray, tuple[int, ...]]:
    """One block a row, `[n, T, A]`, and the leading shape."""
    expected = (spec.length, spec.num_channels)
    if actions.shape[-2:] != expected:
        raise ActionError(
            f"actions have shape {actions.shape}, expected {expected} at the end (L, A)"
        )
    return actions.reshape(-1, spec.action_block, spec.num_channels), actions.shape[:-2]


def _valid_blocks(blocks: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Whether each block of `[n, T, A]` keeps every rule of the spec, as `[n]`."""
    valid = np.asarray((np.isfinite(blocks) & ~outside_bounds(blocks, spec)).all(axis=(1, 2)))
    if spec.press_channel is None:
        return valid
    blocks = np.where(valid[:, None, None], blocks, 0.0)
    down = pressed(blocks, spec)
    valid &= (np.abs(blocks - release(blocks, spec)) <= spec.bound_slack).all(axis=(1, 2))
    start, stop = longest_segment(down)
    valid &= (stop - start >= spec.min_press_steps) & (stop - start <= spec.longest_press)
    valid &= count_segments(down) <= 1
    if spec.path_knots is not None:
        drift = np.abs(_fit_path(blocks, start, stop, spec) - blocks)
        span = spec.high_array - spec.low_array
        left = np.flatnonzero(valid & ((drift / span).max(axis=(1, 2)) > PATH_TOLERANCE))
        drift = (drift[left] - coarse_rounding(blocks[left], spec)) / span
        valid[left] = drift.max(axis=(1, 2)) <= PATH_TOLERANCE
    return np.asarray(valid)


def _project_blocks(blocks: FloatArray, spec: ActionSpec) -> FloatArray:
    """`project` for `[n, T, A]`."""
    if spec.press_channel is None:
        return np.clip(blocks, spec.low_array, spec.high_array)
    start, stop = _press_in_range(blocks, spec)
    steps = np.arange(spec.action_block)
    held = held_blocks(blocks, spec)
    held[..., spec.press_index] = (steps >= start[:, None]) & (steps < stop[:, None])
    if spec.path_knots is not None:
        return _fit_path(held, start, stop, spec)
    return release(np.clip(held, spec.low_array, spec.high_array), spec)


def _press_in_range(blocks: FloatArray, spec: ActionSpec) -> tuple[IntArray, IntArray]:
    """Start and stop of each block's press, of a valid length and inside the block.

    A block that owes a press and has none gets the shortest one, where its press channel peaks.
    """
    start, stop = longest_segment(pressed(blocks, spec))
    absent = stop <= start
    start = np.where(absent, np.argmax(blocks[..., spec.press_index], axis=1), start)
    length = np.clip(stop - start, spec.min_press_steps, spec.longest_press)
    length = np.where(absent, spec.min_press_steps, length)
    start = np.minimum(start, spec.action_block - length)
    return start, start + length


def _fit_path(blocks: FloatArray, start: IntArray, stop: IntArray, spec: ActionSpec) -> FloatArray:
    """The blocks with their paths replaced by the least-squares ones, zero where released.

    A press of fewer steps than knots has no path to fit: it is clipped to the bounds.
    """
    clipped = np.clip(blocks, spec.low_array, spec.high_array)
    short = (stop - start < spec.required_path_knots)[:, None, None]
    down = pressed(blocks, spec)[..., None]
    fitted = np.where(short & down, clipped, 0.0).astype(blocks.dtype)
    coordinates = spec.coordinate_indices
    knots = fit_knots(blocks[..., coordinates], start, stop, spec.required_path_knots)
    knots = np.clip(knots, spec.low_array[coordinates], spec.high_array[coordinates])
    path = interpolate_knots(knots, start, stop, spec.action_block)
    fitted[..., coordinates] = np.where(short, fitted[..., coordinates], path)
    fitted[..., spec.press_index] = blocks[..., spec.press_index]
    return fitted
