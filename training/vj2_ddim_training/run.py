"""One whole training run of a denoiser: data, model, trainer and tracker, put together.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

import logging
import math
import platform
from collections.abc import Callable
from dataclasses import MISSING, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import REPRESENTATIONS, ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, diffusion_loss
from vj2_ddim_training.examples import Examples, GestureExamples, action_parts, open_examples
from vj2_ddim_training.loop import (
    Progress,
    StatelessTask,
    TrainingLoop,
    choose_device,
    differences,
    run_and_save,
    warmup_cosine,
)
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.survey import ActionSurvey
from vj2_ddim_training.validation import SUCCESS, SuccessMeasure, Validation

__all__ = ["DataSettings", "DenoiserTask", "RunSettings", "Trainer", "train_run"]

NUM_COMPARED = 5000  # training transitions that generated actions are compared with
logger = logging.getLogger(__name__)
RESUMED = ("step", "epoch", "losses", "optimizer", "learning_rate", "num_averaged")
FREE = {"device", "num_threads", "wandb_mode", "wandb_project"}  # may differ when resuming


@dataclass(frozen=True)
class DataSettings(Settings):
    """What a run learns from, and the folder it goes to."""

    data_dir: Path = setting(MISSING, "A folder of *_actions.npy files; trajectories for latents.")
    val_data_dir: Path = setting(MISSING, "Validation data; trajectories: the same folder will do.")
    save_dir: Path = setting(Path("checkpoints"), "The run's folder.")
    representation: str = setting(
        "auto",
        "Auto is the best that inverts, raw for minimal.",
        choices=("auto", *REPRESENTATIONS),
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
    settings: RunSettings,
    progress: Progress | None = None,
    judge: SuccessMeasure | None = None,
    report: Callable[[str], None] | None = None,
) -> Checkpoint:
    """Train, validate, track and save.

    Args:
        settings: The run.
        progress: Called after every step.
        judge: Measures success whenever the model is validated; the epoch with the highest is kept
            as `best.pt`. The loss does not show success.
        report: Called with a line that says what the actions are and which representation was
            chosen, and why; without it, the line is logged.

    Returns:
        The final checkpoint, which lies in `save_dir`.

    Raises:
        VJ2DDIMError: Bad data, settings that do not fit, or a folder already in use.
    """
    config = settings.training
    choose_device(config.device)  # before anything is read or replaced
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    spec, line = _look_at_actions(settings)
    (report or logger.info)(line)
    condition = settings.model.condition
    train_set = open_examples(settings.data_dir, spec, condition, "train", config.longest_goal)
    held_out = open_examples(settings.val_data_dir, spec, condition, "validation")
    model = _new_model(settings, spec, train_set)
    folder = RunFolder(settings.save_dir)
    with folder.claim(resume=settings.resume, overwrite=settings.overwrite):
        everything = {**model.config.to_dict(), **config.to_dict(), **model.schedule.to_dict()}
        tracker = Tracker(folder, everything, config, settings.resume)
        validation = Validation(held_out, _some_actions(train_set), tracker, config, judge)
        trainer = Trainer(model, config, train_set, validation, folder, progress)
        try:
            if settings.resume:
                trainer.resume()
            return trainer.run()
        finally:
            tracker.close()


def _look_at_actions(settings: RunSettings) -> tuple[ActionSpec, str]:
    """What all actions are, those of training and of validation; and how that was decided."""
    minimal = settings.model.architecture == "minimal"
    template = ActionSpec(
        action_block=settings.block,
        horizon=settings.horizon,
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
    survey = ActionSurvey(template)
    condition = settings.model.condition
    for folder, split in ((settings.data_dir, "train"), (settings.val_data_dir, "validation")):
        for where, actions in action_parts(folder, template, condition, split):
            survey.look(actions, where, limits=split == "train")
    representation = settings.representation
    if minimal and representation == "auto":
        representation = "raw"
    spec = survey.spec(representation)
    return spec, survey.summary(spec)


def _some_actions(train_set: Examples) -> FloatArray:
    """Training actions `[n, L, A]`, of all the data, that generated ones are compared with."""
    if isinstance(train_set, GestureExamples):
        return train_set.actions
    count = min(NUM_COMPARED, len(train_set))
    chosen = np.random.default_rng(0).choice(len(train_set), count, replace=False)
    return train_set.batch(np.sort(chosen)).actions


def _new_model(settings: RunSettings, spec: ActionSpec, train_set: Examples) -> DiffusionModel:
    """The untrained model, with the latents' statistics."""
    config = settings.model
    if not config.patch_size:  # a token for each knot of a path, or for each 10 steps or so
        wanted = spec.num_channels - 1 if spec.representation == "path" else 10
        size = max(n for n in range(1, wanted + 1) if spec.diffused_shape[0] % n == 0)
        config = replace(config, patch_size=size)
    torch.manual_seed(settings.training.seed)
    guidance = settings.training.condition_dropout > 0.0
    model = DiffusionModel(config, spec, settings.noise_schedule, train_set.input_shapes, guidance)
    if isinstance(model.condition_encoder, LatentEncoder):
        model.condition_encoder.set_statistics(train_set.latents())
    return model


