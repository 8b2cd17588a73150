"""State and goal latents as a condition.

Each patch becomes one token that sees its state, its goal and their difference, so that start can
be told from goal; a position embedding keeps *where*. Two layers mix the patches, then a few
learned queries gather what the denoiser needs, so that its cost does not grow with the patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.denoisers.layers import Attention, TransformerLayer

__all__ = ["LatentEncoder"]


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
        self.embed = nn.Linear(3 * latent_width, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, num_patches, width))
        self.layers = nn.ModuleList(TransformerLayer(width, nhead) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(0.02 * torch.randn(1, num_tokens, width))
        self.gather = Attention(width, nhead)

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Encode two `[B, N, D]` latents as `[B, num_tokens, width]` tokens."""
        tokens = self.embed(torch.cat([state, goal, goal - state], dim=-1)) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        queries = self.queries.expand(state.shape[0], -1, -1)  # len() would be a constant in ONNX
        gathered: Tensor = self.gather(queries, self.norm(tokens))
        return gathered + queries
