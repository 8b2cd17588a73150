"""What a touch says to the predictor: where the finger was, as its press went by, and how long.

Everything is a smooth function of x, y and press, so an optimizer can follow gradients to all three.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["TouchMap", "press_knots"]

EPSILON = 1e-3  # steps of press below which a position means nothing


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
    """Actions `[n, L, 3]` to one feature vector a screen token, `[n, N, width]`.

    Each token learns where the finger was relative to its own centre, in sines and cosines of
    wavelengths 1, 2, 4... patches; what a tap does to a widget can so be learned once for all
    places. Features vanish smoothly with the press.
    """

    def __init__(self, grid: int, width: int, *, num_knots: int = 5, num_waves: int = 5) -> None:
        """Make a map over `grid` x `grid` tokens."""
        super().__init__()
        self.grid, self.num_knots = grid, num_knots
        self.register_buffer("waves", 2 * math.pi / 2.0 ** torch.arange(num_waves))
        self.columns = nn.Linear(num_knots * num_waves * 2, width)
        self.rows = nn.Linear(num_knots * num_waves * 2, width)
        self.duration = nn.Linear(num_waves * 2 + 1, width)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    waves: Tensor

    def forward(self, actions: Tensor) -> Tensor:
        """The touch as each token sees it."""
        positions, steps = press_knots(actions, self.num_knots)
        centres = torch.arange(self.grid, device=actions.device, dtype=actions.dtype) + 0.5
        offsets = positions.transpose(-1, -2)[:, :, None] * self.grid - centres[:, None]
        features = self._wave_features(offsets).flatten(-2)  # [n, 2, grid, K * waves * 2]
        columns, rows = self.columns(features[:, 0]), self.rows(features[:, 1])
        share = steps / actions.shape[-2]
        duration = torch.cat([self._wave_features(share * 8), share[:, None] * 8], dim=-1)
        touch = rows[:, :, None] + columns[:, None] + self.duration(duration)[:, None, None]
        present = -torch.expm1(-steps)[:, None, None]
        return self.mix(touch.flatten(1, 2)) * present

    def _wave_features(self, values: Tensor) -> Tensor:
        angles = values[..., None] * self.waves
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
