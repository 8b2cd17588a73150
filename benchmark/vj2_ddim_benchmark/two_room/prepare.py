"""What the comparison trains, step by step: LeWM, then a denoiser on its latents.

A step that is done is not done again, and one that was cut short goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    WorldModel,
    build_lewm,
    encode_images,
    image_transform,
    load_lewm,
    save_lewm,
)
from vj2_ddim_benchmark.two_room.stable_worldmodel import import_stable_worldmodel
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.loop import TrainingLoop, run_resumably
from vj2_ddim_training.run import RunSettings, train_run

__all__ = ["LeWMTraining", "Preparation", "prepare"]

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
class LeWMTraining(Settings):
    """How a LeWM is trained: AdamW, warm-up, then cosine decay to 0."""

    num_steps: int = setting(1600, "Optimizer steps.", low=1)
    batch_size: int = setting(64, "Windows in one step.", low=1)
    lr: float = setting(1e-3, "Peak learning rate.", above=0)
    weight_decay: float = setting(1e-3, "AdamW's.", low=0)
    regularizer_weight: float = setting(0.09, "Weight of SIGReg; the host's default.", low=0)
    num_projections: int = setting(256, "Directions that SIGReg looks along in a step.", low=1)
    seed: int = setting(0, "Of weights and batches.", low=0)


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


class _NextLatent:
    """LeWM's training task: the next latent, and its Gaussian regularizer SIGReg.

    A batch is windows of `num_frames + 1` world-model steps, drawn in order from one generator.
    """

    def __init__(self, episodes: Episodes, config: LeWMConfig, training: LeWMTraining) -> None:
        torch.manual_seed(training.seed)
        self.rng = np.random.default_rng(training.seed)
        self.model = build_lewm(config)
        self.regularizer = import_stable_worldmodel("wm.loss").SIGReg(
            num_proj=training.num_projections
        )
        self.episodes, self.config, self.training = episodes, config, training
        self.total_steps = training.num_steps
        self.steps_per_epoch = math.gcd(training.num_steps, 100)  # the state is kept after each
        self.mean, self.std = episodes.actions.mean(axis=0), episodes.actions.std(axis=0)
        self.actions = ((episodes.actions - self.mean) / self.std).astype(np.float32)
        self.windows = episodes.windows(config.num_frames * config.action_block + 1)
        self.transform = image_transform()
        self.last: dict[str, float] = {}

    def loss(self, step: int) -> Tensor:
        """Squared error of the predicted latents, and SIGReg of all latents."""
        frames, blocks = self._batch(self.rng.choice(self.windows, self.training.batch_size))
        pixels = self.transform(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        output = self.model.encode({"pixels": pixels, "action": blocks})
        latents, acted = output["emb"], output["act_emb"]
        predicted = self.model.predict(latents[:, :-1], acted[:, :-1])
        prediction: Tensor = (predicted - latents[:, 1:]).square().mean()
        spread = self.regularizer(latents.transpose(0, 1))
        self.last = {"prediction": float(prediction.detach()), "sigreg": float(spread.detach())}
        return prediction + self.training.regularizer_weight * spread

    def _batch(self, first: np.ndarray) -> tuple[Tensor, Tensor]:
        """Frames `[B, T, 3, H, W]` and action blocks `[B, T, block * A]`; the last is unused."""
        block, frames = self.config.action_block, self.config.num_frames + 1
        at = first[:, None] + block * np.arange(frames)
        within = np.minimum(at[..., None] + np.arange(block), len(self.actions) - 1)
        blocks = torch.from_numpy(self.actions[within].reshape(len(first), frames, -1))
        return self.episodes.images[torch.from_numpy(at)], blocks

    def state_dict(self) -> dict[str, Any]:
        """Both generators: of the batches, and of SIGReg's directions."""
        return {"rng": self.rng.bit_generator.state, "torch_rng": torch.get_rng_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])


def train_lewm(
    episodes: Episodes,
    config: LeWMConfig,
    training: LeWMTraining,
    file: Path | None = None,
    report: Report = lambda line: None,
) -> WorldModel:
    """A trained LeWM in evaluation mode; `file` keeps the state of a training cut short."""
    task = _NextLatent(episodes, config, training)
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    learning_rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, total_steps=training.num_steps, pct_start=0.05
    )

    def line(done: int, total: int, loss: str) -> None:
        if (done - 1) % 100 == 0:
            losses = ", ".join(f"{name} {value:.3f}" for name, value in task.last.items())
            report(f"LeWM, step {done - 1} of {total}: {losses}")

    loop = TrainingLoop(task, optimizer, learning_rate, clip_norm=1.0, progress=line)
    run_resumably(loop, file, {"lewm": config.to_dict(), "training": training.to_dict()})
    task.model.eval().requires_grad_(False)
    return WorldModel(task.model, config, task.mean, task.std)


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
