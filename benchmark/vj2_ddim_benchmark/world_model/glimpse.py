"""What lies under the finger: a small window of the screen, cut out around a touched position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Glimpse", "sample_windows"]

CELLS = 4  # each patch is unfolded into this many cells a side
SPACING = 1.0  # cells between samples of the window


def sample_windows(maps: Tensor, positions: Tensor, window: int) -> Tensor:
    """Bilinear samples of square windows around positions; zero beyond the map.

    Args:
        maps: `[n, C, S, S]`, rows then columns.
        positions: `[n, K, 2]` of x and y in [0, 1], centres of the windows.
        window: Samples a side, P, one map cell apart.

    Returns:
        `[n, K, C, P, P]`; differentiable in the maps and the positions.
    """
    side = maps.shape[-1]
    shifts = (torch.arange(window, device=maps.device, dtype=maps.dtype) - (window - 1) / 2) * (
        SPACING
    )
    cells = torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5
    points = positions.transpose(-1, -2)[..., None] * side + shifts  # [n, 2, K, P]
    weights = (1 - (points[..., None] - cells).abs()).clamp(min=0)  # [n, 2, K, P, S]
    columns, rows = weights[:, 0], weights[:, 1]
    return torch.einsum("nkps,ncst,nkqt->nkcpq", rows, maps, columns)


class Glimpse(nn.Module):
    """Latents and touched positions to one feature vector: what is there, around each position.

    A learned linear map unfolds each token into a grid of cells, so that positions inside a patch
    are told apart; windows of cells around the positions are read by a small network. Whether a
    tap hits a button is so learned once for all places on the screen.
    """

    def __init__(
        self, grid: int, token_dim: int, width: int, *, positions: int = 2, window: int = 9
    ) -> None:
        """Make a glimpse of `positions` windows over `grid` x `grid` tokens."""
        super().__init__()
        self.grid, self.window, self.channels = grid, window, 6
        self.unfold = nn.Linear(token_dim, self.channels * CELLS**2)
        self.look = nn.Sequential(
            nn.Linear(positions * self.channels * window**2, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, z: Tensor, positions: Tensor) -> Tensor:
        """Latents `[n, N, D]` and positions `[n, K, 2]` to features `[n, width]`."""
        cells = self.unfold(z).unflatten(1, (self.grid, self.grid))
        cells = cells.unflatten(-1, (self.channels, CELLS, CELLS))
        side = self.grid * CELLS
        maps = cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.channels, side, side)
        return self.look(sample_windows(maps, positions, self.window).flatten(1))
