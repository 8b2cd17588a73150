"""The predictor: latents and an action block in, the next latents out, as in VJ2-GUI."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.world_model.glimpse import Glimpse
from vj2_ddim_benchmark.world_model.layers import NeighbourLayer, screen_layer
from vj2_ddim_benchmark.world_model.touch import TouchMap, press_knots
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError

__all__ = ["Predictor"]

NUM_CHANNELS = 3  # x, y, press


class Predictor(nn.Module):
    """Predicts the latents that follow each step's action block.

    The screen's tokens, with a learned position, the touch as each of them sees it and a glimpse
    of what lies where it begins and ends, go through alternating layers over neighbours and over
    the whole screen; their output is added to the latents. What a touch adds vanishes smoothly
    with its press. Each step is predicted from its own latents and its own block alone: the touch
    screen is Markov, so time is folded into the batch. Differentiable in latents and actions.
    """

    def __init__(
        self,
        *,
        num_tokens: int = 64,
        token_dim: int = 32,
        action_block: int = 250,
        width: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        num_knots: int = 5,
    ) -> None:
        """Make an untrained predictor, which predicts no change.

        Raises:
            ConfigError: `num_tokens` is not a square, or the heads do not divide the width.
        """
        super().__init__()
        grid = math.isqrt(num_tokens)
        if grid**2 != num_tokens:
            raise ConfigError(f"num_tokens must be a square number; found {num_tokens}")
        if width % num_heads:
            raise ConfigError(f"num_heads must divide width; found {num_heads} and {width}")
        self.num_tokens, self.token_dim, self.action_block = num_tokens, token_dim, action_block
        self.read = nn.Linear(token_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        self.num_knots = num_knots
        self.touch = TouchMap(grid, width, num_knots=num_knots)
        self.glimpse = Glimpse(grid, token_dim, width, num_positions=2)
        self.mix = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        layers: list[nn.Module] = [NeighbourLayer(grid, width)]
        for _ in range(num_layers):
            layers += [screen_layer(width, num_heads), NeighbourLayer(grid, width)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, token_dim)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict the latents after each step.

        Args:
            z: Latents `[B, T, N, D]`.
            actions: One block a step, `[B, T, L * A]` or `[B, T, L, A]`, x and y in [0, 1].

        Returns:
            `[B, T, N, D]`; entry t is the prediction of the latents at t + 1.

        Raises:
            ContextError: The latents have another shape.
            ActionError: The actions have another shape.
        """
        if z.ndim != 4 or z.shape[2:] != (self.num_tokens, self.token_dim):
            raise ContextError(
                f"latents must be [B, T, {self.num_tokens}, {self.token_dim}]; found "
                f"{list(z.shape)}"
            )
        size = self.action_block * NUM_CHANNELS
        if actions.shape[:2] != z.shape[:2] or actions.shape[2:].numel() != size:
            raise ActionError(
                f"actions must be [{z.shape[0]}, {z.shape[1]}, {size}] or [.., "
                f"{self.action_block}, {NUM_CHANNELS}]; found {list(actions.shape)}"
            )
        blocks = actions.reshape(-1, self.action_block, NUM_CHANNELS)
        hidden = self.layers(self._see(z.flatten(0, 1), blocks))
        predicted: Tensor = z + self.write(self.norm(hidden)).reshape(z.shape)
        return predicted

    def _see(self, z: Tensor, blocks: Tensor) -> Tensor:
        """Latents `[n, N, D]` and blocks `[n, L, A]` to the transformer's input `[n, N, width]`."""
        positions, steps = press_knots(blocks, self.num_knots)
        touch = self.touch(positions, steps / self.action_block)
        touch = touch + self.glimpse(z, positions[:, [0, -1]])
        present = -torch.expm1(-steps)[:, None, None]
        seen = self.read(z) + self.position + touch * present
        hidden: Tensor = seen + self.mix(seen)
        return hidden
