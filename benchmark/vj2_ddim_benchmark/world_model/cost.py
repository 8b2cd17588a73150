"""The planner's objective: how far the predicted latents are from the goal's."""

from __future__ import annotations

import torch
from torch import Tensor

from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["LatentCost", "latent_distance"]

ROWS_PER_CHUNK = 256  # candidates in one forward pass


def latent_distance(prediction: Tensor, goal: Tensor, kind: str) -> Tensor:
    """Mean squared (`"mse"`) or absolute (`"l1"`) difference of `[..., N, D]`, as `[...]`."""
    difference = prediction - goal
    return (difference.square() if kind == "mse" else difference.abs()).mean(dim=(-2, -1))


class LatentCost:
    """Cost of candidate plans for B problems: numpy in and out, the plugin's `CostFn`.

    Gradient-based planners call `torch_cost` instead.

    Args:
        world_model: What predicts; its configuration names the distance.
        state: Latents `[B, N, D]` to start from.
        goal: Latents `[B, N, D]` to reach.
        rows_per_chunk: Candidates in one forward pass, which bounds the memory.

    Raises:
        ContextError: On construction: `state` and `goal` are not alike `[B, N, D]`.
    """

    def __init__(
        self,
        world_model: WorldModel,
        state: FloatArray,
        goal: FloatArray,
        *,
        rows_per_chunk: int = ROWS_PER_CHUNK,
    ) -> None:
        config = world_model.config
        expected = (len(state), config.num_tokens, config.token_dim)
        if state.shape != expected or goal.shape != expected:
            raise ContextError(
                f"state and goal must both be [B, {config.num_tokens}, {config.token_dim}]; found "
                f"{list(state.shape)} and {list(goal.shape)}"
            )
        self.world_model, self.rows_per_chunk = world_model, rows_per_chunk
        self.state, self.goal = self._tensor(state), self._tensor(goal)

    def torch_cost(self, z_start: Tensor, z_goal: Tensor, actions: Tensor) -> Tensor:
        """Differentiable cost `[B, K]`, lower is better, of latents `[B, N, D]` and candidates.

        Candidates are `[B, K, L, 3]`; L may hold several action blocks.
        """
        if actions.ndim != 4 or len(actions) != len(z_start):
            raise ContextError(
                f"candidates must be [{len(z_start)}, K, L, A], one row a problem; found "
                f"{list(actions.shape)}"
            )
        repeated = (z.repeat_interleave(actions.shape[1], dim=0) for z in (z_start, z_goal))
        rows = (*repeated, actions.flatten(0, 1))
        kind = self.world_model.config.cost_kind
        costs = [
            latent_distance(self.world_model.rollout(start, chunk), goal, kind)
            for start, goal, chunk in zip(
                *(torch.split(each, self.rows_per_chunk) for each in rows), strict=True
            )
        ]
        return torch.cat(costs).reshape(actions.shape[:2])

    @torch.inference_mode()
    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """Cost `[B, K]` of candidates `[B, K, L, 3]`, in the candidates' own precision."""
        cost = self.torch_cost(self.state, self.goal, self._tensor(candidates))
        result: FloatArray = cost.cpu().numpy().astype(candidates.dtype)
        return result

    def _tensor(self, values: FloatArray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.world_model.device)
