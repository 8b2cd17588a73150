"""Every setting of a model, of its training, and of a ranker: each declared once, here."""

from dataclasses import dataclass
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["ARCHITECTURES", "CONDITIONS", "ModelConfig", "RankerConfig", "TrainingConfig"]

ARCHITECTURES = ("dit", "minimal")
CONDITIONS = ("none", "sketch", "latents")
MODES = ("offline", "online", "disabled")
SHARE: Any = {"low": 0.0, "high": 1.0}


@dataclass(frozen=True)
class ModelConfig(Settings):
    """What is built. All of it is stored in the checkpoint."""

    architecture: str = setting("dit", "Minimal is the original script's.", choices=ARCHITECTURES)
    d_model: int = setting(128, "Width of the denoiser.", low=1)
    num_layers: int = setting(4, "Layers of the denoiser.", low=1)
    nhead: int = setting(4, "Attention heads; must divide the width.", low=1)
    patch_size: int = setting(0, "Diffused rows in a token; 0 fits the representation.", low=0)
    dim_feedforward: int = setting(256, "Width of the feed-forward layers (minimal).", low=1)
    condition: str = setting(
        "auto", "Auto is sketch for dit and none for minimal.", choices=("auto", *CONDITIONS)
    )
    condition_layers: int = setting(2, "Layers that mix the patches of latents.", low=0)
    condition_tokens: int = setting(16, "Tokens that latents are gathered into.", low=1)

    def check(self) -> None:
        """Choose the condition where it is left open; the original script's has none."""
        minimal = self.architecture == "minimal"
        if self.condition == "auto":
            object.__setattr__(self, "condition", "none" if minimal else "sketch")
        if minimal and self.condition != "none":
            raise ConfigError(
                f"architecture 'minimal' is unconditional; found condition {self.condition!r}. Use "
                f"condition='none', or architecture='dit'"
            )


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How a denoiser is trained. All of it is stored in the checkpoint."""

    num_epochs: int = setting(50, "Passes over the training data, or over a share of it.", low=1)
    epoch_share: float = setting(1.0, "Share of the data in an epoch.", above=0.0, high=1.0)
    batch_size: int = setting(32, "Examples in one step.", low=1)
    lr: float = setting(1e-4, "Peak learning rate: warm-up, then cosine decay to 0.", low=0.0)
    num_cycles: int = setting(1, "Times that course is run, each from half the peak.", low=1)
    warmup_share: float = setting(0.02, "Share of a cycle's steps that is warm-up.", **SHARE)
    weight_decay: float = setting(1e-4, "AdamW's weight decay.", low=0.0)
    clip_norm: float = setting(1.0, "Largest norm of the gradient.", above=0.0)
    ema_decay: float = setting(0.999, "Decay of the averaged weights, after a warm-up.", **SHARE)
    condition_dropout: float = setting(
        0.2,
        "Share of examples trained without their condition; with 0, guidance is refused later.",
        low=0.0,
        below=1.0,
    )
    noises_per_example: int = setting(1, "Timesteps and noises drawn for each example.", low=1)
    longest_goal: int = setting(
        1, "How many later states serve as goals for each; more than 1 for chains.", low=1
    )
    auxiliary_weight: float = setting(
        0.5, "Weight of regressing the actions from the condition tokens (latents).", low=0.0
    )
    seed: int = setting(0, "Of weights, data order, timesteps and noise.", low=0)
    evaluate_every: int = setting(1, "Epochs between validations.", low=1)
    picture_every: int = setting(10, "Epochs between pictures.", low=1)
    num_validation: int = setting(128, "Validation sequences measured after an epoch.", low=1)
    device: str = setting("auto", "Where to train.", choices=("auto", "cpu", "cuda"))
    num_threads: int | None = setting(None, "Torch's threads; its own choice unless told.", low=1)
    wandb_project: str = setting("vj2-ddim", "Weights & Biases project.")
    wandb_mode: str = setting("offline", "Weights & Biases.", choices=MODES, option="--wandb")


@dataclass(frozen=True)
class RankerConfig(Settings):
    """A ranker's size, its candidates and its training. All of it is stored in `ranker.pt`."""

    width: int = setting(64, "Width of its layers; nhead must divide it.", low=1)
    num_layers: int = setting(2, "Layers that look at the condition.", low=1)
    nhead: int = setting(4, "Attention heads.", low=1)
    num_queries: int = setting(4, "Tokens that one candidate is turned into.", low=1)
    num_problems: int = setting(8000, "Examples whose (state, goal) it learns from.", low=2)
    num_sampled: int = setting(10, "Candidates a problem that the model samples.", low=0)
    num_perturbed: int = setting(
        3, "Candidates a problem that are the true action, changed a little or a lot.", low=0
    )
    num_random: int = setting(
        2, "Candidates a problem that are the true actions of other examples.", low=0
    )
    num_inference_steps: int = setting(5, "DDIM steps of the sampled candidates.", low=1)
    full_difference: float = setting(
        0.5,
        "Difference of two costs whose order counts in full, in standard deviations of the "
        "(logarithmic) cost among a problem's candidates; less counts less.",
        above=0.0,
    )
    num_epochs: int = setting(20, "Times each problem is seen.", low=1)
    batch_size: int = setting(64, "Problems a step.", low=1)
    lr: float = setting(1e-3, "Peak learning rate: warm-up, then cosine decay to 0.", above=0.0)
    weight_decay: float = setting(1e-2, "AdamW's weight decay.", low=0.0)
    held_out_share: float = setting(0.05, "Problems that are only measured.", low=0.0, below=1.0)
    seed: int = setting(0, "Of the weights, the candidates and the order.", low=0)

    def check(self) -> None:
        """A single candidate cannot be ranked."""
        if self.num_candidates < 2:
            raise ConfigError(
                f"a ranker needs a candidate besides the true one; found num_sampled, "
                f"num_perturbed and num_random of {self.num_sampled}, {self.num_perturbed} and "
                f"{self.num_random}"
            )

    @property
    def num_candidates(self) -> int:
        """Candidates a problem, the true action among them."""
        return 1 + self.num_sampled + self.num_perturbed + self.num_random
