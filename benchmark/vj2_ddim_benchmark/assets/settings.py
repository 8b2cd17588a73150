"""How much of everything the trained parts are made with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.ranker.config import RankerConfig

__all__ = ["AssetSettings"]


@dataclass(frozen=True)
class AssetSettings:
    """Every number that decides what is trained.

    Attributes:
        world_model: The world model's own settings.
        num_trajectories: Trajectories that the denoiser is trained on.
        num_validation_trajectories: Trajectories it is validated on.
        scripted_share: Share of gestures aimed at a widget; the rest is random.
        near_miss_share: Share of those that are mistakes.
        model: The denoiser.
        training: How it is trained.
        ranker: How its ranker is trained, or None for none.
        amortised: How the regression and the Gaussian are trained, or None for neither.
        representation: What the denoiser diffuses: `raw`, `held`, `path`, or `auto`.
        seed: Of the denoiser's data; the other parts hold their own.

    Raises:
        ConfigError: On construction, for an unknown representation.
    """

    world_model: WorldModelConfig
    num_trajectories: int
    num_validation_trajectories: int
    scripted_share: float
    near_miss_share: float
    model: ModelConfig
    training: TrainingConfig
    ranker: RankerConfig | None
    amortised: TrainingConfig | None
    representation: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse an unknown representation here, before data are collected for it."""
        if self.representation not in (*REPRESENTATIONS, "auto"):
            raise ConfigError(
                f"representation {self.representation!r} is unknown; use one of "
                f"{', '.join(REPRESENTATIONS)}, or auto"
            )

    @classmethod
    def full(cls) -> AssetSettings:
        """What the shipped parts are made with."""
        training = TrainingConfig(
            num_epochs=30, num_cycles=3, epoch_share=0.116, batch_size=64, lr=2e-3,
            condition_dropout=0.1, noises_per_example=3, longest_goal=4, auxiliary_weight=1.0,
            wandb_mode="disabled",
        )  # fmt: skip
        return cls(
            world_model=WorldModelConfig(),
            num_trajectories=40000,
            num_validation_trajectories=200,
            scripted_share=1.0,
            near_miss_share=0.0,
            model=ModelConfig(
                d_model=96, num_layers=3, condition="latents", condition_layers=1,
                condition_tokens=16,
            ),
            training=training,
            ranker=RankerConfig(num_problems=12000),
            amortised=replace(training, num_epochs=5, num_cycles=1),
        )  # fmt: skip

    @classmethod
    def small(cls) -> AssetSettings:
        """A small denoiser in minutes, for the demonstration."""
        full = cls.full()
        return replace(
            full,
            world_model=WorldModelConfig.quick(),
            num_trajectories=4000,
            num_validation_trajectories=50,
            training=replace(
                full.training, num_epochs=5, num_cycles=1, epoch_share=1.0, longest_goal=1
            ),
            ranker=None,
            amortised=None,
        )
