"""What an action sequence is, and what a model is conditioned on: data and bounds, no more.

Both travel inside the checkpoint and the bundle: nothing else knows a length, a channel or a bound.
What is done with a specification is in `vj2_ddim_plugin.gestures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from vj2_ddim_plugin.errors import ActionError, BundleError
from vj2_ddim_plugin.settings import Setting, Settings, setting, shown

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has it not in typing

    from vj2_ddim_plugin.interface import FloatArray

__all__ = ["CONDITION_KINDS", "REPRESENTATIONS", "ActionSpec", "ConditionSpec"]

REPRESENTATIONS = ("raw", "held", "path")
CONDITION_KINDS = ("none", "sketch", "latents")
BOUND_TOLERANCE = 1e-6  # as a share of each channel's largest bound: float32 rounds so much
LARGEST_BOUND, LEAST_RANGE = 1e9, 1e-9  # float32 can scale what lies between
MOST_NUMBERS = 2**22  # in one sequence of actions, or in one input of the condition: 16 MiB
MOST_STEPS, MOST_TOKENS = 100_000, 2**16


@dataclass(frozen=True)
class ActionSpec(Settings):
    """The contract of one action sequence `[L, A]`; L is `horizon * action_block`.

    Raises:
        ActionError: On construction, for fields that contradict one another.
    """

    error: ClassVar[Any] = ActionError
    newer: ClassVar[Any] = ("displacement_scale",)

    action_block: int = setting(250, "Actions in one world-model step.", low=1, high=MOST_STEPS)
    horizon: int = setting(
        1, "World-model steps in one sequence; each block is a gesture.", low=1, high=MOST_STEPS
    )
    channels: tuple[str, ...] = setting(("x", "y", "press"), "Names of the A channels, in order.")
    action_low: tuple[float, ...] = setting(
        (0.0, 0.0, 0.0), "Lower bound of each channel, in the planner's units."
    )
    action_high: tuple[float, ...] = setting((1.0, 1.0, 1.0), "Upper bound of each channel.")
    press_channel: str | None = setting(
        "press",
        "The channel that is 1 where the finger is down and 0 elsewhere; None for actions that are "
        "no touches: every gesture rule below is off.",
    )
    min_press_steps: int = setting(
        5,
        "Shortest press of a valid gesture; 0 allows a block without one.",
        low=0,
        high=MOST_STEPS,
    )
    max_press_steps: int | None = setting(
        75, "Longest press of a valid gesture, or None for the whole block.", low=0, high=MOST_STEPS
    )
    path_knots: int | None = setting(
        2,
        "A valid path is piecewise linear between so many knots, evenly spaced over the press (2: "
        "a straight line); None allows any path.",
        low=2,
        high=MOST_STEPS,
    )
    representation: str = setting(
        "path", "What is diffused, see vj2_ddim_plugin.gestures.", choices=REPRESENTATIONS
    )
    normalized: bool = setting(
        True,
        "Whether the sampler works in units of about 1 around 0 instead of the planner's, as the "
        "original script's checkpoints do.",
    )
    displacement_scale: float = setting(
        1.0,
        "One unit of the sampler of a path's displacements, as a share of that of its places (half "
        "of a coordinate's range), so that short ones do not drown in noise.",
        above=0.0,
        high=1.0,
    )
    rate_hz: float = setting(500.0, "Actions a second, for display only.", above=0.0, high=1e6)

    def check(self) -> None:
        """Refuse fields that contradict one another."""
        if bad := [name for name in self.channels if not name or name != name.strip()]:
            raise ActionError(
                f"channels must be names without blanks around them; found {bad[0]!r} in "
                f"{list(self.channels)}"
            )
        sized = (self.channels, set(self.channels), self.action_low, self.action_high)
        if len({len(values) for values in sized}) > 1:
            raise ActionError(
                f"channels, action_low, action_high repeat or differ in length: {sized}"
            )
        bounds = self.action_low + self.action_high
        if not (bounds and all(-LARGEST_BOUND <= bound <= LARGEST_BOUND for bound in bounds)):
            raise ActionError(
                f"need one channel or more, action_low and action_high finite and within "
                f"{LARGEST_BOUND:g}; found {shown(bounds)}"
            )
        if not all(
            high - low >= BOUND_TOLERANCE * max(abs(low), abs(high)) + LEAST_RANGE
            for low, high in zip(self.action_low, self.action_high, strict=True)
        ):
            raise ActionError(
                f"need finite action_low < action_high, further apart than float32 rounds; found "
                f"{shown(self.action_low)} and {shown(self.action_high)}"
            )
        if self.length * self.num_channels > MOST_NUMBERS:
            raise ActionError(
                f"action_block {self.action_block} by horizon {self.horizon} by "
                f"{self.num_channels} channels is more than {MOST_NUMBERS} numbers a sequence"
            )
        if self.press_channel is not None:
            self._check_gesture_rules()
        elif self.representation != "raw":
            found = self.representation
            raise ActionError(f"representation {found!r} needs a press_channel; or use 'raw'")

    def _check_gesture_rules(self) -> None:
        if self.press_channel not in self.channels:
            raise ActionError(f"press_channel {self.press_channel!r} is not in {self.channels}")
        if self.action_low[self.press_index] > 0 or self.action_high[self.press_index] < 1:
            raise ActionError("the action_low and action_high of press_channel must hold 0 and 1")
        if not self.min_press_steps <= self.longest_press <= self.action_block:
            found = f"{self.min_press_steps}, {self.max_press_steps}, {self.action_block}"
            raise ActionError(
                f"need 0 <= min_press_steps <= max_press_steps <= action_block; found {found}"
            )
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
        import numpy as np  # not for the settings alone

        return np.array(self.action_low)

    @cached_property
    def high_array(self) -> FloatArray:
        """`action_high`, `[A]`."""
        import numpy as np

        return np.array(self.action_high)

    @cached_property
    def bound_slack(self) -> FloatArray:
        """`[A]`, how far beyond its bounds a value is still within them: what float32 rounds."""
        largest: FloatArray = abs(self.low_array)
        return BOUND_TOLERANCE * largest.clip(abs(self.high_array))

    @property
    def diffused_shape(self) -> tuple[int, int]:
        """`(M, C)` of the array that is diffused for one sequence."""
        if self.representation == "path":
            numbers = self.required_path_knots * (self.num_channels - 1) + 2
            return numbers * self.horizon, 1
        return self.length, self.num_channels


@dataclass(frozen=True)
class ConditionSpec(Settings):
    """What a model is conditioned on.

    Raises:
        BundleError: On construction, for fields that contradict one another.
    """

    error: ClassVar[Any] = BundleError
    newer: ClassVar[Any] = ("guidance",)

    kind: str = setting("none", "What the inputs are.", choices=CONDITION_KINDS)
    inputs: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict, metadata={"setting": Setting("Their shapes, without a batch axis.")}
    )
    num_tokens: int = setting(0, "S, condition tokens the encoder makes.", low=0, high=MOST_TOKENS)
    width: int = setting(0, "W, the width of a token.", low=0, high=MOST_TOKENS)
    guidance: bool = setting(
        True, "Whether the model was trained without its condition as well, which guidance needs."
    )

    def check(self) -> None:
        """An unconditional model has none of it; a sketch is one input, a token for each number."""
        shapes, tokens = dict(self.inputs), (self.num_tokens, self.width)
        if {self.kind != "none"} != {bool(shapes), self.num_tokens > 0, self.width > 0}:
            raise BundleError(
                f"condition is of kind {self.kind!r} but has inputs {shown(sorted(shapes))} and "
                f"{self.num_tokens} tokens of width {self.width}"
            )
        for each in (tokens, *shapes.values()):
            if max(each, default=0) > MOST_TOKENS or prod(each) > MOST_NUMBERS:
                raise BundleError(
                    f"condition has the size {shown(each)}, more than {MOST_NUMBERS} numbers or "
                    f"{MOST_TOKENS} along an axis"
                )
        if (self.kind == "sketch") != ("sketch" in shapes) or (
            self.kind == "sketch" and shapes != {"sketch": (self.num_tokens,)}
        ):
            raise BundleError(
                f"condition is of kind {self.kind!r} but has inputs {shown(shapes)} for "
                f"{self.num_tokens} tokens; a sketch is one input, 'sketch', of a token a number"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with each input's shape and dtype."""
        inputs = {
            name: {"shape": list(shape), "dtype": "float32"} for name, shape in self.inputs.items()
        }
        return {**super().to_dict(), "inputs": inputs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; `BundleError` where a field or an input is not as it should."""
        inputs = values.get("inputs")
        if isinstance(inputs, Mapping):
            values = {**values, "inputs": {name: _shape_of(name, inputs[name]) for name in inputs}}
        return super().from_dict(values)


def _shape_of(name: str, entry: Any) -> tuple[int, ...]:  # noqa: ANN401
    """The shape of a named input, as a manifest or checkpoint says it."""
    if not isinstance(entry, Mapping) or set(entry) != {"shape", "dtype"}:
        raise BundleError(
            f"condition inputs: {name!r} must hold shape and dtype; found {shown(entry)}"
        )
    if entry["dtype"] != "float32":
        raise BundleError(
            f"condition input {name!r} has dtype {entry['dtype']!r}; expected 'float32'"
        )
    shape = entry["shape"]
    if not isinstance(shape, list) or any(type(size) is not int or size < 1 for size in shape):
        raise BundleError(f"condition inputs: {name!r} has no such shape: {shown(shape)}")
    return tuple(shape)
