"""`AmortisedModel`: latents to the mean and standard deviation of the plan, in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.amortised.config import AmortisedConfig
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import ConditionSpec
from vj2_ddim_training.conditions.latents import LatentEncoder

__all__ = ["STD_FLOOR", "AmortisedModel"]

STD_FLOOR = 0.01  # of the normalized array: a third of a pixel on a screen of 64


class AmortisedModel(nn.Module):
    """The denoiser's condition encoder, and a head that reads all of its tokens at once.

    Args:
        config: What to build.
        action_spec: What it plans; the array that is diffused is what it predicts, normalized.
        input_shapes: `{"state": (N, D), "goal": (N, D)}`.

    Raises:
        ConfigError: Sizes that do not fit one another.
    """

    def __init__(
        self,
        config: AmortisedConfig,
        action_spec: ActionSpec,
        input_shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.config, self.action_spec = config, action_spec
        self.condition = ConditionSpec(
            "latents", dict(input_shapes), config.condition_tokens, config.d_model
        )
        self.encoder = LatentEncoder(
            dict(input_shapes), config.d_model, config.condition_layers, config.nhead,
            config.condition_tokens,
        )  # fmt: skip
        rows, channels = action_spec.diffused_shape
        width = config.head_width
        self.head = nn.Sequential(
            nn.LayerNorm(config.d_model),
            nn.Flatten(),
            nn.Linear(config.condition_tokens * config.d_model, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, 2 * rows * channels),
            nn.Unflatten(1, (2, rows, channels)),
        )

    def forward(self, state: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the diffused array.

        Args:
            state: Latents `[B, N, D]`.
            goal: Latents `[B, N, D]`.

        Returns:
            Its mean and the logarithm of its standard deviation, `[B, M, C]` each, normalized; the
            latter means something for kind `gaussian` only, and stays above `STD_FLOOR`.
        """
        mean, free = self.head(self.encoder(state, goal)).unbind(dim=1)
        floor = torch.full_like(free, math.log(STD_FLOOR))
        return mean, torch.logaddexp(free, floor)
