"""Every setting of a training run, and of the model it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.records import from_plain, to_plain

__all__ = ["ARCHITECTURES", "CONDITIONS", "ModelConfig", "TrainingConfig"]

ARCHITECTURES = ("dit", "minimal")
CONDITIONS = ("none", "sketch", "latents")


@dataclass(frozen=True)
class ModelConfig:
    """What is built. All of it is stored in the checkpoint.

    Attributes:
        architecture: `dit`, the default, or `minimal`, the original script's transformer.
        d_model: Width.
        num_layers: Layers of the denoiser.
        nhead: Attention heads; must divide `d_model`.
        patch_size: Rows of the diffused array in one token (`dit`).
        dim_feedforward: Width of the feed-forward layers (`minimal`).
        condition: `none`, `sketch` or `latents`.
        condition_layers: Layers that mix latent patches (`latents`).
        condition_tokens: Tokens that latents are gathered into (`latents`).

    Raises:
        ConfigError: A name is unknown, or `minimal` is asked to be conditional.
    """

    architecture: str = "dit"
    d_model: int = 128
    num_layers: int = 4
    nhead: int = 4
    patch_size: int = 1
    dim_feedforward: int = 256
    condition: str = "sketch"
    condition_layers: int = 2
    condition_tokens: int = 16

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name in ("d_model", "num_layers", "nhead", "patch_size", "dim_feedforward"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.condition_layers < 0 or self.condition_tokens < 1:
            raise ConfigError(
                f"need condition_layers >= 0 and condition_tokens >= 1; found "
                f"{self.condition_layers} and {self.condition_tokens}"
            )
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"architecture {self.architecture!r} is unknown; use {' or '.join(ARCHITECTURES)}"
            )
        if self.condition not in CONDITIONS:
            raise ConfigError(
                f"condition {self.condition!r} is unknown; use one of {', '.join(CONDITIONS)}"
            )
        if self.architecture == "minimal" and self.condition != "none":
            raise ConfigError(
                f"architecture 'minimal' is unconditional; found condition {self.condition!r}. Use "
                f"'--condition none', or architecture 'dit'"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; raises `ConfigError` for a missing or unknown field."""
        return from_plain(cls, values, ConfigError)


@dataclass(frozen=True)
class TrainingConfig:
    """How it is trained. All of it is stored in the checkpoint.

    Attributes:
        num_epochs: Passes over the training data, or over `epoch_share` of them.
        epoch_share: Share of the training data in one epoch, drawn anew for each; less than 1
            validates large data sets more often.
        batch_size: Examples in one step.
        lr: Peak learning rate; linear warm-up, then cosine decay to 0.
        num_cycles: Times that course is run, each from half the peak of the one before.
        warmup_share: Share of a cycle's steps that is warm-up.
        weight_decay: AdamW's.
        clip_norm: Largest gradient norm.
        ema_decay: Decay of the weights' moving average, reached after a warm-up of its own.
        condition_dropout: Share of examples whose condition is hidden, so that the model also
            samples without one, and can be guided.
        noises_per_example: Timesteps and noises drawn for each example of a step.
        longest_goal: How many later states of a trajectory serve as goals for each (`latents`);
            more than 1 teaches the first gestures of longer ways.
        auxiliary_weight: Weight of regressing x_0 from the condition tokens (`latents`).
        seed: Of the weights, the order of the data, timesteps and noise.
        evaluate_every: Epochs between validations.
        picture_every: Epochs between pictures.
        num_validation: Validation sequences measured after an epoch.
        device: `auto`, `cpu` or `cuda`.
        num_threads: Torch's threads; None leaves torch's choice.
        wandb_project: Project name for Weights & Biases.
        wandb_mode: `offline`, `online` or `disabled`.
    """

    num_epochs: int = 50
    epoch_share: float = 1.0
    batch_size: int = 32
    lr: float = 1e-4
    num_cycles: int = 1
    warmup_share: float = 0.02
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    condition_dropout: float = 0.2
    noises_per_example: int = 1
    longest_goal: int = 1
    auxiliary_weight: float = 0.5
    seed: int = 0
    evaluate_every: int = 1
    picture_every: int = 10
    num_validation: int = 128
    device: str = "auto"
    num_threads: int | None = None
    wandb_project: str = "vj2-ddim"
    wandb_mode: str = "offline"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        for name, lowest in (
            ("num_epochs", 1),
            ("batch_size", 1),
            ("evaluate_every", 1),
            ("picture_every", 1),
            ("num_validation", 1),
            ("noises_per_example", 1),
            ("longest_goal", 1),
            ("num_cycles", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < lowest:
                raise ConfigError(f"{name} must be at least {lowest}; found {getattr(self, name)}")
        for name, low, high in (
            ("lr", 0.0, float("inf")),
            ("weight_decay", 0.0, float("inf")),
            ("clip_norm", 1e-9, float("inf")),
            ("auxiliary_weight", 0.0, float("inf")),
            ("epoch_share", 1e-9, 1.0),
            ("warmup_share", 0.0, 1.0),
            ("ema_decay", 0.0, 1.0),
            ("condition_dropout", 0.0, 1.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be in [{low}, {high}]; found {getattr(self, name)}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1; found {self.num_threads}")
        if self.wandb_mode not in ("offline", "online", "disabled"):
            raise ConfigError(
                f"wandb mode {self.wandb_mode!r} is unknown; use offline, online or disabled"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_plain(self)
