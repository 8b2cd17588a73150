"""Every setting of data, a model, its training and measuring, and of a ranker: each declared once.

Nothing here needs torch or numpy: the command line reads its options here.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import REPRESENTATIONS
from vj2_ddim_training.data.settings import SHARE, ReadingSettings

__all__ = [
    "ARCHITECTURES", "BY_NAME", "CONDITIONS", "ORIGINAL_TRAINING", "DataSettings", "DistillConfig",
    "EvaluationSettings", "JudgeSettings", "ModelConfig", "RankerConfig", "RunSettings",
    "TrainingConfig",
]  # fmt: skip

ARCHITECTURES = ("dit", "minimal")
CONDITIONS = ("none", "sketch", "latents")
PRECISIONS = ("float32", "bfloat16", "float16")
LR_SCHEDULES = ("warmup_cosine", "cosine_by_epoch")
ORIGINAL_TRAINING: dict[str, Any] = {"lr_schedule": "cosine_by_epoch", "ema_decay": 0.0}
MODES = ("offline", "online", "disabled")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BY_NAME = "NAME or MODULE:FUNCTION, with =ARGUMENT after it where it takes one"
FACTOR: Any = {"low": 0.0, "high": 1e6}
COUNT: Any = {"low": 1, "high": 10**9}
SEED: Any = {"low": 0, "high": 2**64 - 1}  # as torch takes


@dataclass(frozen=True)
class ModelConfig(Settings):
    """What is built. All of it is stored in the checkpoint."""

    newer: ClassVar[Any] = ("correspondences",)

    architecture: str = setting("dit", "Minimal is the original script's.", choices=ARCHITECTURES)
    d_model: int = setting(128, "Width of the denoiser.", low=1, high=16_384)
    num_layers: int = setting(4, "Layers of the denoiser.", low=1, high=256)
    nhead: int = setting(4, "Attention heads; must divide the width.", low=1, high=1024)
    patch_size: int = setting(
        0, "Diffused rows in a token; 0 fits the representation.", low=0, high=100_000
    )
    dim_feedforward: int = setting(
        256, "Width of the feed-forward layers (minimal).", low=1, high=65_536
    )
    condition: str = setting(
        "auto", "Auto is sketch for dit and none for minimal.", choices=("auto", *CONDITIONS)
    )
    condition_layers: int = setting(2, "Layers that mix the patches of latents.", low=0, high=256)
    condition_tokens: int = setting(16, "Tokens that latents are gathered into.", low=1, high=4096)
    correspondences: bool = setting(
        False, "Tell each patch of latents where its like lies in the goal, and back."
    )

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

    num_epochs: int = setting(50, "Passes over the training data, or over a share of it.", **COUNT)
    epoch_share: float = setting(1.0, "Share of the data in an epoch.", above=0.0, high=1.0)
    batch_size: int = setting(32, "Examples in one step, over all devices.", **COUNT)
    lr: float = setting(1e-4, "Peak learning rate.", **FACTOR)
    lr_schedule: str = setting(
        "warmup_cosine",
        "Its course: a warm-up, then a cosine down to 0; or, as the original script's, the cosine "
        "alone, in one step an epoch.",
        choices=LR_SCHEDULES,
    )
    num_cycles: int = setting(1, "Times that course is run, each from half the peak.", **COUNT)
    warmup_share: float = setting(0.02, "Share of a cycle's steps that is warm-up.", **SHARE)
    weight_decay: float = setting(1e-4, "AdamW's weight decay.", **FACTOR)
    clip_norm: float = setting(1.0, "Largest norm of the gradient.", above=0.0, high=1e30)
    ema_decay: float = setting(0.999, "Decay of the averaged weights, after a warm-up.", **SHARE)
    condition_dropout: float = setting(
        0.2,
        "Share of examples trained without their condition; with 0, guidance is refused later.",
        low=0.0,
        below=1.0,
    )
    dropout: float = setting(0.1, "Dropout of minimal's layers.", low=0.0, below=1.0)
    noises_per_example: int = setting(1, "Timesteps and noises drawn for each example.", **COUNT)
    longest_goal: int = setting(
        1, "How many later states serve as goals for each; more than 1 for chains.", **COUNT
    )
    auxiliary_weight: float = setting(
        0.5, "Weight of regressing the actions from the condition tokens (latents).", **FACTOR
    )
    seed: int = setting(0, "Of weights, data order, timesteps and noise.", **SEED)
    evaluate_every: int = setting(1, "Epochs between validations.", **COUNT)
    picture_every: int = setting(10, "Epochs between pictures.", **COUNT)
    num_validation: int = setting(128, "Validation sequences measured after an epoch.", **COUNT)
    patience: int | None = setting(
        None, "Validations without improvement that end the run; as many as there are.", **COUNT
    )
    max_time: str | None = setting(
        None, "Longest time, as 30m, 12h, 2d or seconds; then it ends and can be resumed."
    )
    save_every: int | None = setting(
        None, "Epochs between checkpoints that are kept, as epoch_0010.pt.", **COUNT
    )
    save_minutes: float = setting(
        10.0, "Minutes between checkpoints within an epoch.", above=0.0, high=1e6
    )
    precision: str = setting(
        "float32", "Of the network's arithmetic; weights are float32.", choices=PRECISIONS
    )
    accumulate: int = setting(
        1, "Parts that a step's batch is taken in, to save memory; it stays one step.", **COUNT
    )
    compile: bool = setting(False, "Compile the network by torch.compile.")
    num_workers: int | None = setting(
        None, "Processes that read data ahead; chosen unless told.", low=0, high=1024
    )
    device: str = setting("auto", "Where to train.", choices=("auto", "cpu", "cuda"))
    num_threads: int | None = setting(
        None, "Torch's threads; its own choice unless told.", low=1, high=1024
    )
    log_every: int = setting(100, "Steps between lines of steps.jsonl, and of `train/*`.", **COUNT)
    run_name: str | None = setting(None, "The run's name; architecture, size and data unless told.")
    wandb_project: str = setting("vj2-ddim", "Weights & Biases project.")
    wandb_artifact: bool = setting(False, "Keep the checkpoint there as an artifact, at the end.")
    wandb_mode: str = setting("offline", "Weights & Biases.", choices=MODES, option="--wandb")

    def check(self) -> None:
        """The time must be one; a cosine by epoch is run once."""
        _ = self.max_seconds
        if self.lr_schedule == "cosine_by_epoch" and self.num_cycles > 1:
            raise ConfigError(
                f"num_cycles must be 1 with lr_schedule='cosine_by_epoch'; found {self.num_cycles}"
            )

    @property
    def max_seconds(self) -> float:
        """The longest time, infinite where none was told."""
        if self.max_time is None:
            return math.inf
        number, unit = self.max_time[:-1], self.max_time[-1:]
        if unit.isdigit():
            number, unit = self.max_time, "s"
        try:
            seconds = float(number) * UNITS[unit]
        except (ValueError, KeyError):
            seconds = math.nan
        if not 0.0 < seconds < math.inf:
            raise ConfigError(
                f"max_time must be a time such as 30m, 12h, 2d or 900; found {self.max_time!r}"
            )
        return seconds


@dataclass(frozen=True)
class RankerConfig(Settings):
    """A ranker's size, its candidates and its training. All of it is stored in `ranker.pt`."""

    width: int = setting(64, "Width of its layers; nhead must divide it.", low=1, high=16_384)
    num_layers: int = setting(2, "Layers that look at the condition.", low=1, high=256)
    nhead: int = setting(4, "Attention heads.", low=1, high=1024)
    num_queries: int = setting(4, "Tokens that one candidate is turned into.", low=1, high=1024)
    num_problems: int = setting(8000, "Examples whose (state, goal) it learns from.", low=2)
    num_sampled: int = setting(10, "Candidates a problem that the model samples.", low=0)
    num_perturbed: int = setting(
        3, "Candidates a problem that are the true action, changed a little or a lot.", low=0
    )
    num_random: int = setting(
        2, "Candidates a problem that are the true actions of other examples.", low=0
    )
    num_inference_steps: int = setting(5, "DDIM steps of the sampled candidates.", **COUNT)
    full_difference: float = setting(
        0.5,
        "Difference of two costs whose order counts in full, in standard deviations of the "
        "(logarithmic) cost among a problem's candidates; less counts less.",
        above=0.0,
    )
    num_epochs: int = setting(20, "Times each problem is seen.", **COUNT)
    batch_size: int = setting(64, "Problems a step.", **COUNT)
    lr: float = setting(
        1e-3, "Peak learning rate: warm-up, then cosine decay to 0.", above=0.0, high=1e6
    )
    weight_decay: float = setting(1e-2, "AdamW's weight decay.", **FACTOR)
    held_out_share: float = setting(0.05, "Problems that are only measured.", low=0.0, below=1.0)
    seed: int = setting(0, "Of the weights, the candidates and the order.", **SEED)

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


