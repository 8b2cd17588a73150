"""`Ranker`: condition tokens and a candidate in, a predicted cost out.

The condition tokens are those that the denoiser reads, encoded once a plan and not trained here:
they already say where on the screen something has to happen, and in which of several ways it can.
A candidate is turned into a few tokens that look it up there. Fourier features of its entries make
places a few pixels apart look different, which a plain linear layer would need long to learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import ConditionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.denoisers.layers import (
    Attention,
    FeedForward,
    fourier_features,
    modulate,
)
from vj2_ddim_training.ranker.config import RankerConfig

__all__ = ["Ranker"]

NUM_FREQUENCIES = 5  # the finest wave is 1/16 of the range long
MOST_ENTRIES = 64  # of a candidate whose entries are worth features of their own


class _Layer(nn.Module):
    """The candidate's tokens look at the condition, then each is changed by itself."""

    def __init__(self, width: int, nhead: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, nhead)
        self.norm_feed_forward = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.feed_forward = FeedForward(width, ratio=2)

    def forward(self, tokens: Tensor, condition: Tensor, signal: Tensor) -> Tensor:
        """Tokens `[n, Q, D]`, condition `[n, S, D]`, signal `[n, D]`."""
        tokens = tokens + self.attention(self.norm_attention(tokens), condition)
        shift, scale = self.modulation(signal).chunk(2, dim=-1)
        normed = modulate(self.norm_feed_forward(tokens), shift, scale)
        output: Tensor = tokens + self.feed_forward(normed)
        return output


class Ranker(nn.Module):
    """Predicts which of several candidates the planner's cost would prefer.

    What it predicts is comparable within a problem only, and in no unit.

    Args:
        config: Its size.
        action_spec: What the candidates are.
        condition: What the tokens are.

    Raises:
        ConfigError: The model is unconditional, or the head count does not divide the width.
    """

    def __init__(
        self, config: RankerConfig, action_spec: ActionSpec, condition: ConditionSpec
    ) -> None:
        super().__init__()
        if not condition.inputs:
            raise ConfigError(
                "a ranker reads the condition tokens; this model is unconditional. Train one with "
                "'--condition latents'"
            )
        self.config, self.num_queries = config, config.num_queries
        rows, channels = action_spec.diffused_shape
        self.num_frequencies = NUM_FREQUENCIES if rows * channels <= MOST_ENTRIES else 0
        num_features = rows * channels * (1 + 2 * self.num_frequencies)
        width = config.width
        self.read_condition = nn.Sequential(
            nn.LayerNorm(condition.width), nn.Linear(condition.width, width)
        )
        self.read_candidate = nn.Sequential(
            nn.Linear(num_features, 2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, config.num_queries * width),
        )
        self.pool = nn.Linear(condition.num_tokens * width, width)
        self.layers = nn.ModuleList(_Layer(width, config.nhead) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.num_queries * width)
        self.output = nn.Sequential(
            nn.Linear(config.num_queries * width, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, 1),
        )

    def forward(self, candidates: Tensor, condition: Tensor) -> Tensor:
        """Predict the cost of each row, as the plugin asks for it.

        Args:
            candidates: Diffused arrays `[n, M, C]`, normalized.
            condition: Condition tokens `[n, S, W]`.

        Returns:
            `[n]`, lower is better.
        """
        return torch.squeeze(self.rank(candidates.unsqueeze(1), condition), -1)

    def rank(self, candidates: Tensor, condition: Tensor) -> Tensor:
        """The same for `[B, K, M, C]` and `[B, S, W]`, as `[B, K]`: tokens are read only once."""
        entries = candidates.flatten(2)
        if self.num_frequencies:
            entries = fourier_features(0.5 * entries + 0.5, self.num_frequencies)
        read = self.read_condition(condition)
        signal = nn.functional.silu(self.pool(read.flatten(1)))
        tokens = self.read_candidate(entries).unflatten(-1, (self.num_queries, -1)).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, read, signal)
        tokens = tokens.unflatten(1, (-1, self.num_queries)).flatten(2)
        cost: Tensor = self.output(self.norm(tokens))
        return torch.squeeze(cost, -1)