class DenoiserTask(StatelessTask):
    """The diffusion loss of batches of the examples."""

    def __init__(self, model: DiffusionModel, config: TrainingConfig, examples: Examples) -> None:
        self.model, self.config, self.examples = model, config, examples
        self.epoch_length = math.ceil(config.epoch_share * len(examples))
        self.steps_per_epoch = math.ceil(self.epoch_length / config.batch_size)
        self.total_steps = config.num_epochs * self.steps_per_epoch
        self._order = (-1, np.empty(0, np.int64))  # an epoch, and its order

    def loss(self, step: int) -> Tensor:
        """The loss of one step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.config.seed, epoch))
            self._order = epoch, rng.permutation(len(self.examples))[: self.epoch_length]
        rows = self._order[1][index * self.config.batch_size :][: self.config.batch_size]
        noise, dropout = np.random.SeedSequence((self.config.seed, step)).generate_state(2)
        torch.manual_seed(int(dropout))
        generator = torch.Generator().manual_seed(int(noise))
        batch, device = self.examples.batch(rows), next(self.model.parameters()).device
        move = partial(torch.as_tensor, dtype=torch.float32, device=device)
        original = move(batch.original)
        inputs = {name: move(array) for name, array in batch.inputs.items()}
        return diffusion_loss(self.model, original, inputs, generator, self.config)


class Trainer:
    """One training run of a denoiser."""

    def __init__(
        self,
        model: DiffusionModel,
        config: TrainingConfig,
        train_set: Examples,
        validation: Validation,
        folder: RunFolder,
        progress: Progress | None = None,
    ) -> None:
        self.config, self.train_set = config, train_set
        self.validation, self.folder = validation, folder
        self.model = model.to(choose_device(config.device))
        task = DenoiserTask(model, config, train_set)
        adam = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
        share = warmup_cosine(task.total_steps, config.warmup_share, config.num_cycles)
        rate = torch.optim.lr_scheduler.LambdaLR(adam, share)
        clip, decay = config.clip_norm, config.ema_decay
        self.loop = TrainingLoop(
            task, adam, rate, clip_norm=clip, ema_decay=decay, progress=progress
        )
        self.metrics: dict[str, Any] = {}
        self.best_success = -math.inf

    @property
    def averaged(self) -> DiffusionModel:
        """The model of averaged weights, which is what is used."""
        averaged: DiffusionModel = self.loop.model  # type: ignore[assignment]
        return averaged

    def run(self) -> Checkpoint:
        """Train to the end; on Ctrl-C, leave a checkpoint of the last whole step and re-raise."""

        def save() -> None:
            save_checkpoint(self.checkpoint(), self.folder.checkpoint)

        run_and_save(self.loop, save, self._validate)
        return self.checkpoint()

    def _validate(self, loop: TrainingLoop) -> None:
        epoch, last = loop.epoch + 1, loop.step >= loop.task.total_steps
        numbers = {"loss": float(np.mean(loop.losses)), "lr": loop.learning_rate.get_last_lr()[0]}
        if last or epoch % self.config.evaluate_every == 0:
            self.metrics = self.validation.measure(self.averaged, epoch, loop.step, last)
            numbers |= self.metrics
            self._keep_best()
        self.validation.tracker.log(epoch, loop.step, numbers)

    def _keep_best(self) -> None:
        success = self.metrics.get(SUCCESS)
        if success is not None and success >= self.best_success:
            self.best_success = success
            save_checkpoint(self.checkpoint(), self.folder.best)

    def checkpoint(self) -> Checkpoint:
        """The run as it stands."""
        state = self.loop.state_dict()
        weights = state.pop("model")
        del state["average"]  # the checkpoint's own model
        provenance: dict[str, Any] = {
            "vj2_ddim_plugin": vj2_ddim_plugin.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "made_by": "vj2-ddim train",
        }
        if self.train_set.layer_normed is not None:
            provenance["layer_normed"] = self.train_set.layer_normed
        return Checkpoint(
            self.averaged,
            weights,
            {"config": self.config.to_dict(), **state},
            self.train_set.data_fingerprint,
            self.metrics,
            provenance,
        )

    def resume(self) -> None:
        """Take up the folder's checkpoint."""
        saved = load_checkpoint(self.folder.checkpoint)
        if missing := [name for name in RESUMED if name not in saved.training]:
            raise CheckpointError(
                f"{self.folder.checkpoint} cannot be resumed, its training state lacks {missing}. "
                f"Train anew with overwrite"
            )
        self._require_same_run(saved)
        self.loop.load_state_dict(
            {**saved.training, "model": saved.weights, "average": saved.model.state_dict()}
        )
        self.metrics = saved.metrics
        if self.folder.best.exists():
            self.best_success = load_checkpoint(self.folder.best).metrics[SUCCESS]
        self.validation.tracker.forget_after(self.loop.epoch)

    def _require_same_run(self, saved: Checkpoint) -> None:
        here = _settings_of(self.model, self.config.to_dict(), self.train_set.data_fingerprint)
        # today's defaults for settings that there were not when it was saved
        training = {**TrainingConfig().to_dict(), **saved.training.get("config", {})}
        there = _settings_of(saved.model, training, saved.data_fingerprint)
        different = differences(
            *({key: run.get(key) for key in here if key not in FREE} for run in (there, here))
        )
        if different:
            raise CheckpointError(
                f"{self.folder.checkpoint} cannot be resumed, these settings differ (there, here): "
                f"{different}. Use the same ones, or overwrite"
            )


def _settings_of(model: DiffusionModel, training: dict[str, Any], data: str) -> dict[str, Any]:
    """All that must be the same for a run to go on."""
    schedule, spec = model.schedule.to_dict(), model.action_spec.to_dict()
    what = {"data": data, "schedule": schedule, "action_spec": spec}
    return {**model.config.to_dict(), **training, **what}
