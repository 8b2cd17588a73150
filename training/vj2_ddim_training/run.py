"""One whole training run of a denoiser: data, model, trainer and tracker, put together.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

import logging
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import S, declared
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import DataSettings, ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser
from vj2_ddim_training.diffusion_model import DiffusionModel, diffusion_loss
from vj2_ddim_training.examples import Examples, GestureExamples, action_parts, open_examples
from vj2_ddim_training.loop import (
    Progress,
    ShuffledTask,
    TrainingLoop,
    choose_device,
    differences,
    learning_rate_of,
    name_rows,
    run_and_save,
)
from vj2_ddim_training.processes import stop_signals
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.survey import ActionSurvey
from vj2_ddim_training.validation import SUCCESS, SuccessMeasure, Validation

__all__ = ["DenoiserTask", "Trainer", "settings_of_run", "train_run"]

logger = logging.getLogger(__name__)

NUM_COMPARED = 5000  # training transitions that generated actions are compared with
logger = logging.getLogger(__name__)
RESUMED = ("config", "step", "epoch", "losses", "optimizer", "learning_rate", "num_averaged")
FREE = {"device", "num_threads", "wandb_mode", "wandb_project"}  # may differ when resuming
LONGER = {"num_epochs", "num_cycles"}  # these too: a run goes on for longer than was planned
OF_A_START = ("save_dir", "resume", "overwrite")  # what is told of the data, and is not of a run


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
    Tracker.require_login(config)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    spec, line = _look_at_actions(settings)
    (report or logger.info)(line)
    condition = settings.model.condition
    data_dir, val_data_dir = settings.folders
    train_set = open_examples(data_dir, spec, condition, "train", config.longest_goal)
    held_out = open_examples(val_data_dir, spec, condition, "validation")
    if held_out.data_fingerprint == train_set.data_fingerprint:
        logger.warning("the validation data are the training data; measures will flatter the model")
    model = _new_model(settings, spec, train_set)
    folder = RunFolder(settings.save_dir)
    folder.known = {"data": _data_of(settings), "tracker": None}
    with stop_signals(), folder.claim(resume=settings.resume, overwrite=settings.overwrite):
        everything = {**model.config.to_dict(), **config.to_dict(), **model.schedule.to_dict()}
        tracker = Tracker(folder, everything, config, settings.resume)
        validation = Validation(held_out, _some_actions(train_set), tracker, config, judge)
        trainer = Trainer(model, config, train_set, validation, folder, progress)
        try:
            if settings.resume:
                trainer.resume()
            checkpoint = trainer.run()
        except BaseException:
            tracker.close(failed=True)
            raise
        tracker.close()
        return checkpoint


def settings_of_run(save_dir: Path | str, told: Mapping[str, Any] | None = None) -> RunSettings:
    """What the run in a folder was told, to go on with it; `told` are settings told anew.

    Raises:
        VJ2DDIMError: There is no run, or it does not say what it was told.
    """
    folder, told = RunFolder(save_dir), dict(told or {})
    folder.require_run()
    saved = _load_resumable(folder)
    data = dict(folder.read_identity().get("data", {}))
    data |= {name: Path(str(data[name])) for name in ("data_dir", "val_data_dir") if name in data}

    def all_of(kind: type[S], before: Mapping[str, Any]) -> S:
        new = {name: value for name, value in told.items() if name in declared(kind)}
        return kind.from_dict({**before, **new})

    here = {"save_dir": folder.folder, "resume": True}
    whole = all_of(DataSettings, {**DataSettings().to_dict(), **data, **here})
    return RunSettings(
        **{name: getattr(whole, name) for name in declared(DataSettings)},
        model=all_of(ModelConfig, saved.model.config.to_dict()),
        training=all_of(TrainingConfig, _training_config(saved)),
        schedule=all_of(NoiseSchedule, saved.model.schedule.to_dict()),
    )


def _training_config(saved: Checkpoint) -> dict[str, Any]:
    """The settings of a training; today's defaults for those that there were not when it began."""
    return {**TrainingConfig().to_dict(), **saved.training["config"]}


def _load_resumable(folder: RunFolder) -> Checkpoint:
    saved = load_checkpoint(folder.checkpoint)
    if missing := [name for name in RESUMED if name not in saved.training]:
        raise CheckpointError(
            f"{folder.checkpoint} cannot be resumed, its training state lacks {missing}. Train "
            f"anew with overwrite"
        )
    return saved


