"""What the comparison trains, step by step: LeWM, then a denoiser on its latents.

A step that is done is not done again, and one that was cut short goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vj2_ddim_benchmark.two_room.episodes import (
    RECORDINGS,
    Episodes,
    Recording,
    collect_episodes,
    cut_windows,
    load_episodes,
)
from vj2_ddim_benchmark.two_room.evaluation import EvaluationSettings
from vj2_ddim_benchmark.two_room.lewm import (
    LeWMConfig,
    LeWMTraining,
    WorldModel,
    encode_images,
    load_lewm,
    save_lewm,
    train_lewm,
)
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.run import RunSettings, train_run

__all__ = ["Preparation", "prepare"]

Report = Callable[[str], None]
SCHEDULE = NoiseSchedule(
    beta_schedule="cosine", prediction_type="v_prediction", timestep_spacing="trailing"
)
DENOISER = ModelConfig(
    d_model=96, num_layers=3, condition="latents", condition_layers=1, condition_tokens=4
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
    """Everything that is trained, and on what; the denoiser learns the protocol's window."""

    recordings: Mapping[str, Recording] = field(default_factory=lambda: RECORDINGS)
    lewm: LeWMConfig = field(default_factory=LeWMConfig)
    lewm_training: LeWMTraining = field(default_factory=LeWMTraining)
    num_windows: tuple[int, int] = (60_000, 2_000)  # to train and to validate the denoiser
    denoiser: ModelConfig = DENOISER
    denoiser_training: TrainingConfig = DENOISER_TRAINING
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


def prepare(
    folder: Path, what: Preparation, report: Report = lambda line: None
) -> tuple[WorldModel, Path]:
    """Collect, train LeWM, encode, train the denoiser, export: the world model and the bundle."""
    paths: dict[str, list[Path]] = {}
    for name, recording in what.recordings.items():
        report(f"collecting {name}")
        paths.setdefault(recording.split, []).append(collect_episodes(folder, name, recording))
    world_model_file, bundle = folder / "lewm.pt", folder / "bundle"
    if not (world_model_file.exists() and bundle.exists()):
        episodes = load_episodes(paths["train"])
        if not world_model_file.exists():
            unfinished = folder / "lewm-training.pt"
            made = train_lewm(episodes, what.lewm, what.lewm_training, unfinished, report)
            save_lewm(made, world_model_file)
            unfinished.unlink(missing_ok=True)
        splits = {"train": episodes, "validation": load_episodes(paths["validation"])}
        _make_bundle(folder, load_lewm(world_model_file), splits, what, report)
    return load_lewm(world_model_file), bundle


def _make_bundle(
    folder: Path,
    world_model: WorldModel,
    splits: Mapping[str, Episodes],
    what: Preparation,
    report: Report,
) -> None:
    """Encode windows of the episodes, train the denoiser on them, export it."""
    steps = what.evaluation.horizon * what.evaluation.action_block
    report("encoding windows")
    _write_windows(folder / "windows", world_model, splits, what.num_windows, steps)
    low, high = world_model.action_bounds()
    settings = RunSettings(
        data_dir=folder / "windows",
        val_data_dir=folder / "windows",
        save_dir=folder / "denoiser",
        model=what.denoiser,
        training=what.denoiser_training,
        schedule=SCHEDULE,
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


def _write_windows(
    folder: Path,
    world_model: WorldModel,
    splits: Mapping[str, Episodes],
    num_windows: tuple[int, ...],
    steps: int,
) -> None:
    """Windows as trajectories of two latents `[1, D]` and one block of normalized actions."""
    rng = np.random.default_rng(0)
    low, high = world_model.action_bounds()
    latents, actions, members, count = [], [], {}, 0
    for (split, episodes), num in zip(splits.items(), num_windows, strict=True):
        images, taken = cut_windows(episodes, steps, num, rng)
        used, where = np.unique(images, return_inverse=True)
        encoded = encode_images(world_model, episodes.images[torch.from_numpy(used)])
        latents.append(encoded[where.reshape(images.shape)][:, :, None])
        normalized = (taken - world_model.action_mean) / world_model.action_std
        actions.append(np.clip(normalized, low, high)[:, None].astype(np.float32))
        members[split] = np.arange(count, count + num).tolist()
        count += num
    write_trajectories_h5(
        folder,
        np.concatenate(latents),
        np.concatenate(actions),
        members,
        layer_normed=False,
        trajectories_per_file=16384,
        overwrite=True,
    )
