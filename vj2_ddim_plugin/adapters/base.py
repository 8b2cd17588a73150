"""What every adapter shares: tensors in, an optimizer's arrays between, one checked plan out.

Hosts check little of what passes between them and a planner; the one place that does is here.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError, CostError
from vj2_ddim_plugin.gestures import outside_bounds, pressed
from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    FloatArray,
    PlanningProblem,
    PlanResult,
)
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.remote import RemoteOptimizer, RemoteSettings
from vj2_ddim_plugin.settings import declared
from vj2_ddim_plugin.spec import ActionSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HostPlanner", "RowCost", "check_fit", "check_shape", "host_settings"]

logger = logging.getLogger(__name__)

RowCost: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Cost `[n]` of actions `[n, l, A]` for the problems whose numbers are `[n]`."""


class HostPlanner:
    """The base of an adapter. Not to be shared between threads: it remembers its last call.

    Args:
        optimizer: A bundle's folder, the address of a served one (`http://host:port/NAME`), or any
            `ActionOptimizer` with an `action_spec`. A relative path starts where the program did,
            also where Hydra has changed the folder since.
        deadline_s: Seconds one plan may take, the host's encoding included, or None.
        seed: Of each plan's randomness; None leaves the optimizer's own.
        rows_per_chunk: Candidates in one pass through the world model, which bounds its memory.
        **settings: Of `DDIMOptimizer.from_bundle` or `RemoteOptimizer.connect`, when `optimizer`
            is a folder or an address.

    Attributes:
        last_result: The whole result of the last call, failures and provider included; None
            before it, and after a call that raised. Its `actions` are those that are handed over,
            before they are rounded to the host's dtype.

    Raises:
        ConfigError: The optimizer does not say what it plans, or a setting is wrong or has no use.
        BundleError: The folder is not a bundle.
    """

    host: ClassVar[str] = "the host"

    def __init__(
        self,
        optimizer: ActionOptimizer | Path | str,
        *,
        deadline_s: float | None = None,
        seed: int | None = None,
        rows_per_chunk: int = 64,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        if isinstance(optimizer, str | Path):
            optimizer = load_optimizer(optimizer, **settings)
        elif settings:
            raise ConfigError(
                f"{sorted(settings)} belong to a bundle that is loaded here; this optimizer is "
                f"made already, set them there"
            )
        if rows_per_chunk < 1:
            raise ConfigError(f"rows_per_chunk must be at least 1; found {rows_per_chunk}")
        self.optimizer, self.action_spec = optimizer, spec_of(optimizer)
        self.deadline_s, self.seed, self.rows_per_chunk = deadline_s, seed, rows_per_chunk
        self.last_result: PlanResult | None = None
        self._begun = 0.0

    @property
    def deadline_s(self) -> float | None:
        """Seconds one plan may take, or None; `ConfigError` when it is set to anything else."""
        return self._deadline_s

    @deadline_s.setter
    def deadline_s(self, seconds: float | None) -> None:
        numeric = isinstance(seconds, int | float | np.number) and not isinstance(seconds, bool)
        if seconds is not None and (not numeric or math.isnan(seconds)):
            raise ConfigError(f"deadline_s must be a number of seconds, or None; found {seconds!r}")
        self._deadline_s = None if seconds is None else float(seconds)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the weights came from, as the optimizer's bundle says it; empty without one."""
        bundle = getattr(getattr(self.optimizer, "model", None), "bundle", None)
        found: Mapping[str, Any] = getattr(bundle, "provenance", {})
        return found

    def _begin(self) -> None:
        """Forget the last call; the deadline counts from here."""
        self.last_result, self._begun = None, time.perf_counter()

    def _plan(
        self,
        context: Mapping[str, FloatArray],
        cost: CostFn | None,
        init_action: FloatArray | None,
        batch: int,
    ) -> FloatArray:
        """From checked arrays to a checked plan `[B, L, A]`."""
        deadline = self.deadline_s
        if deadline is not None:
            deadline = max(0.0, deadline - (time.perf_counter() - self._begun))
        result = self.optimizer.optimize(
            PlanningProblem(context, cost, init_action, deadline, self.seed, batch)
        )
        actions = checked_plan(result.actions, self.action_spec, batch, self.host)
        self.last_result = result
        return actions

    def _optimize(
        self,
        context: Mapping[str, Tensor],
        cost: RowCost,
        *,
        like: Tensor,
        length: int,
        init_action: Tensor | None = None,
        rows_per_chunk: int | None = None,
        limit: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """From a host's latents `[B, ...]` and warm start `[B, l, A]` to a plan `[B, length, A]`.

        Candidates and plan end at `length`, which is at most L, and are of the device and dtype of
        `like`. `limit` is what the host makes of actions `[n, length, A]` before it executes them:
        `last_result` has the actions after it, the cost and who calls apply it themselves.
        """
        batch, warm_start = len(next(iter(context.values()))), None
        if init_action is not None:
            warm_start = checked_init_action(init_action, self.action_spec, batch)
        arrays = wanted_context(self.optimizer, context, self.host)
        array_cost = self._array_cost(cost, like, length, rows_per_chunk or self.rows_per_chunk)
        actions = self._plan(arrays, array_cost, warm_start, batch)[:, :length]
        planned = self._as_tensor(actions, like)
        if limit is not None:
            actions = limit(planned).float().cpu().numpy()
        if self.last_result is not None:
            self.last_result = replace(self.last_result, actions=actions)
        return planned

    def _as_tensor(self, actions: FloatArray, like: Tensor) -> Tensor:
        """`[..., A]` with the device and dtype of `like`, which do not round it out of bounds."""
        import torch

        tensor = torch.tensor(actions, dtype=like.dtype, device=like.device)
        eps = torch.finfo(like.dtype).eps
        if eps <= np.finfo(np.float32).eps:
            return tensor
        spec = self.action_spec
        low, high = (torch.tensor(bound) for bound in (spec.low_array, spec.high_array))
        # a bound that rounds outward is moved inward, by more than it was rounded
        lowest, highest = low.to(like.dtype), high.to(like.dtype)
        lowest = torch.where(lowest < low, low + eps * low.abs(), low).to(tensor)
        highest = torch.where(highest > high, high - eps * high.abs(), high).to(tensor)
        clamped = tensor.clamp(lowest, highest)
        if spec.press_channel is None:
            return clamped
        down = torch.from_numpy(pressed(actions, spec)[..., None]).to(tensor.device)
        return torch.where(down, clamped, tensor)

    def _array_cost(self, cost: RowCost, like: Tensor, length: int, chunk: int) -> CostFn:
        """The host's cost as the optimizer calls it: `[B, K, L, A]` to `[B, K]`, in numpy."""
        import torch

        @torch.inference_mode()
        def array_cost(candidates: FloatArray) -> FloatArray:
            batch, count = candidates.shape[:2]
            flat = self._as_tensor(candidates[:, :, :length], like).flatten(0, 1)
            numbers = torch.arange(batch, device=like.device).repeat_interleave(count)
            parts = (torch.split(values, chunk) for values in (numbers, flat))
            costs = [
                checked_costs(cost(rows, actions), len(rows), self.host).float().cpu()
                for rows, actions in zip(*parts, strict=True)
            ]
            values: FloatArray = torch.cat(costs).reshape(batch, count).numpy()
            return values

        return array_cost

    def _in_bounds(self, actions: Tensor) -> Tensor:
        """Actions `[n, l, A]` that a host has limited, as a warm start may be."""
        import torch

        spec = self.action_spec
        return actions.clamp(
            *(torch.tensor(b).to(actions) for b in (spec.low_array, spec.high_array))
        )

    def _in_blocks(self, actions: Tensor) -> Tensor:
        """Actions `[n, l, A]` as the host's world-model steps `[n, l / action_block, D]`."""
        width = self.action_spec.action_block * self.action_spec.num_channels
        return actions.reshape(len(actions), -1, width)

    def _in_actions(self, blocks: Tensor) -> Tensor:
        """The inverse of `_in_blocks`."""
        return blocks.reshape(len(blocks), -1, self.action_spec.num_channels)

    def _warm_start(self, name: str, blocks: Tensor | None, width: int) -> Tensor | None:
        """A host's warm start `[B, t, width]` as actions `[B, l, A]`; None without one."""
        if blocks is not None and (blocks.ndim != 3 or blocks.shape[2] != width):
            raise ContextError(f"{name} has shape {tuple(blocks.shape)}; expected (B, t, {width})")
        return None if blocks is None else self._in_actions(blocks)


def load_optimizer(where: Path | str, **settings: Any) -> DDIMOptimizer:  # noqa: ANN401
    """The optimizer of a bundle's folder, or of the address of a served one."""
    if isinstance(where, str) and where.startswith(("http://", "https://")):
        return RemoteOptimizer.connect(where, **settings)
    return DDIMOptimizer.from_bundle(from_start(where), **settings)


def from_start(path: Path | str) -> Path:
    """A path as it was meant where the program started, although Hydra has changed the folder."""
    config = getattr(sys.modules.get("hydra.core.hydra_config"), "HydraConfig", None)
    if config is None or not config.initialized() or Path(path).exists():
        return Path(path)
    return Path(config.get().runtime.cwd, path)


OPTIMIZER_SETTINGS = frozenset(
    {
        *("session", "on_failure"),
        *declared(SearchSettings),
        *declared(SessionSettings),
        *declared(RemoteSettings),
    }
)
THEIRS = frozenset({"temperature"})  # also a setting of the hosts' MPPI, and meant so by them


def warn_unused(planner: str, names: Collection[str]) -> None:
    """Name in one warning what stays of the settings of the planner that is replaced."""
    if names:
        logger.warning(
            "%s does not use %s: settings of the planner that it replaces. Its optimizer's own "
            "are in settings={...}",
            planner,
            ", ".join(sorted(names)),
        )


def host_settings(planner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `HostPlanner`; of others, an optimizer's are a `ConfigError`, the rest is logged."""
    own = {name: given[name] for name in ("deadline_s", "seed", "rows_per_chunk") if name in given}
    unused = sorted(set(given) - set(own))
    if lost := [name for name in unused if name in OPTIMIZER_SETTINGS - THEIRS]:
        raise ConfigError(
            f"{lost} would mean nothing to {planner} here: they are settings of the bundle's "
            f"optimizer. Put them in settings={{...}}"
        )
    warn_unused(planner, unused)
    return own


def spec_of(optimizer: ActionOptimizer) -> ActionSpec:
    """The `ActionSpec` that an optimizer plans by, or `ConfigError` where it has none."""
    spec = getattr(optimizer, "action_spec", None)
    if not isinstance(optimizer, ActionOptimizer) or not isinstance(spec, ActionSpec):
        raise ConfigError(
            f"an adapter needs a bundle's folder, or an optimizer with a method 'optimize' and an "
            f"ActionSpec as its attribute 'action_spec'; found {type(optimizer).__name__}"
        )
    return spec


def inputs_of(optimizer: ActionOptimizer) -> Mapping[str, tuple[int, ...]] | None:
    """What an optimizer is conditioned on, by name; None where it does not say."""
    condition = getattr(getattr(optimizer, "model", None), "condition", None)
    inputs: Mapping[str, tuple[int, ...]] | None = getattr(condition, "inputs", None)
    return inputs


def wanted_context(
    optimizer: ActionOptimizer, given: Mapping[str, Tensor], host: str
) -> dict[str, FloatArray]:
    """The tensors `[B, ...]` that an optimizer is conditioned on, as arrays; or else all."""
    inputs = inputs_of(optimizer)
    names = sorted(given if inputs is None else inputs)
    if missing := sorted(set(names) - set(given)):
        raise ContextError(
            f"this optimizer is conditioned on {missing}, which {host} does not have; it gives "
            f"{sorted(given)}. Train on latents (state and goal) instead"
        )
    return {name: given[name].detach().float().cpu().numpy() for name in names}


def check_fit(spec: ActionSpec, *, horizon: int | None, action_dim: int, host: str) -> None:
    """Raise `ActionError` unless a host's plans `[horizon, action_dim]` begin what `spec` makes."""
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
    """Raise `ContextError` unless a tensor has the shape that `axes` names."""
    if tuple(found) != tuple(expected):
        raise ContextError(f"{name} has shape {list(found)}; expected {axes} = {list(expected)}")


def checked_costs(costs: Tensor, count: int, host: str) -> Tensor:
    """What a host's objective said of `count` candidates, `[count]`, or `CostError`."""
    if tuple(costs.shape) != (count,):
        raise CostError(
            f"the objective of {host} returned shape {list(costs.shape)} for {count} candidates; "
            f"expected [{count}], one number each"
        )
    return costs


def checked_init_action(actions: Tensor, spec: ActionSpec, batch: int) -> FloatArray | None:
    """A host's warm start `[B, l, A]`, l <= L, as float32; None when it is empty.

    What leaves the bounds by no more than its dtype rounds by is put on them.
    """
    import torch

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
    array: FloatArray = actions.detach().float().cpu().numpy()
    if actions.is_floating_point():
        low, high = spec.low_array, spec.high_array
        slack = torch.finfo(actions.dtype).eps * np.maximum(np.abs(low), np.abs(high))
        clipped = np.clip(array, low, high).astype(np.float32)
        array = np.where(np.abs(array - clipped) <= slack, clipped, array)
    if fault := _fault(array, spec):
        raise ContextError(f"the warm start {fault}. Clip it, or pass None")
    return array


def checked_plan(actions: FloatArray, spec: ActionSpec, batch: int, host: str) -> FloatArray:
    """What an optimizer hands to a host, `[B, L, A]`; `ActionError` unless finite and in bounds."""
    expected = (batch, spec.length, spec.num_channels)
    if actions.shape != expected:
        raise ActionError(f"the plan for {host} has shape {actions.shape}; expected {expected}")
    if fault := _fault(actions, spec):
        raise ActionError(f"the plan for {host} {fault}. Check the optimizer; leave projection on")
    return actions


def _fault(actions: FloatArray, spec: ActionSpec) -> str:
    """What is wrong with the values of `[B, l, A]`, or nothing."""
    if bad := int(np.sum(~np.isfinite(actions))):
        return f"has {bad} values that are NaN or infinite"
    outside = outside_bounds(actions, spec)
    if not outside.any():
        return ""
    channel = int(outside.any(axis=(0, 1)).argmax())
    low, high = spec.action_low[channel], spec.action_high[channel]
    values = actions[..., channel][outside[..., channel]]
    return (
        f"leaves the bounds of channel {spec.channels[channel]!r}: {values.min():g} to "
        f"{values.max():g}, allowed are {low:g} to {high:g}"
    )
