"""What lies under the finger: a small window of the screen, cut out around each position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Glimpse", "sample_windows"]

CELLS = 4  # each patch is unfolded into this many cells a side
CHANNELS = 6  # numbers in a cell: a colour and a little more
WINDOW = 9  # cells a side of a window


def sample_windows(maps: Tensor, positions: Tensor, window: int) -> Tensor:
    """Bilinear samples, one map cell apart, of square windows; zero beyond the map.

    Args:
        maps: `[n, C, S, S]`, rows then columns.
        positions: `[n, K, 2]` of x and y in [0, 1], the windows' centres.
        window: Samples a side, P.

    Returns:
        `[n, K, C, P, P]`; differentiable in the maps and the positions.
    """
    side = maps.shape[-1]
    shifts = torch.arange(window, device=maps.device, dtype=maps.dtype) - (window - 1) / 2
    cells = torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5
    points = positions.transpose(1, 2)[..., None] * side + shifts  # [n, 2, K, P]
    weights = (1 - (points[..., None] - cells).abs()).clamp(min=0)  # [n, 2, K, P, S]
    return torch.einsum("nkps,ncst,nkqt->nkcpq", weights[:, 1], maps, weights[:, 0])


class Glimpse(nn.Module):
    """Latents and positions to one feature vector: what is there, around each of them.

    A learned linear map unfolds each token into a grid of cells, so that positions inside a patch
    are told apart; a small network reads the windows around the positions. Whether a tap hits a
    button is so learned once for all places on the screen.
    """

    def __init__(self, grid: int, token_dim: int, width: int, *, num_positions: int) -> None:
        """Make a glimpse at `num_positions` positions of `grid` x `grid` tokens."""
        super().__init__()
        self.grid = grid
        self.unfold = nn.Linear(token_dim, CHANNELS * CELLS**2)
        self.look = nn.Sequential(
            nn.Linear(num_positions * CHANNELS * WINDOW**2, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, z: Tensor, positions: Tensor) -> Tensor:
        """Latents `[n, N, D]` and positions `[n, K, 2]` to features `[n, width]`."""
        cells = self.unfold(z).reshape(-1, self.grid, self.grid, CHANNELS, CELLS, CELLS)
        side = self.grid * CELLS
        maps = cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, CHANNELS, side, side)
        seen: Tensor = self.look(sample_windows(maps, positions, WINDOW).flatten(1))
        return seen
