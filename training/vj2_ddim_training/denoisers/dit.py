"""`dit`: the default denoiser, a diffusion transformer over patches in time.

Peebles & Xie 2023 ("Scalable Diffusion Models with Transformers"): patches of the diffused array
become tokens, and adaLN-zero modulates every layer by the timestep and the pooled condition. Each
token also attends to the condition tokens, so that it can read *where* on the screen to act.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.denoisers.minimal import require_embeddable, sinusoidal_embedding

__all__ = ["Attention", "DiTDenoiser", "FeedForward", "TransformerLayer", "fourier_features"]
__all__ += ["modulate"]


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`tokens * (1 + scale) + shift`: tokens `[B, S, D]`, the others `[B, D]` (FiLM)."""
    return tokens * (1.0 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def fourier_features(values: Tensor, num_frequencies: int) -> Tensor:
    """`[..., n]` in [0, 1] to `[..., n * (1 + 2 F)]`: themselves, sines and cosines at octaves."""
    octaves = torch.pi * 2.0 ** torch.arange(num_frequencies, device=values.device)
    phase = (values.unsqueeze(-1) * octaves).flatten(-2)
    return torch.cat([values, torch.sin(phase), torch.cos(phase)], dim=-1)


class Attention(nn.Module):
    """Multi-head attention of `queries` over `context` (Vaswani et al. 2017)."""

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
        both = self.key_value(context).unflatten(-1, (2, self.num_heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)
        return query, key, value

    def weights(self, query: Tensor, key: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """Attention `[B, heads, S, C]` written out; `bias` `[B, 1, S, C]` is added before softmax.

        For where it is needed itself, and because the ONNX exporter does not take a mask that
        depends on the input.
        """
        match = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        return torch.softmax(match + bias, dim=-1)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """`[B, S, D]` attends over `[B, C, D]`, giving `[B, S, D]`."""
        query, key, value = self.split(queries, context)
        if query.device.type == "cpu" and query.dtype.itemsize < 4:
            mixed = self.weights(query, key) @ value  # torch's own is slow there on few tokens
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between, `[..., D]` to `[..., D]`."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        widen = nn.Linear(width, ratio * width)
        super().__init__(widen, nn.GELU(approximate="tanh"), nn.Linear(ratio * width, width))


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


class _Block(nn.Module):
    """Self-attention, attention to the condition, feed-forward; each gated by adaLN-zero."""

    def __init__(self, width: int, num_heads: int, conditional: bool) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads)
        self.cross_attention = Attention(width, num_heads) if conditional else None
        self.feed_forward = FeedForward(width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.num_parts = 9 if conditional else 6  # shift, scale and gate for each sublayer
        self.modulation = nn.Linear(width, self.num_parts * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, signal: Tensor, condition: Tensor | None) -> Tensor:
        """Tokens `[B, S, D]`, signal `[B, D]`, condition `[B, C, D]` or None."""
        parts = self.modulation(signal).chunk(self.num_parts, dim=-1)
        shift, scale, gate = parts[0:3]
        normed = modulate(self.norm(tokens), shift, scale)
        tokens = tokens + gate.unsqueeze(1) * self.attention(normed, normed)
        if self.cross_attention is not None and condition is not None:
            shift, scale, gate = parts[6:9]
            normed = modulate(self.norm(tokens), shift, scale)
            tokens = tokens + gate.unsqueeze(1) * self.cross_attention(normed, condition)
        shift, scale, gate = parts[3:6]
        normed = modulate(self.norm(tokens), shift, scale)
        output: Tensor = tokens + gate.unsqueeze(1) * self.feed_forward(normed)
        return output


class DiTDenoiser(nn.Module):
    """A denoiser of `[B, rows, channels]` arrays, with or without condition tokens of its width.

    Sizes that do not divide one another, or an odd width, are a `ConfigError`.
    """

    def __init__(
        self,
        rows: int,
        channels: int,
        d_model: int = 128,
        num_layers: int = 4,
        nhead: int = 4,
        patch_size: int = 1,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        if patch_size < 1 or rows % patch_size:
            raise ConfigError(
                f"patch_size must divide the {rows} rows of the diffused array; found {patch_size}"
            )
        require_embeddable(d_model)
        self.patch_size, self.d_model = patch_size, d_model
        self.embed = nn.Linear(patch_size * channels, d_model)
        self.position = nn.Parameter(0.02 * torch.randn(1, rows // patch_size, d_model))
        embed, mix = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.embed_time = nn.Sequential(embed, nn.SiLU(), mix)
        self.pool_condition = nn.Linear(d_model, d_model) if conditional else None
        self.blocks = nn.ModuleList(_Block(d_model, nhead, conditional) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)
        self.modulation = nn.Linear(d_model, 2 * d_model)
        self.output = nn.Linear(d_model, patch_size * channels)
        for layer in (self.modulation, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, sample: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict the schedule's target for x_t `[B, rows, channels]`, as `[B, rows, channels]`."""
        rows, length, channels = sample.shape
        patches = sample.reshape(rows, length // self.patch_size, self.patch_size * channels)
        tokens = self.embed(patches) + self.position
        signal = self.embed_time(sinusoidal_embedding(timesteps, self.d_model))
        if self.pool_condition is not None and condition is not None:
            signal = signal + self.pool_condition(condition.mean(dim=1))
        signal = nn.functional.silu(signal)
        for block in self.blocks:
            tokens = block(tokens, signal, condition)
        shift, scale = self.modulation(signal).chunk(2, dim=-1)
        patches = self.output(modulate(self.norm(tokens), shift, scale))
        output: Tensor = patches.reshape(rows, length, channels)
        return output
