"""Layers shared by the denoiser and the condition encoders."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["Attention", "FeedForward", "TransformerLayer", "fourier_features", "modulate"]


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`tokens * (1 + scale) + shift`: tokens `[B, S, D]`, the others `[B, D]` (FiLM)."""
    return tokens * (1.0 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def fourier_features(values: Tensor, num_frequencies: int) -> Tensor:
    """`[..., n]` in [0, 1] to `[..., n * (1 + 2 F)]`: themselves, sines and cosines at octaves."""
    octaves = torch.pi * 2.0 ** torch.arange(num_frequencies, device=values.device)
    phase = (values.unsqueeze(-1) * octaves).flatten(-2)
    return torch.cat([values, torch.sin(phase), torch.cos(phase)], dim=-1)


class Attention(nn.Module):
    """Multi-head attention of `queries` over `context` (Vaswani et al. 2017).

    Raises:
        ConfigError: The head count does not divide the width.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ConfigError(
                f"nhead must divide d_model; found nhead {num_heads} and d_model {width}"
            )
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def split(self, queries: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query `[B, heads, S, d]`, key and value `[B, heads, C, d]`."""
        query = self.query(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = (
            self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        return query, key, value

    def weights(self, query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
        """Attention `[B, heads, S, C]` written out; `bias` `[B, 1, S, C]` is added before softmax.

        For where it is needed itself, and because the ONNX exporter does not take a mask that
        depends on the input.
        """
        match = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        return torch.softmax(match + bias, dim=-1)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """`[B, S, D]` attends over `[B, C, D]`, giving `[B, S, D]`."""
        query, key, value = self.split(queries, context)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between, `[..., D]` to `[..., D]`."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__(
            nn.Linear(width, ratio * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(ratio * width, width),
        )


class TransformerLayer(nn.Module):
    """A pre-norm encoder layer: self-attention, then feed-forward."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        normed = self.norm_attention(tokens)
        tokens = tokens + self.attention(normed, normed)
        tokens = tokens + self.feed_forward(self.norm_feed_forward(tokens))
        return tokens
