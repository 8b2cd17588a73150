"""What the comparison trains, each step once: LeWM, then denoisers on its latents."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from vj2_ddim_benchmark.assets.settings import MODEL
from vj2_ddim_benchmark.two_room import episodes as recorded
from vj2_ddim_benchmark.two_room import lewm
from vj2_ddim_benchmark.two_room.episodes import Episodes, Recording
from vj2_ddim_benchmark.two_room.evaluation import EvaluationSettings
from vj2_ddim_benchmark.two_room.lewm import LeWMConfig, LeWMTraining, Report, WorldModel
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.config import ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.run import train_run

DENOISER = replace(MODEL, condition_tokens=4)
DENOISER_TRAINING = TrainingConfig(
    num_epochs=10, batch_size=256, lr=1e-3, condition_dropout=0.1, evaluate_every=5,
    picture_every=100, device="cpu", wandb_mode="disabled",
)  # fmt: skip


@dataclass(frozen=True)
class Preparation:
    """Everything that is trained, and on what; the denoiser learns the protocol's window."""

    recordings: Mapping[str, Recording] = field(default_factory=lambda: recorded.RECORDINGS)
    lewm: LeWMConfig = field(default_factory=LeWMConfig)
    lewm_training: LeWMTraining = field(default_factory=LeWMTraining)
    num_windows: tuple[int, int] = (60_000, 2_000)  # to train and to validate the denoiser
    denoiser: ModelConfig = DENOISER
    denoiser_training: TrainingConfig = DENOISER_TRAINING
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    denoisers: Mapping[str, str] = field(  # the split that each learns from
        default_factory=lambda: {"expert": "train", "no expert": "aimless"}
    )


def prepare(
    folder: Path, what: Preparation, report: Report = lambda line: None
) -> tuple[WorldModel, dict[str, Path]]:
    """Collect, train LeWM, encode, train denoisers, export: the world model and the bundles."""
    paths: dict[str, list[Path]] = {}
    for name, recording in what.recordings.items():
        report(f"collecting {name}")
        path = recorded.collect_episodes(folder, name, recording)
        paths.setdefault(recording.split, []).append(path)
    load = cache(lambda split: recorded.load_episodes(paths[split]))  # which are large
    file = folder / "lewm.pt"
    if not file.exists():
        unfinished = folder / "lewm-training.pt"
        made = lewm.train_lewm(load("train"), what.lewm, what.lewm_training, unfinished, report)
        lewm.save_lewm(made, file)
        unfinished.unlink(missing_ok=True)
    world_model, bundles = lewm.load_lewm(file), {}
    for name, split in what.denoisers.items():
        own = folder / name.replace(" ", "_")
        bundles[name] = own / "bundle"
        if not bundles[name].exists():
            splits = {"train": load(split), "validation": load("validation")}
            _make_bundle(own, world_model, splits, what, report)
    return world_model, bundles


def _make_bundle(
    folder: Path, world_model: WorldModel, splits: Mapping[str, Episodes], what: Preparation,
    report: Report,
) -> None:  # fmt: skip
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
    world_model: WorldModel, splits: Mapping[str, Episodes], num_windows: tuple[int, ...],
    steps: int,
) -> tuple[FloatArray, FloatArray, dict[str, list[int]]]:  # fmt: skip
    """Trajectories of two latents `[1, D]` and one block of normalized actions; whose they are."""
    rng, latents, actions = np.random.default_rng(0), [], []
    members: dict[str, list[int]] = {}
    for (split, episodes), num in zip(splits.items(), num_windows, strict=True):
        images, taken = recorded.cut_windows(episodes, steps, num, rng)
        used, where = np.unique(images, return_inverse=True)
        encoded = lewm.encode_images(world_model, episodes.images[torch.from_numpy(used)])
        before = sum(map(len, members.values()))
        members[split] = list(range(before, before + num))
        latents.append(encoded[where.reshape(images.shape)][:, :, None])
        actions.append(world_model.normalized(taken)[:, None])
    return np.concatenate(latents), np.concatenate(actions), members
