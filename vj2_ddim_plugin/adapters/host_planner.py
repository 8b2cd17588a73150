"""What every adapter shares: tensors in, an optimizer's arrays between, one checked plan out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from vj2_ddim_plugin.adapters.checks import (
    checked_costs,
    checked_init_action,
    checked_plan,
    spec_of,
    wanted_context,
)
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
        ConfigError: The optimizer does not say what it plans, or a setting has no use.
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
        import torch

        batch = len(next(iter(context.values())))
        warm_start = None
        if init_action is not None:
            array = init_action.detach().float().cpu().numpy()
            warm_start = checked_init_action(array, self.action_spec, batch)
        arrays = wanted_context(self.optimizer, context, self.host)
        array_cost = self._array_cost(cost, like, length, rows_per_chunk or self.rows_per_chunk)
        deadline = self.deadline_s
        if deadline is not None:
            deadline = max(0.0, deadline - (time.perf_counter() - begun))
        result = self.optimizer.optimize(
            PlanningProblem(arrays, array_cost, warm_start, deadline, self.seed, batch)
        )
        self.last_result = result
        actions = checked_plan(result.actions, self.action_spec, batch, self.host)[:, :length]
        return torch.tensor(actions, dtype=like.dtype, device=like.device)

    def _array_cost(self, cost: RowCost, like: Tensor, length: int, chunk: int) -> CostFn:
        """The host's cost as the optimizer calls it: `[B, K, L, A]` to `[B, K]`, in numpy."""
        import torch

        @torch.inference_mode()
        def array_cost(candidates: FloatArray) -> FloatArray:
            batch, count = candidates.shape[:2]
            flat = torch.as_tensor(candidates[:, :, :length], dtype=like.dtype, device=like.device)
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
