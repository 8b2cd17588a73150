"""What a touch says to the predictor: where the finger was, as its press went by, and how long.

All of it varies smoothly with x, y and press: an optimizer can follow gradients to all three.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["TouchMap", "press_knots"]

EPSILON = 1e-3  # steps of press below which a position means nothing
NUM_WAVES = 5  # wavelengths of 1, 2, 4, 8 and 16 patches


def press_knots(actions: Tensor, num_knots: int) -> tuple[Tensor, Tensor]:
    """Press-weighted mean positions along the press, and how long it was.

    Time is measured in press: 0 where it begins, 1 where it ends. Knot k averages the positions
    around press time k / (num_knots - 1), with hat-shaped weights times the press itself.

    Args:
        actions: `[..., L, 3]` of x, y and press.
        num_knots: K, at least 2.

    Returns:
        Positions `[..., K, 2]` in the units of x and y, and the press in steps, `[...]`.
    """
    press = actions[..., 2].clamp(0, 1)
    steps = press.sum(dim=-1)
    press_time = (press.cumsum(dim=-1) - press / 2) / (steps + EPSILON)[..., None]
    centres = torch.arange(num_knots, device=actions.device, dtype=actions.dtype)
    hats = (1 - (press_time[..., None, :] * (num_knots - 1) - centres[:, None]).abs()).clamp(min=0)
    weights = hats * press[..., None, :]
    positions = weights @ actions[..., :2] / (weights.sum(dim=-1, keepdim=True) + EPSILON)
    return positions, steps


class TouchMap(nn.Module):
    """Knots and press steps to one feature vector a screen token, `[n, N, width]`.

    Each token learns where the finger was relative to its own centre, how far it went and how long
    it stayed, in sines and cosines of several wavelengths; what a tap does to a widget can so be
    learned once for all places.
    """

    waves: Tensor

    def __init__(self, grid: int, width: int, *, num_knots: int) -> None:
        """Make a map over `grid` x `grid` tokens."""
        super().__init__()
        self.grid = grid
        self.register_buffer("waves", 2 * math.pi / 2.0 ** torch.arange(NUM_WAVES))
        self.columns = nn.Linear(num_knots * NUM_WAVES * 2, width)
        self.rows = nn.Linear(num_knots * NUM_WAVES * 2, width)
        self.stroke = nn.Linear(3 * NUM_WAVES * 2, width)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def forward(self, positions: Tensor, share: Tensor) -> Tensor:
        """Positions `[n, K, 2]` and the share `[n]` of the block that is pressed to features."""
        centres = torch.arange(self.grid, device=positions.device, dtype=positions.dtype) + 0.5
        offsets = positions.transpose(1, 2)[:, :, None] * self.grid - centres[:, None]
        places = self._wave_features(offsets)  # [n, 2, grid, K * waves * 2]
        columns, rows = self.columns(places[:, 0]), self.rows(places[:, 1])
        travel = (positions[:, -1] - positions[:, 0]) * self.grid
        stroke = self._wave_features(torch.cat([travel, share[:, None] * self.grid], dim=1))
        touch = rows[:, :, None] + columns[:, None] + self.stroke(stroke)[:, None, None]
        features: Tensor = self.mix(touch).flatten(1, 2)
        return features

    def _wave_features(self, values: Tensor) -> Tensor:
        """`[..., K]` to `[..., K * waves * 2]`."""
        angles = values[..., None] * self.waves
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
