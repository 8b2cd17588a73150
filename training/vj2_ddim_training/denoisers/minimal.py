"""`minimal`: the original script's transformer, weight for weight, so that its checkpoints open.

A plain post-norm `nn.TransformerEncoder` over all L actions, unconditional; it predicts epsilon.
"""

import math

import torch
from torch import Tensor, nn

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["MinimalDenoiser", "require_embeddable", "sinusoidal_embedding"]


def require_embeddable(width: int) -> None:
    """Raise `ConfigError` for a width that `sinusoidal_embedding` cannot fill."""
    if width % 2 or width < 4:
        raise ConfigError(f"d_model must be even and at least 4; found {width}")


def sinusoidal_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Timesteps `[B]` to `[B, width]`: sines, then cosines, of geometrically spaced frequencies."""
    half = width // 2
    exponent = torch.arange(half, device=timesteps.device) * (-math.log(10000.0) / (half - 1))
    phase = timesteps[:, None].float() * torch.exp(exponent)[None, :]
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)


class _PositionalEncoding(nn.Module):
    """The sinusoidal table of Vaswani et al. 2017, section 3.5, as a stored buffer."""

    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        position = torch.arange(length).unsqueeze(1).float()
        frequency = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
        table = torch.zeros(length, width)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", table.unsqueeze(0))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.pe[:, : tokens.shape[1]]


class MinimalDenoiser(nn.Module):
    """The original `MinimalDiffusionTransformer`: names of weights and arithmetic are its own."""

    def __init__(
        self,
        rows: int,
        channels: int,
        d_model: int = 128,
        num_layers: int = 4,
        nhead: int = 4,
        dim_feedforward: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if nhead < 1 or d_model % nhead:
            raise ConfigError(
                f"nhead must divide d_model; found nhead {nhead} and d_model {d_model}"
            )
        require_embeddable(d_model)
        self.d_model = d_model
        self.action_embedding = nn.Linear(channels, d_model)
        self.pos_encoder = _PositionalEncoding(d_model, rows)
        layer = nn.TransformerEncoderLayer(
            d_model, nhead, dim_feedforward, dropout, activation="gelu", batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.output_projection = nn.Linear(d_model, channels)
        self.layer_norm = nn.LayerNorm(d_model)

    def set_dropout(self, share: float) -> None:
        """Another dropout; with 0, attention on a CPU is torch's fused one, twice as fast."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share
            elif isinstance(module, nn.MultiheadAttention):
                module.dropout = share

    def forward(self, sample: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict epsilon."""
        tokens = self.pos_encoder(self.action_embedding(sample))
        tokens = tokens + sinusoidal_embedding(timesteps, self.d_model)[:, None, :]
        output: Tensor = self.output_projection(self.transformer(self.layer_norm(tokens)))
        return output
