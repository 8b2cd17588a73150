"""One whole run: data, model, trainer, tracker, put together from settings."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import REPRESENTATIONS, ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import Examples, infer_action_spec, open_examples
from vj2_ddim_training.loop import Progress, choose_device
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.trainer import Trainer
from vj2_ddim_training.validation import SuccessMeasure, Validation

__all__ = ["DataSettings", "RunSettings", "train_run"]

NUM_LOOKED_AT = 5000  # examples that decide the representation and the latents' statistics


@dataclass(frozen=True)
class DataSettings(Settings):
    """What a run learns from, and the folder it goes to."""

    data_dir: Path = setting(
        MISSING, "Training data: a folder of *_actions.npy files, or of trajectories for latents."
    )
    val_data_dir: Path = setting(
        MISSING, "Validation data, in the same format; for trajectories the same folder will do."
    )
    save_dir: Path = setting(Path("checkpoints"), "The run's folder.")
    representation: str = setting(
        "auto",
        "What is diffused; auto is the best that inverts exactly, and raw for minimal.",
        choices=("auto", *REPRESENTATIONS),
    )
    sequence_length: int = setting(250, "Actions in one sequence.", low=1)
    channels: tuple[str, ...] = setting(
        ("x", "y", "press"),
        "Names of an action's channels; without one named press, actions are not touches.",
    )
    action_low: tuple[float, ...] = setting((0.0, 0.0, 0.0), "Lower bound of each channel.")
    action_high: tuple[float, ...] = setting((1.0, 1.0, 1.0), "Upper bound of each channel.")
    resume: bool = setting(False, "Go on from the run's checkpoint.")
    overwrite: bool = setting(False, "Replace the run that is there.")


@dataclass(frozen=True)
class RunSettings(DataSettings):
    """All that `train_run` needs."""

    model: ModelConfig = setting(ModelConfig(), "What is built.")
    training: TrainingConfig = setting(TrainingConfig(), "How it is trained.")
    schedule: NoiseSchedule | None = setting(
        None, "How it is noised; None is the default, or the original script's for minimal."
    )

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """The schedule, chosen where it was left open."""
        if self.schedule is not None:
            return self.schedule
        return ORIGINAL_SCHEDULE if self.model.architecture == "minimal" else NoiseSchedule()


def train_run(
    settings: RunSettings, progress: Progress | None = None, judge: SuccessMeasure | None = None
) -> Checkpoint:
    """Train, validate, track and save.

    ```python
    train_run(RunSettings(data_dir=Path("gestures"), val_data_dir=Path("held_out")))
    ```

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
    choose_device(config.device)  # before anything is read or replaced
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    actions, spec = _look_at_actions(settings)
    condition = settings.model.condition
    train_set = open_examples(settings.data_dir, spec, condition, "train", config.longest_goal)
    held_out = open_examples(settings.val_data_dir, spec, condition, "validation")
    model = _new_model(settings, spec, train_set)
    folder = RunFolder(settings.save_dir)
    with folder.claim(resume=settings.resume, overwrite=settings.overwrite):
        everything = {**model.config.to_dict(), **config.to_dict(), **model.schedule.to_dict()}
        tracker = Tracker(
            folder, everything, config.wandb_project, config.wandb_mode, settings.resume
        )
        validation = Validation(held_out, actions, tracker, config, judge)
        trainer = Trainer(model, config, train_set, validation, folder, progress)
        try:
            if settings.resume:
                trainer.resume()
            return trainer.run()
        finally:
            tracker.close()


def _look_at_actions(settings: RunSettings) -> tuple[FloatArray, ActionSpec]:
    """Training actions `[n, L, A]` (all gestures, or the first transitions), and their spec."""
    minimal = settings.model.architecture == "minimal"
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
        normalized=not minimal,
    )
    if settings.model.condition == "latents":
        trajectories = open_trajectories(settings.data_dir, template, "train")
        count = min(NUM_LOOKED_AT, len(trajectories))
        actions: FloatArray = trajectories.gather(np.arange(count))[2]
    else:
        actions = read_flat_actions(settings.data_dir, template).actions
    representation = settings.representation
    if minimal and representation == "auto":
        representation = "raw"
    return actions, infer_action_spec(actions, representation, template)


def _new_model(settings: RunSettings, spec: ActionSpec, train_set: Examples) -> DiffusionModel:
    """The untrained model, with the latents' statistics."""
    config = settings.model
    if not config.patch_size:
        config = replace(config, patch_size=_patch_size(spec))
    torch.manual_seed(settings.training.seed)
    model = DiffusionModel(config, spec, settings.noise_schedule, train_set.input_shapes)
    if isinstance(model.condition_encoder, LatentEncoder):
        looked_at = train_set.batch(np.arange(min(NUM_LOOKED_AT, len(train_set))))
        model.condition_encoder.set_statistics(torch.from_numpy(looked_at.inputs["state"]))
    return model


def _patch_size(spec: ActionSpec) -> int:
    """A token for each knot of a path, or for each 10 steps or so of a sequence."""
    rows, _ = spec.diffused_shape
    wanted = spec.num_channels - 1 if spec.representation == "path" else 10
    return max(size for size in range(1, wanted + 1) if rows % size == 0)
