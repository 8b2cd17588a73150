"""The host at this scale: its cost, one step of its gradient descent, and ranking by its cost."""

from __future__ import annotations

import torch
from torch import Tensor

from vj2_ddim_benchmark.scale.predictor import PredictorSize, ScalePredictor
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Descent", "Host"]


class Host:
    """One planning problem of a planner with a large predictor.

    The cost is VJ2-GUI's: the mean absolute difference of the last predicted state to the goal. The
    last T states are given, and the blocks between them; a plan is the block after the last.

    Args:
        size: Of the predictor.
        seed: Of its weights and of the problem.
        rows_per_chunk: Candidates in one forward pass when ranking.

    Raises:
        ConfigError: `rows_per_chunk` is not positive.
    """

    def __init__(self, size: PredictorSize, *, seed: int = 0, rows_per_chunk: int = 1) -> None:
        if rows_per_chunk < 1:
            raise ConfigError(f"rows_per_chunk must be at least 1; found {rows_per_chunk}")
        torch.manual_seed(seed)
        self.size, self.rows_per_chunk = size, rows_per_chunk
        self.predictor = ScalePredictor(size).eval().requires_grad_(False)
        latents = torch.randn(2, size.num_frames, size.num_patches, size.width)
        self.states, self.goal = latents[:1], latents[1:, -1]
        self.past = torch.zeros(1, size.num_frames - 1, size.action_width)

    def cost(self, actions: Tensor) -> Tensor:
        """Cost `[n]` of plans `[n, L * A]`, differentiable: one forward pass of n rows."""
        num = len(actions)
        blocks = torch.cat([self.past.expand(num, -1, -1), actions[:, None]], dim=1)
        last = self.predictor(self.states.expand(num, -1, -1, -1), blocks)[:, -1]
        cost: Tensor = (last - self.goal).abs().mean(dim=(-2, -1))
        return cost

    @torch.inference_mode()
    def rank(self, candidates: FloatArray) -> FloatArray:
        """Cost `[B, K]` of candidates `[B, K, L, A]`, in chunks, without autograd."""
        rows = torch.as_tensor(candidates, dtype=torch.float32).flatten(0, 1).flatten(1)
        costs = torch.cat([self.cost(chunk) for chunk in torch.split(rows, self.rows_per_chunk)])
        result: FloatArray = costs.numpy().reshape(candidates.shape[:2])
        return result


class Descent:
    """Gradient descent on one plan from one start, an iteration at a time.

    Args:
        host: Whose cost is descended.
        frozen: Whether only the actions get gradients. VJ2-GUI's loaders freeze the weights; a
            planner that does not also computes a gradient for every weight, and drops it.
        lr: Of SGD.
    """

    def __init__(self, host: Host, *, frozen: bool = True, lr: float = 0.1) -> None:
        self.host, self.frozen = host, frozen
        self.actions = torch.full((1, host.size.action_width), 0.5, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.actions], lr=lr)

    def step(self) -> float:
        """One iteration: a forward and a backward pass, a step, and the bounds; the cost before."""
        weights = self.host.predictor
        weights.requires_grad_(not self.frozen)
        try:
            self.optimizer.zero_grad()
            value = self.host.cost(self.actions).sum()
            torch.autograd.backward(value)
            self.optimizer.step()
            with torch.no_grad():
                self.actions.clamp_(0.0, 1.0)
        finally:
            weights.zero_grad(set_to_none=True)
            weights.requires_grad_(False)
        return float(value.detach())
