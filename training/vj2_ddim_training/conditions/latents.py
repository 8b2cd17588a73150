"""State and goal latents as a condition.

Each patch becomes one token that sees its state, its goal and their difference, so that start can
be told from goal, and *where* it lies: a learned embedding, and on a square grid its coordinates as
well, from which a place can be read off linearly. A few layers mix the patches, then learned
queries gather what the denoiser needs, so that its cost does not grow with the patches. Attention
starts out as an average, in which the few patches that matter are lost, and takes many times longer
to find them. So half of the queries start out looking where goal and state differ (their attention
is weighted by the squared difference), and a maximum over the patches is added to what all gather.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.denoisers.layers import Attention, TransformerLayer, fourier_features

__all__ = ["LatentEncoder"]


NUM_FREQUENCIES = 4
LEAST_CHANGE = 1e-3  # squared difference, in variances of the latents, that counts as none


def _grid_features(num_patches: int) -> Tensor:
    """`[N, F]`: the centre of each patch of a square grid, and its Fourier features; else none."""
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        return torch.zeros(num_patches, 0)
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return fourier_features(torch.stack([x.flatten(), y.flatten()], dim=-1), NUM_FREQUENCIES)


class LatentEncoder(nn.Module):
    """`state` and `goal` latents `[B, N, D]` to tokens `[B, num_tokens, width]`.

    Args:
        input_shapes: `{"state": (N, D), "goal": (N, D)}`.
        width: Token width.
        num_layers: Layers that mix the patches.
        nhead: Attention heads.
        num_tokens: Tokens to gather.

    Raises:
        ConfigError: State and goal differ in shape.
    """

    grid: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        input_shapes: dict[str, tuple[int, ...]],
        width: int,
        num_layers: int = 2,
        nhead: int = 4,
        num_tokens: int = 16,
    ) -> None:
        super().__init__()
        if input_shapes["state"] != input_shapes["goal"]:
            raise ConfigError(
                f"state and goal latents must have one shape; found {input_shapes['state']} and "
                f"{input_shapes['goal']}"
            )
        num_patches, latent_width = input_shapes["state"]
        self.num_tokens = num_tokens
        self.register_buffer("grid", _grid_features(num_patches), persistent=False)
        self.register_buffer("latent_mean", torch.zeros(latent_width))
        self.register_buffer("latent_std", torch.ones(latent_width))
        self.embed = nn.Linear(3 * latent_width + 1 + self.grid.shape[-1], width)
        self.position = nn.Parameter(0.02 * torch.randn(1, num_patches, width))
        self.layers = nn.ModuleList(TransformerLayer(width, nhead) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, num_tokens, width))
        self.focus = nn.Parameter((torch.arange(num_tokens) % 2 == 0).float()[:, None])
        self.gather = Attention(width, nhead)
        self.pool = nn.Linear(width, width)

    def set_statistics(self, latents: Tensor) -> None:
        """Take mean and standard deviation from `[n, N, D]` training latents; they are saved."""
        self.latent_mean.copy_(latents.mean(dim=(0, 1)))
        self.latent_std.copy_(latents.std(dim=(0, 1)).clamp_min(1e-6))

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Encode two `[B, N, D]` latents as `[B, num_tokens, width]` tokens."""
        state = (state - self.latent_mean) / self.latent_std
        goal = (goal - self.latent_mean) / self.latent_std
        change = goal - state
        squared = change.square().mean(dim=-1, keepdim=True)
        energy = torch.log1p(squared)
        grid = self.grid.expand(state.shape[0], -1, -1)
        patches = torch.cat([state, goal, change, energy, grid], dim=-1)
        tokens = self.embed(patches) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        queries = self.queries.expand(state.shape[0], -1, -1)  # len() would be a constant in ONNX
        bias = self.focus * torch.log(squared + LEAST_CHANGE).transpose(1, 2)
        gathered: Tensor = self.gather(queries, tokens, bias.unsqueeze(1))
        largest: Tensor = self.pool(tokens).amax(dim=1, keepdim=True)
        return gathered + largest
