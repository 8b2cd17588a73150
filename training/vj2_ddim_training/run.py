"""One whole training run of a denoiser: data, model, trainer and tracker, put together.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

import math
import platform
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import RunSettings, TrainingConfig
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.diffusion_model import DiffusionModel, diffusion_loss
from vj2_ddim_training.examples import Examples, IndexArray, infer_action_spec, open_examples
from vj2_ddim_training.loop import (
    Progress,
    StatelessTask,
    TrainingLoop,
    choose_device,
    differences,
    name_rows,
    run_and_save,
    warmup_cosine,
)
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.validation import SUCCESS, SuccessMeasure, Validation

__all__ = ["DenoiserTask", "Trainer", "train_run"]

NUM_LOOKED_AT = 5000  # examples that decide the representation and the latents' statistics
RESUMED = ("step", "epoch", "losses", "optimizer", "learning_rate", "num_averaged")
FREE = {"device", "num_threads", "wandb_mode", "wandb_project"}  # may differ when resuming


def train_run(
    settings: RunSettings, progress: Progress | None = None, judge: SuccessMeasure | None = None
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
        tracker = Tracker(folder, everything, config, settings.resume)
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
    if not config.patch_size:  # a token for each knot of a path, or for each 10 steps or so
        wanted = spec.num_channels - 1 if spec.representation == "path" else 10
        size = max(n for n in range(1, wanted + 1) if spec.diffused_shape[0] % n == 0)
        config = replace(config, patch_size=size)
    torch.manual_seed(settings.training.seed)
    model = DiffusionModel(config, spec, settings.noise_schedule, train_set.input_shapes)
    if isinstance(model.condition_encoder, LatentEncoder):
        looked_at = train_set.batch(np.arange(min(NUM_LOOKED_AT, len(train_set))))
        model.condition_encoder.set_statistics(torch.from_numpy(looked_at.inputs["state"]))
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
        noise, dropout = np.random.SeedSequence((self.config.seed, step)).generate_state(2)
        torch.manual_seed(int(dropout))
        generator = torch.Generator().manual_seed(int(noise))
        batch, device = self.examples.batch(self._rows(step)), next(self.model.parameters()).device
        move = partial(torch.as_tensor, dtype=torch.float32, device=device)
        original = move(batch.original)
        inputs = {name: move(array) for name, array in batch.inputs.items()}
        return diffusion_loss(self.model, original, inputs, generator, self.config)

    def batch_name(self, step: int) -> str:
        """The examples of a step."""
        return name_rows(self.examples.names(self._rows(step)))

    def _rows(self, step: int) -> IndexArray:
        """The examples of a step; the order of the latest epoch is kept."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.config.seed, epoch))
            self._order = epoch, rng.permutation(len(self.examples))[: self.epoch_length]
        return self._order[1][index * self.config.batch_size :][: self.config.batch_size]


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

        run_and_save(self.loop, save, self.folder.checkpoint, self._validate)
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
