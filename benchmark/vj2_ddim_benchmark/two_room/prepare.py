"""What the comparison needs, step by step; a step that is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vj2_ddim_benchmark.two_room.collect import RECORDINGS, Recording, collect_episodes
from vj2_ddim_benchmark.two_room.episodes import Episodes, load_episodes
from vj2_ddim_benchmark.two_room.evaluation import EvaluationSettings
from vj2_ddim_benchmark.two_room.lewm import LeWMConfig, WorldModel, load_lewm, save_lewm
from vj2_ddim_benchmark.two_room.train_lewm import LeWMTraining, train_lewm
from vj2_ddim_benchmark.two_room.windows import action_bounds, write_windows
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.run import RunSettings, train_run

__all__ = ["Preparation", "prepare"]

Report = Callable[[str], None]
DENOISER = ModelConfig(
    d_model=96,
    num_layers=3,
    condition="latents",
    condition_layers=1,
    condition_tokens=4,
)
DENOISER_TRAINING = TrainingConfig(
    num_epochs=20,
    batch_size=256,
    lr=1e-3,
    condition_dropout=0.1,
    evaluate_every=5,
    picture_every=100,
    device="cpu",
    wandb_mode="disabled",
)


@dataclass(frozen=True)
class Preparation:
    """Everything that is trained, and on what.

    Attributes:
        recordings: Episodes to collect.
        lewm: Sizes of the world model.
        lewm_training: How it is trained.
        num_windows: Training and validation examples of the denoiser.
        denoiser: Its sizes.
        denoiser_training: How it is trained.
        evaluation: The protocol; its planning window is what the denoiser learns.
    """

    recordings: Mapping[str, Recording] = field(default_factory=lambda: RECORDINGS)
    lewm: LeWMConfig = field(default_factory=LeWMConfig)
    lewm_training: LeWMTraining = field(default_factory=LeWMTraining)
    num_windows: tuple[int, int] = (60_000, 2_000)
    denoiser: ModelConfig = DENOISER
    denoiser_training: TrainingConfig = DENOISER_TRAINING
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


def prepare(
    folder: Path, what: Preparation, report: Report = lambda line: None
) -> tuple[WorldModel, Path]:
    """Collect, train LeWM, encode, train the denoiser, export.

    Args:
        folder: Where all of it is kept.
        what: Settings.
        report: Told about each step that begins.

    Returns:
        The world model and the bundle's folder.
    """
    paths: dict[str, list[Path]] = {}
    for name, recording in what.recordings.items():
        report(f"collecting {name}")
        paths.setdefault(recording.split, []).append(collect_episodes(folder, name, recording))
    world_model_file, bundle = folder / "lewm.pt", folder / "bundle"
    if not (world_model_file.exists() and bundle.exists()):
        episodes = load_episodes(paths["train"])
        if not world_model_file.exists():
            save_lewm(_train_lewm(episodes, what, report), world_model_file)
        _make_bundle(folder, load_lewm(world_model_file), episodes, paths, what, report)
    return load_lewm(world_model_file), bundle


def _train_lewm(episodes: Episodes, what: Preparation, report: Report) -> WorldModel:
    """Train, with a line about every hundredth step."""

    def line(step: int, losses: dict[str, float]) -> None:
        if step % 100 == 0:
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            report(f"LeWM, step {step} of {what.lewm_training.num_steps}: {numbers}")

    return train_lewm(episodes, what.lewm, what.lewm_training, line)


def _make_bundle(
    folder: Path,
    world_model: WorldModel,
    episodes: Episodes,
    paths: Mapping[str, list[Path]],
    what: Preparation,
    report: Report,
) -> None:
    """Encode windows of the episodes, train the denoiser on them, export it."""
    steps = what.evaluation.horizon * what.evaluation.action_block
    report("encoding windows")
    held_out = load_episodes(paths["validation"])
    splits = {
        "train": (episodes, what.num_windows[0]),
        "validation": (held_out, what.num_windows[1]),
    }
    write_windows(folder / "windows", world_model, splits, steps)
    low, high = action_bounds(world_model)
    settings = RunSettings(
        data_dir=folder / "windows",
        val_data_dir=folder / "windows",
        save_dir=folder / "denoiser",
        model=what.denoiser,
        training=what.denoiser_training,
        schedule=NoiseSchedule(
            beta_schedule="cosine", prediction_type="v_prediction", timestep_spacing="trailing"
        ),
        sequence_length=steps,
        channels=("vx", "vy"),
        action_low=tuple(low.tolist()),
        action_high=tuple(high.tolist()),
        overwrite=True,
    )

    def line(done: int, total: int, losses: str) -> None:
        if done % 100 == 0:
            report(f"denoiser, step {done} of {total}: {losses}")

    train_run(settings, line)
    report("exporting")
    export_bundle(folder / "denoiser" / "checkpoint.pt", folder / "bundle", overwrite=True)
