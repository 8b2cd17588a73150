"""What every adapter shares: tensors in, an optimizer's arrays between, one checked plan out."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from vj2_ddim_plugin.adapters.checks import (
    checked_costs,
    checked_init_action,
    checked_plan,
    spec_of,
    wanted_context,
)
from vj2_ddim_plugin.adapters.deadline_setting import DeadlineSetting
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    FloatArray,
    PlanningProblem,
    PlanResult,
)
from vj2_ddim_plugin.optimizer import DDIMOptimizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HostPlanner", "RowCost"]

logger = logging.getLogger(__name__)

RowCost: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Cost `[n]` of actions `[n, l, A]` for the problems whose numbers are `[n]`."""


class HostPlanner:
    """The base of an adapter. Not to be shared between threads: it remembers its last call.

    Args:
        optimizer: A bundle's folder, or any `ActionOptimizer` with an `action_spec`.
        deadline_s: Seconds one plan may take, the host's encoding included, or None.
        seed: Of each plan's randomness; None leaves the optimizer's own.
        rows_per_chunk: Candidates in one pass through the world model, which bounds its memory.
        **settings: Of `DDIMOptimizer.from_bundle`, when `optimizer` is a folder.

    Attributes:
        last_result: The whole result of the last call, failures and provider included; None
            before it, and after a call that raised.

    Raises:
        ConfigError: The optimizer does not say what it plans, or a setting is wrong or has no use.
        BundleError: The folder is not a bundle.
    """

    host: ClassVar[str] = "the host"
    deadline_s = DeadlineSetting()

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
            optimizer = DDIMOptimizer.from_bundle(optimizer, **settings)
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

    def _leave_unused(self, unused: Mapping[str, Any]) -> None:
        """Say which settings of the planner that this one replaces mean nothing here.

        Raises:
            ConfigError: Some are settings of a `HostPlanner` or of the bundle's optimizer.
        """
        meant = sorted(set(unused) & _own_settings())
        if meant:
            raise ConfigError(
                f"{meant} would mean nothing to {type(self).__name__} here: they are settings of "
                f"the bundle's optimizer. Put them in settings={{...}}"
            )
        if unused:
            logger.warning("%s does not use %s", type(self).__name__, ", ".join(sorted(unused)))

    def _begin(self) -> float:
        """Forget the last call, and say when this one began."""
        self.last_result = None
        return time.perf_counter()

    def _optimize(
        self,
        context: Mapping[str, Tensor],
        cost: RowCost,
        *,
        like: Tensor,
        length: int,
        begun: float,
        init_action: Tensor | None = None,
        rows_per_chunk: int | None = None,
    ) -> Tensor:
        """Plan.

        Args:
            context: The host's latents, `[B, ...]` each.
            cost: Of candidates `[n, length, A]`, for the problems numbered `[n]`.
            like: Its device and dtype are those of the candidates and of the plan.
            length: Actions the host asks for, at most L; the cost and the plan end there.
            begun: When the host's call began, of `_begin`, for the deadline.
            init_action: `[B, l, A]`, the warm start, or None.
            rows_per_chunk: In place of the planner's own.

        Returns:
            `[B, length, A]`.
        """
        batch = len(next(iter(context.values())))
        warm_start = None
        if init_action is not None:
            warm_start = checked_init_action(init_action, self.action_spec, batch)
        arrays = wanted_context(self.optimizer, context, self.host)
        array_cost = self._array_cost(cost, like, length, rows_per_chunk or self.rows_per_chunk)
        deadline = self.deadline_s
        if deadline is not None:
            deadline = max(0.0, deadline - (time.perf_counter() - begun))
        result = self.optimizer.optimize(
            PlanningProblem(arrays, array_cost, warm_start, deadline, self.seed, batch)
        )
        actions = checked_plan(result.actions, self.action_spec, batch, self.host)
        self.last_result = result
        return self._as_tensor(actions[:, :length], like)

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
        pressed = torch.from_numpy(spec.pressed(actions)[..., None]).to(tensor.device)
        return torch.where(pressed, clamped, tensor)

    def _array_cost(self, cost: RowCost, like: Tensor, length: int, chunk: int) -> CostFn:
        """The host's cost as the optimizer calls it: `[B, K, L, A]` to `[B, K]`, in numpy."""
        import torch

        @torch.inference_mode()
        def array_cost(candidates: FloatArray) -> FloatArray:
            batch, count = candidates.shape[:2]
            flat = self._as_tensor(candidates[:, :, :length], like)
            numbers = torch.arange(batch, device=like.device).repeat_interleave(count)
            chunks = zip(
                torch.split(numbers, chunk), torch.split(flat.flatten(0, 1), chunk), strict=True
            )
            costs = [
                checked_costs(cost(rows, actions), len(rows), self.host).float().cpu()
                for rows, actions in chunks
            ]
            values: FloatArray = torch.cat(costs).reshape(batch, count).numpy()
            return values

        return array_cost

    def _in_blocks(self, actions: Tensor) -> Tensor:
        """Actions `[n, l, A]` as the host's world-model steps `[n, l / action_block, D]`."""
        width = self.action_spec.action_block * self.action_spec.num_channels
        return actions.reshape(len(actions), -1, width)

    def _in_actions(self, blocks: Tensor) -> Tensor:
        """The inverse of `_in_blocks`."""
        return blocks.reshape(len(blocks), -1, self.action_spec.num_channels)


def _own_settings() -> set[str]:
    """Every setting of a `HostPlanner` and of the optimizer that it loads from a bundle."""
    makers = (DDIMOptimizer, DDIMOptimizer.from_bundle, HostPlanner)
    names = {name for maker in makers for name in inspect.signature(maker).parameters}
    return names - {"model", "path", "optimizer", "settings"}
