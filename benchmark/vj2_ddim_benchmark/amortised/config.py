"""`AmortisedConfig`: what is built, sized like the denoiser it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.records import from_plain, to_plain
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.denoisers.dit import DiTDenoiser

__all__ = ["KINDS", "AmortisedConfig"]

KINDS = ("regression", "gaussian")


@dataclass(frozen=True)
class AmortisedConfig:
    """What is built. All of it is stored in the file.

    Attributes:
        kind: `regression` or `gaussian`: which loss it is trained with.
        d_model: Width of the condition tokens.
        nhead: Attention heads of the condition encoder; must divide `d_model`.
        condition_layers: Layers that mix latent patches.
        condition_tokens: Tokens that latents are gathered into.
        head_width: Width of the two hidden layers that read the tokens.

    Raises:
        ConfigError: The kind is unknown, or a size is too small.
    """

    kind: str = "regression"
    d_model: int = 128
    nhead: int = 4
    condition_layers: int = 2
    condition_tokens: int = 16
    head_width: int = 512

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.kind not in KINDS:
            raise ConfigError(f"kind {self.kind!r} is unknown; use {' or '.join(KINDS)}")
        for name in ("d_model", "nhead", "condition_tokens", "head_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.condition_layers < 0:
            raise ConfigError(f"condition_layers must be at least 0; found {self.condition_layers}")

    @classmethod
    def like(cls, kind: str, denoiser: ModelConfig, action_spec: ActionSpec) -> AmortisedConfig:
        """The same condition encoder, and a head of about as many weights as the denoiser has.

        Args:
            kind: `regression` or `gaussian`.
            denoiser: The conditional denoiser's configuration.
            action_spec: What both plan.

        Raises:
            ConfigError: The kind is unknown, or the denoiser sees no latents.
        """
        if denoiser.condition != "latents":
            raise ConfigError(
                f"the denoiser to be compared with must have condition 'latents'; found "
                f"{denoiser.condition!r}"
            )
        rows, channels = action_spec.diffused_shape
        width, layers, heads = denoiser.d_model, denoiser.num_layers, denoiser.nhead
        with torch.random.fork_rng(devices=[]):  # only its size is of interest
            network = DiTDenoiser(rows, channels, width, layers, heads, conditional=True)
        wanted = sum(weight.numel() for weight in network.parameters())
        read = denoiser.condition_tokens * denoiser.d_model + 2 * rows * channels
        return cls(  # read * width + width^2 = wanted, biases left aside
            kind,
            denoiser.d_model,
            denoiser.nhead,
            denoiser.condition_layers,
            denoiser.condition_tokens,
            max(1, round((math.sqrt(read**2 + 4 * wanted) - read) / 2)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AmortisedConfig:
        """The inverse of `to_dict`; raises `ConfigError` for a missing or unknown field."""
        return from_plain(cls, values, ConfigError)
