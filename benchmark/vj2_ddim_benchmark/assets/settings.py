"""How much of everything the trained parts are made with; the defaults make those shipped."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import REPRESENTATIONS
from vj2_ddim_training.config import DistillConfig, ModelConfig, RankerConfig, TrainingConfig

TRAINING = TrainingConfig(
    num_epochs=30, num_cycles=3, epoch_share=0.116, batch_size=64, lr=2e-3, condition_dropout=0.1,
    noises_per_example=3, longest_goal=4, auxiliary_weight=1.0, wandb_mode="disabled",
)  # fmt: skip
MODEL = ModelConfig(
    d_model=96, num_layers=3, condition="latents", condition_layers=1, condition_tokens=16
)
STUDENT = DistillConfig(num_noises=8, kept_share=0.5)
NUM_VALIDATIONS = 5  # the most successful of so many, or fewer, is kept of a variant


@dataclass(frozen=True)
class AssetSettings(Settings):
    """Every number that decides what is trained."""

    world_model: WorldModelConfig = setting(WorldModelConfig(), "The world model's own settings.")
    num_trajectories: int = setting(40000, "That the denoiser is trained on.", low=1)
    num_validation_trajectories: int = setting(200, "It is validated on.", low=1)
    scripted_share: float = setting(1.0, "Share of gestures aimed at a widget.", low=0, high=1)
    near_miss_share: float = setting(0.0, "Share of those that are mistakes.", low=0, high=1)
    model: ModelConfig = setting(MODEL, "The denoiser.")
    training: TrainingConfig = setting(TRAINING, "How it is trained.")
    ranker: RankerConfig | None = setting(
        RankerConfig(num_problems=12000), "How its ranker is trained; None for none."
    )
    student: DistillConfig | None = setting(STUDENT, "How its student is made; None for none.")
    amortised: TrainingConfig | None = setting(
        replace(TRAINING, num_epochs=5, num_cycles=1),
        "How the regression and the Gaussian are trained; None for neither.",
    )
    representation: str = setting(
        "auto", "What the denoiser diffuses.", choices=(*REPRESENTATIONS, "auto")
    )
    displacement_scale: float | None = setting(
        1.0, "Unit of a path's displacements; None measures it.", above=0.0, high=1.0
    )
    seed: int = setting(1, "Of the denoiser's data; the other parts hold their own.", low=0)

    @classmethod
    def small(cls) -> "AssetSettings":
        """A small denoiser in minutes, for the demonstration."""
        training = replace(TRAINING, num_epochs=5, num_cycles=1, epoch_share=1.0, longest_goal=1)
        world_model, sizes = WorldModelConfig.quick(), (4000, 50)
        none: dict[str, Any] = {"ranker": None, "student": None, "amortised": None}
        return cls(world_model, *sizes, training=training, **none)

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        found: dict[str, Any] = json.loads(json.dumps(self.to_dict()))
        return found


@dataclass(frozen=True)
class VariantSettings(Settings):
    """A denoiser as the shipped one, with one thing changed: its data or its representation."""

    data_share: float = setting(
        1.0, "Share of the shipped one's trajectories.", above=0.0, high=1.0
    )
    representation: str = setting("auto", "What is diffused.", choices=(*REPRESENTATIONS, "auto"))
    steps: int = setting(3000, "Gradient steps, rounded up to whole epochs.", low=1)
    threads: int = setting(1, "Torch's threads.", low=1, high=1024)

    def applied_to(self, full: AssetSettings) -> AssetSettings:
        """What is trained: `steps` in at least `NUM_VALIDATIONS` epochs, and nothing beside it."""
        num_trajectories = math.ceil(self.data_share * full.num_trajectories)
        horizon, longest = full.world_model.horizon, full.training.longest_goal
        pairs = longest * horizon + sum(max(0, horizon - later) for later in range(1, longest))
        training = in_steps(full.training, self.steps, num_trajectories * pairs)
        every = math.ceil(training.num_epochs / NUM_VALIDATIONS)
        training = replace(training, evaluate_every=every)
        alone = replace(full, training=training, ranker=None, student=None, amortised=None)
        return replace(alone, num_trajectories=num_trajectories, representation=self.representation)


@dataclass(frozen=True)
class RivalSettings(VariantSettings):
    """How our denoiser and the amortised planners are trained and measured."""

    data_share: float = setting(
        0.25, "Share of the shipped one's trajectories.", above=0.0, high=1.0
    )
    steps: int = setting(1200, "Gradient steps of each, rounded up to whole epochs.", low=1)
    batch_size: int = setting(32, "Examples in a step.", low=1)
    d_model: int = setting(64, "Width of all networks; the shipped denoiser's is 96.", low=8)
    seeds: tuple[int, ...] = setting((0, 1, 2, 3, 4), "Of the trainings, with commas between.")
    methods: tuple[str, ...] = setting((), "Names with commas between; all unless told.")
    num_problems: int = setting(300, "Unseen screens.", low=30)
    num_validation: int = setting(100, "Validation screens, for every choice.", low=30)


@dataclass(frozen=True)
class AmortiseSettings(Settings):
    """How an amortised planner is trained; unless told, as long as the denoiser of pages."""

    steps: int = setting(12720, "Gradient steps, rounded up to whole epochs.", low=1)
    batch_size: int = setting(64, "Examples in a step.", low=1)
    d_model: int = setting(96, "Width of its networks.", low=8)
    num_layers: int = setting(3, "Layers of the denoiser that it is as large as.", low=1)
    condition_layers: int = setting(1, "Layers that mix latent patches.", low=0)
    lr: float = setting(2e-3, "Peak learning rate.", above=0.0, high=1e6)
    longest_goal: int = setting(4, "How many later states serve as goals for each.", low=1)
    seed: int = setting(0, "Of the weights and the order.", low=0)
    precision: str = setting(
        "float32", "Of the networks' arithmetic.", choices=("float32", "bfloat16")
    )
    compile: bool = setting(False, "Compile the networks by torch.compile.")
    threads: int = setting(1, "Torch's threads.", low=1, high=1024)

    @property
    def model(self) -> ModelConfig:
        """The denoiser that it is as large as."""
        sizes = {
            name: getattr(self, name) for name in ("d_model", "num_layers", "condition_layers")
        }
        return replace(MODEL, **sizes)

    def training(self, num_examples: int) -> TrainingConfig:
        """On so many examples."""
        names = "batch_size", "lr", "longest_goal", "seed", "precision", "compile"
        same = {name: getattr(self, name) for name in names}
        how = replace(TRAINING, **same, num_threads=self.threads)
        return in_steps(how, self.steps, num_examples)


def in_steps(how: TrainingConfig, steps: int, num_examples: int) -> TrainingConfig:
    """So many steps in all, in at least `NUM_VALIDATIONS` epochs."""
    batches = num_examples / how.batch_size
    num_epochs = max(NUM_VALIDATIONS, math.ceil(steps / batches))
    share = min(1.0, steps / (num_epochs * batches))
    return replace(how, num_epochs=num_epochs, epoch_share=share, num_cycles=1)
