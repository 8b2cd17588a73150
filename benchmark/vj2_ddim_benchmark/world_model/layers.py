"""The predictor's layers: neighbours first, then the whole screen."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NeighbourLayer", "screen_layer"]


class NeighbourLayer(nn.Module):
    """A pre-norm residual 3 x 3 convolution over the grid of tokens: most effects are local."""

    def __init__(self, grid: int, width: int) -> None:
        """Make a layer for `grid` x `grid` tokens."""
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.write = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Tokens `[n, N, width]` to tokens of the same shape."""
        square = self.norm(hidden).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        mixed = self.mix(square).flatten(2).transpose(1, 2)
        result: Tensor = hidden + self.write(functional.gelu(mixed))
        return result


def screen_layer(width: int, num_heads: int) -> nn.Module:
    """A pre-norm transformer layer over all tokens: a key may change a display far from it."""
    return nn.TransformerEncoderLayer(
        width,
        num_heads,
        dim_feedforward=4 * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
