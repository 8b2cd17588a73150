"""`WorldModelConfig`: every number that decides what a world model is and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.records import from_plain, to_plain

__all__ = ["COST_KINDS", "WorldModelConfig"]

COST_KINDS = ("mse", "l1")


@dataclass(frozen=True)
class WorldModelConfig:
    """How a world model is made; the defaults train in 50 minutes on one core.

    Attributes:
        num_trajectories: Training trajectories to collect.
        horizon: Action blocks in each.
        screen_size: Width and height of the screen, in pixels.
        patch_size: Side of the encoder's patches, in pixels.
        token_dim: D, the numbers in a token.
        noise_floor: Regularisation of the whitening (see `PatchEncoder.fit`).
        layer_norm: Whether tokens are layer-normalised, as VJ2-GUI does.
        action_block: Actions in one step.
        width: Width of the predictor's hidden tokens.
        num_layers: Its layers over the whole screen, each between two over neighbours.
        num_heads: Attention heads in each.
        num_knots: Positions along the press that the predictor sees.
        num_epochs: Passes over the transitions.
        batch_size: Transitions in one gradient step.
        learning_rate: Peak of the one-cycle schedule (cosine up, cosine down to zero).
        weight_decay: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        change_weight: Weight in the loss of the tokens that change, beside the whole screen.
        unchanged_share: Share of the transitions that change nothing that training looks at.
        adversarial_radius: By how much x and y are moved against the predictor in training, in
            screens (see `adversarial_actions`); 0 trains on the actions as they are.
        cost_kind: Distance of prediction to goal: `"mse"` or `"l1"`, the mean over all numbers.
        num_report_problems: Validation problems in the report.
        seed: Of the data, the weights and the order of the batches.

    Raises:
        ConfigError: On construction, for a number out of range or an unknown name.
    """

    num_trajectories: int = 40000
    horizon: int = 4
    screen_size: int = 64
    patch_size: int = 8
    token_dim: int = 32
    noise_floor: float = 0.5
    layer_norm: bool = False
    action_block: int = 250
    width: int = 64
    num_layers: int = 2
    num_heads: int = 4
    num_knots: int = 5
    num_epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    change_weight: float = 1.0
    unchanged_share: float = 0.6
    adversarial_radius: float = 0.0
    cost_kind: str = "mse"
    num_report_problems: int = 240
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        zero_allowed = (
            "noise_floor", "weight_decay", "change_weight", "unchanged_share",
            "adversarial_radius", "seed",
        )  # fmt: skip
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool | str):
                continue
            if value < 0 or (value == 0 and field.name not in zero_allowed):
                raise ConfigError(f"{field.name} must be positive; found {value}")
        if self.cost_kind not in COST_KINDS:
            raise ConfigError(
                f"cost_kind {self.cost_kind!r} is unknown; use one of {', '.join(COST_KINDS)}"
            )
        if self.screen_size % self.patch_size:
            raise ConfigError(
                f"patch_size must divide screen_size; found {self.patch_size} and "
                f"{self.screen_size}"
            )

    @classmethod
    def quick(cls) -> WorldModelConfig:
        """Trains in under a minute, for demonstrations."""
        return cls(
            num_trajectories=5000, num_epochs=2, unchanged_share=0.3, learning_rate=4e-3,
            num_report_problems=60,
        )  # fmt: skip

    @property
    def num_tokens(self) -> int:
        """N, the tokens of one screen."""
        return (self.screen_size // self.patch_size) ** 2

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, for a checkpoint."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WorldModelConfig:
        """The inverse of `to_dict`; every field must be there and no other.

        Raises:
            ConfigError: A field is missing, unknown, mistyped or out of range.
        """
        return from_plain(cls, values, ConfigError)