@dataclass(frozen=True)
class DistillConfig(Settings):
    """What a student learns from its teacher, and how. All of it is stored in its checkpoint."""

    num_problems: int = setting(40_000, "Examples whose condition it learns from.", low=1)
    num_noises: int = setting(4, "Starting noises a problem, of all sizes up to one.", **COUNT)
    teacher_steps: int = setting(10, "DDIM steps of the teacher.", low=2, high=100_000)
    guidance_scale: float = setting(
        1.25, "The teacher's guidance, which the student then has in itself.", low=0, high=100
    )
    middle_share: float = setting(
        0.25, "Share of them that begin at a re-noised sample, as refinements do.", low=0, high=0.5
    )
    kept_share: float = setting(
        1.0,
        "Share of a problem's samples, the best by the ranker, that are taught; the others become "
        "the nearest of them.",
        low=0,
        high=1,
    )
    num_inference_steps: int = setting(1, "Steps that the student is made for.", low=1, high=8)
    num_epochs: int = setting(25, "Times each problem is seen.", **COUNT)
    batch_size: int = setting(64, "Problems a step.", **COUNT)
    lr: float = setting(1e-3, "Peak learning rate: warm-up, then a cosine to 0.", **FACTOR)
    ema_decay: float = setting(0.999, "Decay of the averaged weights, after a warm-up.", **SHARE)
    seed: int = setting(0, "Of problems, noises and order.", **SEED)


