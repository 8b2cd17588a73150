"""What a sampling planner searches over, as arrays `[..., M, C]` of about unit size around 0."""

from dataclasses import replace

import numpy as np

from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ActionError, ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec


class ActionKnots:
    """Actions at knots evenly spaced in time, linear in between; [-1, 1] from bound to bound."""

    def __init__(self, spec: ActionSpec, num_knots: int | None = None) -> None:
        most = spec.length
        if num_knots is not None and not 2 <= num_knots <= most:
            raise ConfigError(f"num_knots must be 2 to {most} (L), or None; found {num_knots}")
        self.shape = (num_knots or spec.length, spec.num_channels)
        self._middle = (spec.low_array + spec.high_array) / 2
        self._reach = (spec.high_array - spec.low_array) / 2
        self._basis = self._solver = None
        if num_knots is not None:
            position = np.linspace(0.0, num_knots - 1.0, spec.length)
            self._basis = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(num_knots)))
            self._solver = np.linalg.pinv(self._basis)

    def clip(self, parameters: FloatArray) -> FloatArray:
        """Into [-1, 1]."""
        return np.clip(parameters, -1.0, 1.0)

    def decode(self, parameters: FloatArray) -> FloatArray:
        """Interpolate, in the planner's units."""
        values = parameters if self._basis is None else self._basis @ parameters
        return (self._middle + self._reach * values).astype(np.float32)

    def encode(self, actions: FloatArray) -> FloatArray:
        """The least-squares knots, clipped to the bounds."""
        values = (np.asarray(actions, np.float64) - self._middle) / self._reach
        knots = values if self._solver is None else self._solver @ values
        return self.clip(knots)


class GestureParameters:
    """The spec's `path`: start, displacements, press and release time, a set for each block."""

    def __init__(self, spec: ActionSpec) -> None:
        try:
            self._spec = replace(
                spec, representation="path", normalized=True, displacement_scale=1.0
            )
            self.shape = self._spec.diffused_shape
        except ActionError as error:
            raise ConfigError(f"these actions have no gesture parameters: {error}") from error

    def clip(self, parameters: FloatArray) -> FloatArray:
        """Into screen, block and valid length; released before it is pressed, it becomes a tap."""
        spec, lead = self._spec, parameters.shape[:-2]
        blocks = parameters.reshape(*lead, spec.horizon, -1)
        steps = blocks[..., :-2].reshape(*lead, spec.horizon, spec.required_path_knots, -1)
        press, release = blocks[..., -2:-1], blocks[..., -1:]
        knots = np.clip(steps.cumsum(axis=-2), -1.0, 1.0)
        knots = np.where((release <= press)[..., None], knots[..., :1, :], knots)
        path = np.diff(knots, axis=-2, prepend=0.0).reshape(*lead, spec.horizon, -1)
        unit = 2 / spec.action_block  # one action, in the half blocks that times are measured in
        length = np.clip(release - press, unit * spec.min_press_steps, unit * spec.longest_press)
        press = np.clip(press, -1.0, 1.0 - length)
        kept = np.concatenate([path, press, press + length], axis=-1)
        return kept.reshape(parameters.shape)

    def decode(self, parameters: FloatArray) -> FloatArray:
        """Draw the gestures."""
        return gestures.decode(parameters, self._spec).astype(np.float32)

    def encode(self, actions: FloatArray) -> FloatArray:
        """The parameters of the projected actions."""
        valid = gestures.project(np.asarray(actions, np.float64), self._spec)
        return gestures.encode(valid, self._spec)


ParameterSpace = ActionKnots | GestureParameters
"""`shape` is `(M, C)`; 0 is the middle of all that is possible."""


def natural_space(spec: ActionSpec) -> ParameterSpace:
    """Gesture parameters for touches whose paths have knots, the actions themselves otherwise."""
    if spec.press_channel is None or spec.path_knots is None:
        return ActionKnots(spec)
    return GestureParameters(spec)


def draw_sequences(num: int, spec: ActionSpec, rng: np.random.Generator) -> FloatArray:
    """Sequences `[num, L, A]` of one tap or drag a block, half of each, anywhere on the screen."""
    blocks = random_policy(num * spec.horizon, rng)
    return blocks.reshape(num, spec.length, spec.num_channels)
