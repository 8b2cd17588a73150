"""What lies under the finger: the screen around each touched position, and all that looks like it.

Latents are unfolded into *cells*, small squares a quarter of a patch wide with three numbers each,
so that positions inside a patch are told apart. What a tap does to the thing under it is so
learned once for all places on the screen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.world_model.encoder import PatchEncoder

__all__ = ["Glimpse", "sample_windows"]

CELLS = 4  # cells along each side of a patch
CHANNELS = 3  # numbers in a cell, colours to begin with
WINDOW = 9  # cells along each side of a window
SHARPNESS = (20.0, 100.0)  # how fast likeness falls with squared distance, to begin with


def sample_windows(maps: Tensor, positions: Tensor, window: int) -> Tensor:
    """Bilinear samples, one map cell apart, of square windows; zero beyond the map.

    Args:
        maps: `[n, C, S, S]`, rows then columns.
        positions: `[n, K, 2]` of x and y in [0, 1], the windows' centres.
        window: Samples a side, P, an odd number.

    Returns:
        `[n, K, C, P, P]`; differentiable in the maps and the positions.
    """
    side = maps.shape[-1]
    shifts = torch.arange(window, device=maps.device, dtype=maps.dtype) - window // 2
    cells = torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5
    points = positions.transpose(1, 2)[..., None] * side + shifts  # [n, 2, K, P]
    weights = (1 - (points[..., None] - cells).abs()).clamp(min=0)  # [n, 2, K, P, S]
    return torch.einsum("nkps,ncst,nkqt->nkcpq", weights[:, 1], maps, weights[:, 0])


class Glimpse(nn.Module):
    """Latents and positions to features: the windows around them, and each cell's likeness.

    A cell's likeness is exp(-sharpness * squared distance) of its numbers and those right under
    the finger: a soft mask of the button that is touched.
    """

    def __init__(self, grid: int, token_dim: int, width: int, *, num_positions: int) -> None:
        """Make a glimpse at `num_positions` positions of `grid` x `grid` tokens."""
        super().__init__()
        self.grid = grid
        self.unfold = nn.Linear(token_dim, CHANNELS * CELLS**2)
        self.log_sharpness = nn.Parameter(torch.tensor(SHARPNESS).log())
        self.likeness = nn.Linear(num_positions * len(SHARPNESS) * CELLS**2, width)
        self.centre = nn.Linear(num_positions * CHANNELS, width)
        self.look = nn.Sequential(
            nn.Linear(num_positions * CHANNELS * WINDOW**2, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    @torch.no_grad()
    def see_colours(self, encoder: PatchEncoder) -> None:
        """Begin with cells that hold the colours the encoder saw, as well as they can be had."""
        self.unfold.weight.copy_(_cell_means(encoder, torch.linalg.pinv(encoder.projection)).T)
        self.unfold.bias.copy_(_cell_means(encoder, encoder.mean))

    def forward(self, z: Tensor, positions: Tensor) -> Tensor:
        """Latents `[n, N, D]` and positions `[n, K, 2]` to features `[n, N, width]`."""
        cells = self.unfold(z).reshape(*z.shape[:2], CHANNELS, CELLS**2)
        side = self.grid * CELLS
        square = cells.reshape(-1, self.grid, self.grid, CHANNELS, CELLS, CELLS)
        maps = square.permute(0, 3, 1, 4, 2, 5).reshape(-1, CHANNELS, side, side)
        windows = sample_windows(maps, positions, WINDOW)
        centres = windows[..., WINDOW // 2, WINDOW // 2]  # [n, K, C]
        differences = cells[:, :, None] - centres[:, None, :, :, None]
        distances = differences.square().sum(dim=3)  # [n, N, K, cells]
        likeness = torch.exp(-distances[..., None] * self.log_sharpness.exp())
        everywhere = self.look(windows.flatten(1)) + self.centre(centres.flatten(1))
        features: Tensor = self.likeness(likeness.flatten(2)) + everywhere[:, None]
        return features


def _cell_means(encoder: PatchEncoder, patches: Tensor) -> Tensor:
    """Patches `[..., P]` averaged over each cell, as `[..., C * cells]`."""
    pixels = encoder.patch_size // CELLS
    squares = patches.reshape(*patches.shape[:-1], CELLS, pixels, CELLS, pixels, CHANNELS)
    means: Tensor = squares.mean(dim=(-4, -2)).movedim(-1, -3)
    return means.flatten(-3)
