"""The network of the world model: `Predictor`, from latents and a touch to the latents after it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_plugin.errors import ActionError, ContextError

NUM_CHANNELS = 3  # x, y, press
EPSILON = 1e-3  # steps of press below which a position means nothing
NUM_WAVES = 5  # wavelengths of 1, 2, 4, 8 and 16 patches
CELLS = 4  # cells along each side of a patch
COLORS = 3  # numbers in a cell, colours to begin with
WINDOW = 9  # cells along each side of a window
SHARPNESS = (20.0, 100.0)  # how fast likeness falls with squared distance, to begin with


class Predictor(nn.Module):
    """Predicts the latents that follow each step's action block; differentiable in both.

    The screen's tokens, with a learned position, the touch as each of them sees it and a glimpse
    of what lies where it begins and ends, go through alternating layers over neighbours and over
    the whole screen; their output is added to the latents. What a touch adds vanishes smoothly
    with its press. The screen is Markov, so time is folded into the batch.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        grid, width, token_dim = config.grid, config.width, config.token_dim
        self.num_tokens, self.token_dim = config.num_tokens, token_dim
        self.action_block, self.num_knots = config.action_block, config.num_knots
        self.read = nn.Linear(token_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.num_tokens, width))
        self.touch = TouchMap(grid, width, num_knots=self.num_knots)
        self.glimpse = Glimpse(grid, token_dim, width, num_positions=2)
        self.mix = _two_layers(width, width)
        layers: list[nn.Module] = [NeighbourLayer(grid, width)]
        for _ in range(config.num_layers):
            # over all tokens: a key may change a display far from it
            screen = nn.TransformerEncoderLayer(
                width, config.num_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            layers += [screen, NeighbourLayer(grid, width)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, token_dim)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """The latents after each step, from latents `[B, T, N, D]` before it and a block each."""
        if z.ndim != 4 or z.shape[2:] != (self.num_tokens, self.token_dim):
            expected = f"[B, T, {self.num_tokens}, {self.token_dim}]"
            raise ContextError(f"latents must be {expected}; found {list(z.shape)}")
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
        """Latents `[n, N, D]` and blocks `[n, L, A]` to the layers' input `[n, N, width]`."""
        positions, steps = press_knots(blocks, self.num_knots)
        touch = self.touch(positions, steps / self.action_block)
        touch = touch + self.glimpse(z, positions[:, [0, -1]])
        present = -torch.expm1(-steps)[:, None, None]
        seen = self.read(z) + self.position + touch * present
        hidden: Tensor = seen + self.mix(seen)
        return hidden


def press_knots(actions: Tensor, num_knots: int) -> tuple[Tensor, Tensor]:
    """Press-weighted mean positions along the press, and how long it was.

    Time is measured in press: 0 where it begins, 1 where it ends. Knot k averages the positions
    around press time k / (K - 1), with hat-shaped weights times the press itself. Actions
    `[..., L, 3]` to positions `[..., K, 2]`, and the press in steps, `[...]`.
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
    """What each token of the `grid` x `grid` learns of the touch, relative to its own centre."""

    waves: Tensor

    def __init__(self, grid: int, width: int, *, num_knots: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("waves", 2 * math.pi / 2.0 ** torch.arange(NUM_WAVES))
        self.columns = nn.Linear(num_knots * NUM_WAVES * 2, width)
        self.rows = nn.Linear(num_knots * NUM_WAVES * 2, width)
        self.stroke = nn.Linear(3 * NUM_WAVES * 2, width)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def forward(self, positions: Tensor, share: Tensor) -> Tensor:
        """Positions `[n, K, 2]` and the pressed share `[n]` of the block to `[n, N, width]`."""
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


def sample_windows(maps: Tensor, positions: Tensor, window: int) -> Tensor:
    """Bilinear samples `[n, K, C, P, P]`, one map cell apart, around positions; zero beyond.

    Maps are `[n, C, S, S]`, rows then columns; positions `[n, K, 2]` of x and y in [0, 1].
    """
    side = maps.shape[-1]
    shifts = torch.arange(window, device=maps.device, dtype=maps.dtype) - window // 2
    cells = torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5
    points = positions.transpose(1, 2)[..., None] * side + shifts  # [n, 2, K, P]
    weights = (1 - (points[..., None] - cells).abs()).clamp(min=0)  # [n, 2, K, P, S]
    return torch.einsum("nkps,ncst,nkqt->nkcpq", weights[:, 1], maps, weights[:, 0])


class Glimpse(nn.Module):
    """What lies under the finger: the windows around `num_positions`, and each cell's likeness.

    Latents are unfolded into *cells*, small squares a quarter of a patch wide with three numbers
    each. A cell's likeness is exp(-sharpness * squared distance) of its numbers and those right
    under the finger: a soft mask of the button that is touched.
    """

    def __init__(self, grid: int, token_dim: int, width: int, *, num_positions: int) -> None:
        super().__init__()
        self.grid = grid
        self.unfold = nn.Linear(token_dim, COLORS * CELLS**2)
        self.log_sharpness = nn.Parameter(torch.tensor(SHARPNESS).log())
        self.likeness = nn.Linear(num_positions * len(SHARPNESS) * CELLS**2, width)
        self.centre = nn.Linear(num_positions * COLORS, width)
        seen = num_positions * COLORS * WINDOW**2
        self.look = _two_layers(seen, width)

    @torch.no_grad()
    def see_colours(self, latents: Tensor, frames: Tensor) -> None:
        """Begin with cells that hold the colours of frames `[n, H, W, 3]`, as far as latents tell.

        Least squares from their latents `[n, N, D]` to each cell's mean colour in [0, 1].
        """
        tokens = latents.flatten(0, 1).double()
        tokens = torch.cat([tokens, torch.ones_like(tokens[:, :1])], dim=-1)
        side = frames.shape[1] // (self.grid * CELLS)
        cut = frames.reshape(-1, self.grid, CELLS, side, self.grid, CELLS, side, COLORS).double()
        cells = cut.mean(dim=(3, 6)).permute(0, 1, 3, 5, 2, 4).reshape(len(tokens), -1) / 255
        found = torch.linalg.lstsq(tokens, cells, driver="gelsd").solution.T
        self.unfold.weight.copy_(found[:, :-1])
        self.unfold.bias.copy_(found[:, -1])

    def forward(self, z: Tensor, positions: Tensor) -> Tensor:
        """Latents `[n, N, D]` and positions `[n, K, 2]` to features `[n, N, width]`."""
        cells = self.unfold(z).reshape(*z.shape[:2], COLORS, CELLS**2)
        side = self.grid * CELLS
        square = cells.reshape(-1, self.grid, self.grid, COLORS, CELLS, CELLS)
        maps = square.permute(0, 3, 1, 4, 2, 5).reshape(-1, COLORS, side, side)
        windows = sample_windows(maps, positions, WINDOW)
        centres = windows[..., WINDOW // 2, WINDOW // 2]  # [n, K, C]
        differences = cells[:, :, None] - centres[:, None, :, :, None]
        distances = differences.square().sum(dim=3)  # [n, N, K, cells]
        likeness = torch.exp(-distances[..., None] * self.log_sharpness.exp())
        everywhere = self.look(windows.flatten(1)) + self.centre(centres.flatten(1))
        features: Tensor = self.likeness(likeness.flatten(2)) + everywhere[:, None]
        return features


class NeighbourLayer(nn.Module):
    """A pre-norm residual 3 x 3 convolution over the grid of tokens: most effects are local."""

    def __init__(self, grid: int, width: int) -> None:
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


def _two_layers(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
