"""What the comparison trains, step by step: LeWM, then a denoiser on its latents.

A step that is done is not done again, and one that was cut short goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    Report,
    WorldModel,
    encode_images,
    load_lewm,
    save_lewm,
    train_lewm,
)
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.config import ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.run import train_run

__all__ = ["Preparation", "prepare"]

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
        path = collect_episodes(folder, name, recording)
        paths.setdefault(recording.split, []).append(path)
    file, bundle = folder / "lewm.pt", folder / "bundle"
    if not (file.exists() and bundle.exists()):
        splits = {name: load_episodes(paths[name]) for name in ("train", "validation")}
        if not file.exists():
            unfinished = folder / "lewm-training.pt"
            made = train_lewm(splits["train"], what.lewm, what.lewm_training, unfinished, report)
            save_lewm(made, file)
            unfinished.unlink(missing_ok=True)
        _make_bundle(folder, load_lewm(file), splits, what, report)
    return load_lewm(file), bundle


def _make_bundle(
    folder: Path,
    world_model: WorldModel,
    splits: Mapping[str, Episodes],
    what: Preparation,
    report: Report,
) -> None:
    """Encode windows of the episodes, train the denoiser on them, export it."""
    windows, save_dir = folder / "windows", folder / "denoiser"
    steps = what.evaluation.horizon * what.evaluation.action_block
    low, high = (world_model.normalized(bound) for bound in (-1.0, 1.0))
    report("encoding windows")
    latents, actions, members = _windows(world_model, splits, what.num_windows, steps)
    actions = np.clip(actions, low, high).astype(np.float32)
    write_trajectories_h5(
        windows, latents, actions, members,
        layer_normed=False, trajectories_per_file=16384, overwrite=True,
    )  # fmt: skip
    settings = RunSettings(
        data_dir=windows,
        val_data_dir=windows,
        save_dir=save_dir,
        model=what.denoiser,
        training=what.denoiser_training,
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
    export_bundle(save_dir / "checkpoint.pt", folder / "bundle", overwrite=True)


def _windows(
    world_model: WorldModel,
    splits: Mapping[str, Episodes],
    num_windows: tuple[int, ...],
    steps: int,
) -> tuple[FloatArray, FloatArray, dict[str, list[int]]]:
    """Trajectories of two latents `[1, D]` and one block of normalized actions; whose they are."""
    rng, latents, actions = np.random.default_rng(0), [], []
    members: dict[str, list[int]] = {}
    for (split, episodes), num in zip(splits.items(), num_windows, strict=True):
        images, taken = cut_windows(episodes, steps, num, rng)
        used, where = np.unique(images, return_inverse=True)
        encoded = encode_images(world_model, episodes.images[torch.from_numpy(used)])
        before = sum(map(len, members.values()))
        members[split] = list(range(before, before + num))
        latents.append(encoded[where.reshape(images.shape)][:, :, None])
        actions.append(world_model.normalized(taken)[:, None])
    return np.concatenate(latents), np.concatenate(actions), members
