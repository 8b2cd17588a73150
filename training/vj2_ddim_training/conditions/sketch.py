"""The sketch as a condition: each of its numbers becomes one token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vj2_ddim_training.denoisers.layers import fourier_features

__all__ = ["SketchEncoder"]

NUM_FREQUENCIES = 7


class SketchEncoder(nn.Module):
    """`sketch` `[B, n]` in [0, 1] to tokens `[B, n, width]`.

    Args:
        input_shapes: `{"sketch": (n,)}`.
        width: Token width.
    """

    def __init__(self, input_shapes: dict[str, tuple[int, ...]], width: int) -> None:
        super().__init__()
        (size,) = input_shapes["sketch"]
        self.num_tokens = size
        self.embed = nn.Linear(1 + 2 * NUM_FREQUENCIES, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, size, width))
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, sketch: Tensor) -> Tensor:
        """Encode `[B, n]` numbers as `[B, n, width]` tokens."""
        features = fourier_features(sketch.unsqueeze(-1), NUM_FREQUENCIES)
        tokens: Tensor = self.mix(self.embed(features) + self.position)
        return tokens
