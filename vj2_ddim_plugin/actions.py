"""`ActionSpec`: what an action sequence is, how it is diffused, and what makes it a valid gesture.

It travels inside the checkpoint and the bundle: nothing else knows a length, a channel or a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.normalization import Normalization
from vj2_ddim_plugin.gestures.projection import project_blocks, valid_blocks
from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.records import from_plain, to_plain

__all__ = ["ActionSpec"]


@dataclass(frozen=True)
class ActionSpec:
    """The contract of one action sequence `[L, A]`; L is `horizon * action_block`.

    Attributes:
        action_block: Actions in one world-model step (VJ2-GUI: 250).
        horizon: World-model steps in one sequence (VJ2-GUI: 1). Each block is one gesture.
        channels: Names of the A channels, in order.
        action_low: Lower bound of each channel, in the planner's units.
        action_high: Upper bound of each channel.
        press_channel: The channel that is 1 where the finger is down and 0 elsewhere, or None for
            actions that are not touches; then every gesture rule below is off.
        min_press_steps: Shortest press of a valid gesture; 0 allows a block without a press.
        max_press_steps: Longest press of a valid gesture, or None for the whole block.
        path_knots: A valid path is piecewise linear between this many knots, evenly spaced over
            the press (2: a straight line); None allows any path.
        representation: What is diffused: `raw`, `held` or `path` (see `representations.py`).
        normalized: Whether the sampler works in units of about 1 around 0; False leaves the
            planner's units, as the original script's checkpoints need.
        rate_hz: Actions a second, for display only.

    Raises:
        ActionError: On construction, for fields that contradict one another.
    """

    action_block: int = 250
    horizon: int = 1
    channels: tuple[str, ...] = ("x", "y", "press")
    action_low: tuple[float, ...] = (0.0, 0.0, 0.0)
    action_high: tuple[float, ...] = (1.0, 1.0, 1.0)
    press_channel: str | None = "press"
    min_press_steps: int = 5
    max_press_steps: int | None = 75
    path_knots: int | None = 2
    representation: str = "path"
    normalized: bool = True
    rate_hz: float = 500.0

    def __post_init__(self) -> None:
        """Refuse fields that contradict one another."""
        for name in ("channels", "action_low", "action_high"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        sized = (self.channels, set(self.channels), self.action_low, self.action_high)
        if len({len(values) for values in sized}) > 1:
            raise ActionError(
                f"channels, action_low, action_high repeat or differ in length: {sized}"
            )
        bounds = np.array([self.action_low, self.action_high], float)
        if not (np.isfinite(bounds).all() and (bounds[0] < bounds[1]).all()):
            raise ActionError(f"need finite action_low < action_high; found {bounds.tolist()}")
        for name in ("action_block", "horizon"):
            if getattr(self, name) < 1:
                raise ActionError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.representation not in REPRESENTATIONS:
            raise ActionError(
                f"representation {self.representation!r} is unknown; use one of "
                f"{', '.join(REPRESENTATIONS)}"
            )
        self._check_gesture_rules()

    def _check_gesture_rules(self) -> None:
        if self.press_channel is None:
            if self.representation != "raw":
                found = self.representation
                raise ActionError(f"representation {found!r} needs a press_channel; or use 'raw'")
            return
        if self.press_channel not in self.channels:
            raise ActionError(f"press_channel {self.press_channel!r} is not in {self.channels}")
        if self.low_array[self.press_index] > 0 or self.high_array[self.press_index] < 1:
            raise ActionError("the action_low and action_high of press_channel must hold 0 and 1")
        if not 0 <= self.min_press_steps <= self.longest_press <= self.action_block:
            found = f"{self.min_press_steps}, {self.max_press_steps}, {self.action_block}"
            raise ActionError(
                f"need 0 <= min_press_steps <= max_press_steps <= action_block; found {found}"
            )
        if self.path_knots is not None and self.path_knots < 2:
            raise ActionError(f"path_knots must be at least 2, or None; found {self.path_knots}")
        if self.representation == "path" and self.min_press_steps < self.required_path_knots:
            raise ActionError(
                f"representation 'path' with {self.path_knots} knots needs presses as long; found "
                f"min_press_steps {self.min_press_steps}. Use 'held'"
            )

    @property
    def length(self) -> int:
        """L, the actions in one sequence."""
        return self.action_block * self.horizon

    @property
    def num_channels(self) -> int:
        """A, the channels of one action."""
        return len(self.channels)

    @property
    def longest_press(self) -> int:
        """The longest valid press, in steps."""
        return self.action_block if self.max_press_steps is None else self.max_press_steps

    @property
    def press_index(self) -> int:
        """Index of the press channel."""
        if self.press_channel is None:
            raise ActionError("these actions have no press_channel")
        return self.channels.index(self.press_channel)

    @property
    def required_path_knots(self) -> int:
        """`path_knots`, for the representation that cannot do without."""
        if self.path_knots is None:
            raise ActionError("representation 'path' needs path_knots; set it, or use 'held'")
        return self.path_knots

    @cached_property
    def coordinate_indices(self) -> list[int]:
        """Indices of every channel but the press."""
        return [i for i, name in enumerate(self.channels) if name != self.press_channel]

    @cached_property
    def low_array(self) -> FloatArray:
        """`action_low`, `[A]`."""
        return np.array(self.action_low)

    @cached_property
    def high_array(self) -> FloatArray:
        """`action_high`, `[A]`."""
        return np.array(self.action_high)

    @property
    def diffused_shape(self) -> tuple[int, int]:
        """`(M, C)` of the array that is diffused for one sequence."""
        rows, channels = REPRESENTATIONS[self.representation].shape(self)
        return rows * self.horizon, channels

    @cached_property
    def _normalization(self) -> Normalization:
        return Normalization.of(self)

    @property
    def diffused_bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest valid value of the array that is diffused, for clipping."""
        return self._normalization.bounds

    def encode(self, actions: FloatArray) -> FloatArray:
        """Actions `[..., L, A]` in the planner's units to the diffused array `[..., M, C]`.

        Raises:
            ActionError: The shape is wrong, or the representation cannot hold these gestures.
        """
        blocks, lead = self._blocks(actions)
        values = REPRESENTATIONS[self.representation].encode(blocks, self)
        diffused = self._normalization.normalize(values.reshape(*lead, *self.diffused_shape))
        return diffused.astype(actions.dtype, copy=False)

    def decode(self, diffused: FloatArray) -> FloatArray:
        """The inverse of `encode` on valid gestures: `[..., M, C]` to actions `[..., L, A]`."""
        return self.decode_checked(diffused)[0]

    def decode_checked(self, diffused: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """`decode`, and whether each of `[..., M, C]` is surely a valid gesture, as `[...]`.

        Read off the array itself, where that is quicker than looking at the gesture; False is
        "maybe".
        """
        values, lead = self._diffused_blocks(diffused), diffused.shape[:-2]
        blocks, valid = REPRESENTATIONS[self.representation].decode_checked(values, self)
        actions = blocks.reshape(*lead, self.length, self.num_channels)
        surely = valid.reshape(*lead, self.horizon).all(axis=-1)
        return actions.astype(diffused.dtype, copy=False), np.asarray(surely)

    def _diffused_blocks(self, diffused: FloatArray) -> FloatArray:
        """One block a row, `[n, rows, channels]`, in the planner's units."""
        if diffused.shape[-2:] != self.diffused_shape:
            raise ActionError(
                f"diffused array ends in {diffused.shape[-2:]}, expected {self.diffused_shape} for "
                f"representation {self.representation!r}"
            )
        rows, channels = self.diffused_shape
        return self._normalization.unnormalize(diffused).reshape(-1, rows // self.horizon, channels)

    def pressed(self, actions: FloatArray) -> NDArray[np.bool_]:
        """Where the finger is down: press above one half."""
        return np.asarray(actions[..., self.press_index] > 0.5)

    def release(self, actions: FloatArray) -> FloatArray:
        """Make the press binary, and zero every channel where the finger is up."""
        pressed = self.pressed(actions)[..., None]
        released = np.where(pressed, actions, 0.0).astype(actions.dtype, copy=False)
        released[..., self.press_index] = pressed[..., 0]
        return released

    def is_valid(self, actions: FloatArray) -> NDArray[np.bool_]:
        """Whether each sequence of `[..., L, A]` keeps every rule of this spec, as `[...]`."""
        blocks, lead = self._blocks(actions)
        return np.asarray(valid_blocks(blocks, self).reshape(*lead, self.horizon).all(axis=-1))

    def project(self, actions: FloatArray) -> FloatArray:
        """Move `[..., L, A]` onto valid gestures; valid ones come back as they were."""
        blocks, lead = self._blocks(actions)
        projected = project_blocks(blocks, self).reshape(*lead, self.length, self.num_channels)
        return projected.astype(actions.dtype, copy=False)

    def _blocks(self, actions: FloatArray) -> tuple[FloatArray, tuple[int, ...]]:
        """One block a row, `[n, T, A]`, and the leading shape; flattened actions are accepted."""
        expected = (self.length, self.num_channels)
        if actions.shape[-2:] != expected:
            raise ActionError(
                f"actions have shape {actions.shape}, expected {expected} at the end (L, A)"
            )
        lead = actions.shape[:-2]
        return actions.reshape(-1, self.action_block, self.num_channels), lead

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ActionSpec:
        """The inverse of `to_dict`; raises `ActionError` for a missing or unknown field."""
        return from_plain(cls, values, ActionError)