@dataclass(frozen=True)
class DataSettings(ReadingSettings):
    """What a run learns from, and the folder it goes to."""

    data_dir: Path | None = setting(
        None, "A folder of *_actions.npy files; trajectories for latents. Needed for a new run."
    )
    val_data_dir: Path | None = setting(
        None, "Validation data, needed for a new run; trajectories: the same folder will do."
    )
    save_dir: Path = setting(Path("checkpoints"), "The run's folder.")
    start_from: Path | None = setting(
        None, "A checkpoint to train further on these data; its model and schedule stay."
    )
    representation: str = setting(
        "auto",
        "Auto is the best that inverts, raw for minimal.",
        choices=("auto", *REPRESENTATIONS),
    )
    displacement_scale: float | None = setting(
        None,
        "Unit of a path's displacements, as a share of that of its places; measured if it is not "
        "told, or the checkpoint's that is trained further.",
        above=0.0,
        high=1.0,
    )
    horizon: int = setting(1, "World-model steps in one sequence, so many a plan.", low=1)
    action_block: int | None = setting(
        None, "Actions in one world-model step; 250 if neither this nor the next is told.", low=1
    )
    sequence_length: int | None = setting(
        None, "Actions in one sequence, horizon * action_block: tell either.", low=1
    )
    channels: tuple[str, ...] = setting(
        ("x", "y", "press"), "An action's channels; without one named press, it is no touch."
    )
    action_low: tuple[float, ...] = setting((0.0, 0.0, 0.0), "Lower bound of each channel.")
    action_high: tuple[float, ...] = setting((1.0, 1.0, 1.0), "Upper bound of each channel.")
    resume: bool = setting(False, "Go on from the run's checkpoint.")
    overwrite: bool = setting(False, "Replace the run that is there.")

    def check(self) -> None:
        """The sequence must be whole blocks, and channels must say what they are."""
        if self.sequence_length is not None and self.sequence_length != self.horizon * self.block:
            raise ConfigError(
                f"sequence_length must be horizon * action_block; found {self.sequence_length}, "
                f"{self.horizon} and {self.action_block}. Leave one of them out"
            )
        for name in self.channels:
            if name != "press" and name.strip().lower() == "press":
                raise ConfigError(
                    f"channels has {name!r}; write 'press' for the channel of the touch, or give "
                    f"one that is no touch another name"
                )

    @property
    def block(self) -> int:
        """Actions in one world-model step, worked out where they were left open."""
        if self.action_block is not None:
            return self.action_block
        return 250 if self.sequence_length is None else self.sequence_length // self.horizon


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """Who says which epoch is the best."""

    judge: str | None = setting(None, f"What measures success and keeps best.pt: {BY_NAME}.")


@dataclass(frozen=True)
class RunSettings(DataSettings, JudgeSettings):
    """All that `train_run` needs."""

    model: ModelConfig = setting(ModelConfig(), "What is built.")
    training: TrainingConfig = setting(TrainingConfig(), "How it is trained.")
    schedule: NoiseSchedule | None = setting(
        None, "How it is noised; None is the default, or the original script's for minimal."
    )

    def check(self) -> None:
        """A run learns from something."""
        super().check()
        _ = self.folders

    @property
    def folders(self) -> tuple[Path, Path]:
        """Training and validation data; one that is resumed has them from its `run.json`."""
        if self.data_dir is None or self.val_data_dir is None:
            raise ConfigError(
                f"data_dir and val_data_dir must be given; found {self.data_dir} and "
                f"{self.val_data_dir}. Only a run that is resumed knows its own, from the run.json "
                f"in its folder"
            )
        return self.data_dir, self.val_data_dir

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """The schedule, chosen where it was left open."""
        if self.schedule is not None:
            return self.schedule
        return ORIGINAL_SCHEDULE if self.model.architecture == "minimal" else NoiseSchedule()


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """How much is measured."""

    num_sequences: int = setting(0, "Held-out sequences, evenly spread; 0 for all.", low=0)
    num_generated: int = setting(2000, "Sequences to generate.", low=1)
    seed: int = setting(0, "Of all noise.", **SEED)
    clip: bool = setting(True, "Clip x0 to the action bounds while sampling.")
