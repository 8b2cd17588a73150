"""A predictor of VJ2-GUI's signature and size, with random weights: for its time alone.

Each of T frames is a token for its action block and its patches; a token attends to its frame and
those before. A learned position stands where VJ2-GUI rotates, which costs more.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.settings import PredictorSize
from vj2_ddim_plugin.errors import ActionError, ContextError
from vj2_ddim_plugin.interface import FloatArray


class ScalePredictor(nn.Module):
    """`(z [B, T, N, D], actions [B, T, L * A]) -> z`, with random weights."""

    mask: Tensor

    def __init__(self, size: PredictorSize) -> None:
        super().__init__()
        self.size, width = size, size.width
        self.read = nn.Linear(width, width)
        self.action_encoder = nn.Linear(size.action_width, width)
        self.position = nn.Parameter(0.02 * torch.randn(size.num_tokens, width))
        self.blocks = nn.ModuleList(_Block(width, size.num_heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, width)
        frame = torch.arange(size.num_tokens) // (size.num_patches + 1)
        self.register_buffer("mask", frame[:, None] >= frame[None, :], persistent=False)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict the latents `[B, T, N, D]` after each step."""
        size = self.size
        latents = [len(z), size.num_frames, size.num_patches, size.width]
        blocks = [len(z), size.num_frames, size.action_width]
        if list(z.shape) != latents:
            raise ContextError(f"latents must be {latents}; found {list(z.shape)}")
        if list(actions.shape) != blocks:
            raise ActionError(f"actions must be {blocks}; found {list(actions.shape)}")
        action_tokens = self.action_encoder(actions).unsqueeze(2)
        hidden = torch.cat([action_tokens, self.read(z)], dim=2).flatten(1, 2) + self.position
        for block in self.blocks:
            hidden = block(hidden, self.mask)
        patches = hidden.reshape(len(z), size.num_frames, -1, size.width)[:, :, 1:]
        return cast(Tensor, self.write(self.norm(patches)))


class _Block(nn.Module):
    """A pre-norm transformer layer; the feed-forward part is four times as wide."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        widen, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mix = nn.Sequential(widen, nn.GELU(), narrow)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, S, W]` to tokens; `mask` `[S, S]` is True where one may look."""
        heads = self.read(self.norms[0](hidden)).reshape(*hidden.shape[:2], 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.write(seen.transpose(1, 2).flatten(2))
        return hidden + cast(Tensor, self.mix(self.norms[1](hidden)))


class ScaleProblem:
    """A planning problem with VJ2-GUI's cost: how far the last predicted state is from the goal."""

    def __init__(self, size: PredictorSize, *, seed: int = 0, rows_per_chunk: int = 1) -> None:
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
        last: Tensor = self.predictor(self.states.expand(num, -1, -1, -1), blocks)[:, -1]
        return (last - self.goal).abs().mean(dim=(-2, -1))

    @torch.inference_mode()
    def rank(self, candidates: FloatArray) -> FloatArray:
        """Cost `[B, K]` of candidates `[B, K, L, A]`, in chunks, without autograd."""
        rows = torch.as_tensor(candidates, dtype=torch.float32).flatten(0, 1).flatten(1)
        costs = torch.cat([self.cost(chunk) for chunk in torch.split(rows, self.rows_per_chunk)])
        return np.asarray(costs.numpy().reshape(candidates.shape[:2]))


class Descent:
    """SGD on one plan; unless weights are frozen, as VJ2-GUI's are, they get gradients as well."""

    def __init__(self, problem: ScaleProblem, *, frozen: bool = True, lr: float = 0.1) -> None:
        self.problem, self.frozen = problem, frozen
        self.actions = torch.full((1, problem.size.action_width), 0.5, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.actions], lr=lr)

    def step(self) -> float:
        """One iteration: a forward and a backward pass, a step, and the bounds; the cost before."""
        weights = self.problem.predictor.requires_grad_(not self.frozen)
        self.optimizer.zero_grad()
        value = self.problem.cost(self.actions).sum()
        torch.autograd.backward(value)
        self.optimizer.step()
        with torch.no_grad():
            self.actions.clamp_(0.0, 1.0)
        weights.requires_grad_(False).zero_grad()
        return float(value.detach())
