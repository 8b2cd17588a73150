"""One whole run: data, model, trainer, tracker, put together from settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import Checkpoint
from vj2_ddim_training.conditions.latents import LatentEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.flat import read_flat_actions
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import infer_action_spec, open_examples
from vj2_ddim_training.loop import Progress, choose_device
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.tracking import Tracker
from vj2_ddim_training.trainer import Trainer
from vj2_ddim_training.validation import Judge, Validation

__all__ = ["RunSettings", "train_run"]

NUM_LOOKED_AT = 5000  # examples that decide the representation and the latents' statistics


@dataclass(frozen=True)
class RunSettings:
    """All that `train_run` needs.

    Attributes:
        data_dir: Training data.
        val_data_dir: Validation data; for trajectories it may be the same folder.
        save_dir: The run's folder.
        model: What is built; its patch size comes from `patch_size`.
        training: How it is trained.
        schedule: How it is noised.
        representation: `raw`, `held`, `path`, or `auto`.
        sequence_length: L.
        patch_size: Rows in one token; 0 chooses.
        channels: Names of the A channels; actions without a channel `press` are not touches.
        action_low: Lower bound of each channel.
        action_high: Upper bound of each channel.
        resume: Go on from the checkpoint in `save_dir`.
        overwrite: Replace the run in `save_dir`.
    """

    data_dir: Path
    val_data_dir: Path
    save_dir: Path
    model: ModelConfig
    training: TrainingConfig
    schedule: NoiseSchedule
    representation: str = "auto"
    sequence_length: int = 250
    patch_size: int = 0
    channels: tuple[str, ...] = ("x", "y", "press")
    action_low: tuple[float, ...] = (0.0, 0.0, 0.0)
    action_high: tuple[float, ...] = (1.0, 1.0, 1.0)
    resume: bool = False
    overwrite: bool = False


def train_run(
    settings: RunSettings,
    progress: Progress = lambda done, total, line: None,
    judge: Judge | None = None,
) -> Checkpoint:
    """Train, validate, track and save.

    Args:
        settings: The run.
        progress: Called after every step.
        judge: Measures success whenever the model is validated; the epoch with the highest is kept
            as `best.pt`. The loss does not show success.

    Returns:
        The final checkpoint, which lies in `save_dir`.

    Raises:
        VJ2DDIMError: Bad data, settings that do not fit, or a folder already in use.
    """
    config = settings.training
    if settings.sequence_length < 1:
        raise ConfigError(f"sequence_length must be at least 1; found {settings.sequence_length}")
    choose_device(config.device)  # before anything is read or replaced
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    template = ActionSpec(
        action_block=settings.sequence_length,
        channels=settings.channels,
        action_low=settings.action_low,
        action_high=settings.action_high,
        press_channel="press" if "press" in settings.channels else None,
        min_press_steps=0,
        max_press_steps=None,
        path_knots=None,
        representation="raw",
        normalized=settings.model.architecture != "minimal",
    )
    actions = _some_actions(settings, template)
    spec = infer_action_spec(actions, settings.representation, template)
    condition = settings.model.condition
    train_set = open_examples(settings.data_dir, spec, condition, "train", config.longest_goal)
    held_out = open_examples(settings.val_data_dir, spec, condition, "validation")
    model_config = replace(settings.model, patch_size=_patch_size(settings, spec))
    torch.manual_seed(config.seed)
    model = DiffusionModel(model_config, spec, settings.schedule, train_set.input_shapes)
    if isinstance(model.condition_encoder, LatentEncoder):
        looked_at = train_set.batch(np.arange(min(NUM_LOOKED_AT, len(train_set))))
        model.condition_encoder.set_statistics(torch.from_numpy(looked_at.inputs["state"]))
    folder = RunFolder(settings.save_dir)
    with folder.claim(resume=settings.resume, overwrite=settings.overwrite):
        everything = {**model_config.to_dict(), **config.to_dict(), **settings.schedule.to_dict()}
        tracker = Tracker(
            folder, everything, config.wandb_project, config.wandb_mode, settings.resume
        )
        validation = Validation(
            held_out,
            actions,
            tracker,
            config.num_validation,
            config.picture_every,
            config.seed,
            judge,
        )
        trainer = Trainer(model, config, train_set, validation, folder, progress)
        try:
            if settings.resume:
                trainer.resume()
            return trainer.run()
        finally:
            tracker.close()


def _some_actions(settings: RunSettings, template: ActionSpec) -> FloatArray:
    """Training actions `[n, L, A]`: all gestures, or the first transitions."""
    if settings.model.condition != "latents":
        return read_flat_actions(settings.data_dir, template).actions
    trajectories = open_trajectories(settings.data_dir, template, "train")
    count = min(NUM_LOOKED_AT, len(trajectories))
    actions: FloatArray = trajectories.gather(np.arange(count))[2]
    return actions


def _patch_size(settings: RunSettings, spec: ActionSpec) -> int:
    """A token for each knot of a path, or for each 10 steps or so of a sequence."""
    if settings.patch_size:
        return settings.patch_size
    rows, _ = spec.diffused_shape
    wanted = spec.num_channels - 1 if spec.representation == "path" else 10
    return max(size for size in range(1, wanted + 1) if rows % size == 0)