def _data_of(settings: RunSettings) -> dict[str, Any]:
    """What `run.json` keeps: the places of the data, and what was told of them."""
    told = {name: getattr(settings, name) for name in declared(DataSettings)}
    paths = zip(("data_dir", "val_data_dir"), settings.folders, strict=True)
    told |= {name: str(path.resolve()) for name, path in paths}
    return {name: value for name, value in told.items() if name not in OF_A_START}


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
    for folder, split in zip(settings.folders, ("train", "validation"), strict=True):
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
    if isinstance(model.denoiser, MinimalDenoiser):
        model.denoiser.set_dropout(settings.training.dropout)
    if isinstance(model.condition_encoder, LatentEncoder):
        model.condition_encoder.set_statistics(train_set.latents())
    return model


class DenoiserTask(ShuffledTask):
    """The diffusion loss of batches of the examples."""

    def __init__(self, model: DiffusionModel, config: TrainingConfig, examples: Examples) -> None:
        how = config.epoch_share, config.batch_size, config.num_epochs, config.seed
        super().__init__(len(examples), *how)
        self.model, self.config, self.examples = model, config, examples

    def loss(self, step: int) -> Tensor:
        """The loss of one step."""
        noise, dropout = np.random.SeedSequence((self.config.seed, step)).generate_state(2)
        torch.manual_seed(int(dropout))
        generator = torch.Generator().manual_seed(int(noise))
        batch, device = self.examples.batch(self.rows(step)), next(self.model.parameters()).device
        move = partial(torch.as_tensor, dtype=torch.float32, device=device)
        original = move(batch.original)
        inputs = {name: move(array) for name, array in batch.inputs.items()}
        return diffusion_loss(self.model, original, inputs, generator, self.config)

    def batch_name(self, step: int) -> str:
        """The examples of a step."""
        return name_rows(self.examples.names(self.rows(step)))


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
        self._share = learning_rate_of(config, task)
        rate = torch.optim.lr_scheduler.LambdaLR(adam, self._share)
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

        run_and_save(self.loop, self._save, self.folder.checkpoint, self._validate)
        return self.checkpoint()

    def _save(self) -> None:
        save_checkpoint(self.checkpoint(), self.folder.checkpoint)
        if self.loop.epoch == 0:  # nothing of this run's own is logged yet
            self.folder.begin()

    def _validate(self, loop: TrainingLoop) -> None:
        if loop.epoch == 0:
            self._save()  # from here on the run can be resumed, and one before it is replaced
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
        held_out = self.validation.held_out.data_fingerprint
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
            {"config": self.config.to_dict(), "validation_data": held_out, **state},
            self.train_set.data_fingerprint,
            self.metrics,
            provenance,
        )

    def resume(self) -> None:
        """Take up the folder's checkpoint."""
        saved = _load_resumable(self.folder)
        before = _training_config(saved)
        self._require_same_run(saved, before)
        self.loop.load_state_dict(
            {**saved.training, "model": saved.weights, "average": saved.model.state_dict()}
        )
        self.metrics = saved.metrics
        self.folder.record()
        if self.loop.epoch == 0:
            self.folder.begin()
        if self.folder.best.exists():
            self.best_success = load_checkpoint(self.folder.best).metrics.get(SUCCESS, -math.inf)
        if any(before[name] != getattr(self.config, name) for name in LONGER):
            self._extend(before["num_epochs"])
        self.validation.tracker.forget_after(self.loop.epoch)

    def _extend(self, before: int) -> None:
        """Go on along the course of a longer run: its learning rate from this step on."""
        if self.config.num_epochs < self.loop.epoch:
            raise ConfigError(
                f"num_epochs must be at least {self.loop.epoch}, which are done in "
                f"{self.folder.folder}; found {self.config.num_epochs}"
            )
        words = "%s goes on to %d epochs instead of %d: the learning rate follows that course"
        logger.warning(words, self.folder.folder, self.config.num_epochs, before)
        for group in self.loop.optimizer.param_groups:
            group["lr"] = self.config.lr * self._share(self.loop.step)

    def _require_same_run(self, saved: Checkpoint, training: dict[str, Any]) -> None:
        data = self.train_set.data_fingerprint, self.validation.held_out.data_fingerprint
        here = _settings_of(self.model, self.config.to_dict(), *data)
        held_out = saved.training.get("validation_data", data[1])  # none in older files
        there = _settings_of(saved.model, training, saved.data_fingerprint, held_out)
        same = [key for key in here if key not in FREE | LONGER]
        different = differences(*({key: run.get(key) for key in same} for run in (there, here)))
        if different:
            raise CheckpointError(
                f"{self.folder.checkpoint} cannot be resumed, these settings differ (there, here): "
                f"{different}. Use the same ones, or overwrite"
            )


def _settings_of(
    model: DiffusionModel, training: dict[str, Any], data: str, held_out: str
) -> dict[str, Any]:
    """All that must be the same for a run to go on."""
    schedule, spec = model.schedule.to_dict(), model.action_spec.to_dict()
    what = {"data": data, "validation_data": held_out, "schedule": schedule, "action_spec": spec}
    return {**model.config.to_dict(), **training, **what}
