"""The one place that checks what passes between a host and an optimizer: the hosts do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError, CostError
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray
from vj2_ddim_plugin.planning.checks import outside_bounds

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "check_fit",
    "check_shape",
    "checked_costs",
    "checked_init_action",
    "checked_plan",
    "spec_of",
    "wanted_context",
]


def spec_of(optimizer: ActionOptimizer) -> ActionSpec:
    """The `ActionSpec` that an optimizer plans by.

    Raises:
        ConfigError: It has no `optimize`, or no `action_spec`.
    """
    spec = getattr(optimizer, "action_spec", None)
    if not isinstance(optimizer, ActionOptimizer) or not isinstance(spec, ActionSpec):
        raise ConfigError(
            f"an adapter needs a bundle's folder, or an optimizer with a method 'optimize' and an "
            f"ActionSpec as its attribute 'action_spec'; found {type(optimizer).__name__}"
        )
    return spec


def wanted_context(
    optimizer: ActionOptimizer, given: Mapping[str, Tensor], host: str
) -> dict[str, FloatArray]:
    """The arrays of a host that this optimizer is conditioned on, float32 on the CPU.

    Args:
        optimizer: One that names its inputs (`model.condition`) gets these and no others; one
            that does not gets all.
        given: What the host has, tensors `[B, ...]`.
        host: The host's name, for messages.

    Raises:
        ContextError: The optimizer wants one that this host does not have.
    """
    condition = getattr(getattr(optimizer, "model", None), "condition", None)
    names = sorted(given) if condition is None else sorted(condition.inputs)
    missing = sorted(set(names) - set(given))
    if missing:
        raise ContextError(
            f"this optimizer is conditioned on {missing}, which {host} does not have; it gives "
            f"{sorted(given)}. Train on latents (state and goal) instead"
        )
    return {name: given[name].detach().float().cpu().numpy() for name in names}


def check_fit(spec: ActionSpec, *, horizon: int | None, action_dim: int, host: str) -> None:
    """Whether a host's plans `[horizon, action_dim]` are the beginning of what `spec` makes.

    Args:
        spec: What the optimizer makes; one host action packs `action_block` of its actions.
        horizon: World-model steps the host plans, or None where that is not settled yet.
        action_dim: Numbers the host passes to its world model a step.
        host: The host's name, for messages.

    Raises:
        ActionError: The sizes do not fit.
    """
    width = spec.action_block * spec.num_channels
    if action_dim != width:
        raise ActionError(
            f"{host} takes {action_dim} numbers a world-model step, the optimizer makes {width} "
            f"(action_block {spec.action_block} x {spec.num_channels} channels). Train on this "
            f"host's actions"
        )
    if horizon is not None and not 1 <= horizon <= spec.horizon:
        raise ActionError(
            f"{host} plans {horizon} world-model steps, the optimizer makes {spec.horizon}. Lower "
            f"the host's horizon, or train with that horizon"
        )


def check_shape(name: str, found: Sequence[int], expected: Sequence[int], axes: str) -> None:
    """Whether a tensor has the shape that `axes` names.

    Raises:
        ContextError: It has another.
    """
    if tuple(found) != tuple(expected):
        raise ContextError(f"{name} has shape {list(found)}; expected {axes} = {list(expected)}")


def checked_costs(costs: Tensor, count: int, host: str) -> Tensor:
    """What a host's objective said of `count` candidates, `[count]`.

    Raises:
        CostError: It is of another shape.
    """
    if tuple(costs.shape) != (count,):
        raise CostError(
            f"the objective of {host} returned shape {list(costs.shape)} for {count} candidates; "
            f"expected [{count}], one number each"
        )
    return costs


def checked_init_action(actions: Tensor, spec: ActionSpec, batch: int) -> FloatArray | None:
    """A host's warm start `[B, l, A]` with l <= L as float32; None when it is empty.

    What leaves the bounds by no more than its dtype rounds by is put on them.

    Raises:
        ContextError: Its shape is wrong, it is not finite, or it leaves the bounds.
    """
    if actions.ndim == 3 and actions.shape[1] == 0:
        return None
    length, channels = spec.length, spec.num_channels
    if actions.ndim != 3 or len(actions) != batch or actions.shape[2] != channels:
        raise ContextError(
            f"the warm start has shape {tuple(actions.shape)}; expected [{batch}, 1 to {length}, "
            f"{channels}]"
        )
    if actions.shape[1] > length:
        raise ContextError(f"the warm start is {actions.shape[1]} actions long, a plan {length}")
    array = _rounded_back(actions, spec)
    fault = _fault(array, spec)
    if fault:
        raise ContextError(f"the warm start {fault}. Clip it, or pass None")
    return array


def _rounded_back(actions: Tensor, spec: ActionSpec) -> FloatArray:
    """`[B, l, A]` as float32, with what left the bounds by rounding put back on them."""
    import torch

    array: FloatArray = actions.detach().float().cpu().numpy()
    if not actions.is_floating_point():
        return array
    low, high = spec.low_array, spec.high_array
    slack = torch.finfo(actions.dtype).eps * np.maximum(np.abs(low), np.abs(high))
    clipped = np.clip(array, low, high).astype(np.float32)
    return np.where(np.abs(array - clipped) <= slack, clipped, array)


def checked_plan(actions: FloatArray, spec: ActionSpec, batch: int, host: str) -> FloatArray:
    """What an optimizer hands to a host: `[B, L, A]`, finite and within its bounds.

    Raises:
        ActionError: It is not.
    """
    expected = (batch, spec.length, spec.num_channels)
    if actions.shape != expected:
        raise ActionError(f"the plan for {host} has shape {actions.shape}; expected {expected}")
    fault = _fault(actions, spec)
    if fault:
        raise ActionError(f"the plan for {host} {fault}. Check the optimizer; leave projection on")
    return actions


def _fault(actions: FloatArray, spec: ActionSpec) -> str:
    """What is wrong with the values of `[B, l, A]`, or nothing."""
    if not np.isfinite(actions).all():
        return f"has {int(np.sum(~np.isfinite(actions)))} values that are NaN or infinite"
    outside = outside_bounds(actions, spec)
    for channel in np.flatnonzero(outside.any(axis=(0, 1))):
        low, high = spec.action_low[channel], spec.action_high[channel]
        values = actions[..., channel][outside[..., channel]]
        return (
            f"leaves the bounds of channel {spec.channels[channel]!r}: {values.min():g} to "
            f"{values.max():g}, allowed are {low:g} to {high:g}"
        )
    return ""
