"""One training of a denoiser: its task, its loop, and what is kept of it.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.devices import Devices, choose_device
from vj2_ddim_training.diffusion_model import DiffusionLoss, DiffusionModel
from vj2_ddim_training.examples import Examples
from vj2_ddim_training.learning_rate import learning_rate_of
from vj2_ddim_training.loop import (
    Progress,
    ShuffledTask,
    TimeIsUp,
    TrainingLoop,
    name_rows,
)
from vj2_ddim_training.reading import ReadAhead, ShareReader, naming_lost_readers, num_readers
from vj2_ddim_training.resumable import Keeper, differences
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.saved import versions
from vj2_ddim_training.validation import SUCCESS, Validation
from vj2_ddim_training.watch import StepWatch

__all__ = ["DenoiserTask", "Trainer", "load_resumable", "training_config"]

logger = logging.getLogger(__name__)

RESUMED = ("config", "step", "epoch", "losses", "optimizer", "learning_rate", "num_averaged")
# These may differ when resuming: where and how fast, how long, what is kept.
FREE = {"device", "num_threads", "precision", "accumulate", "compile", "num_workers"}
FREE |= {
    "log_every",
    "run_name",
    "wandb_artifact",
    "patience",
    "max_time",
    "save_every",
    "save_minutes",
    "wandb_mode",
    "wandb_project",
}
LONGER = {"num_epochs", "num_cycles"}  # these too: a run goes on for longer than was planned


def training_config(saved: Checkpoint) -> dict[str, Any]:
    """The settings of a training; today's defaults for those that there were not when it began."""
    return {**TrainingConfig().to_dict(), **saved.training["config"]}


def load_resumable(folder: RunFolder) -> Checkpoint:
    """A run's checkpoint, which must be one that can go on."""
    saved = load_checkpoint(folder.checkpoint)
    if missing := [name for name in RESUMED if name not in saved.training]:
        raise CheckpointError(
            f"{folder.checkpoint} cannot be resumed, its training state lacks {missing}. Train "
            f"anew with overwrite"
        )
    return saved


class DenoiserTask(ShuffledTask):
    """The diffusion loss of batches of the examples; of several processes, this one's share."""

    def __init__(
        self,
        model: DiffusionModel,
        config: TrainingConfig,
        examples: Examples,
        devices: Devices | None = None,
    ) -> None:
        how = config.epoch_share, config.batch_size, config.num_epochs, config.seed
        super().__init__(len(examples), *how)
        self.model, self.examples = model, examples
        self.devices = devices or Devices(next(model.parameters()).device)
        self.module: nn.Module = DiffusionLoss(model, config)
        self.on_begin: Callable[[int], None] = lambda step: None
        order = ShuffledTask(len(examples), *how)  # which readers take along, without the model
        which = self.devices.index, self.devices.count
        read = ShareReader(order, examples, model.schedule, config, *which)
        pin = self.devices.device.type == "cuda"
        self.shares = ReadAhead(read, self.total_steps, num_readers(config, examples), pin)

    def losses(self, step: int) -> Iterator[Tensor]:
        """The loss of one step, in parts."""
        self.on_begin(step)
        shares = self.shares(step)
        for share in shares:
            here = share.to(self.devices.device)
            torch.manual_seed(share.seed)
            with self.devices.joining(last=share is shares[-1]):
                loss = self.module(here.original, here.inputs, here.draws)
                yield loss if share.weight == 1.0 else share.weight * loss

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
        validation: Validation | None,
        folder: RunFolder,
        progress: Progress | None = None,
        devices: Devices | None = None,
        ends_at: float = math.inf,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.train_set, self.origin = config, train_set, dict(origin or {})
        self.validation, self.folder = validation, folder
        self.devices = devices or Devices(choose_device(config.device))
        self.model = model.to(self.devices.device)
        task = DenoiserTask(model, config, train_set, self.devices)
        of_step = task.module
        adam = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
        task.module = self.devices.prepare(task.module, adam)
        if config.compile:
            task.module = torch.compile(task.module)  # type: ignore[assignment]
        self._share = learning_rate_of(config, task.total_steps, task.steps_per_epoch)
        rate = torch.optim.lr_scheduler.LambdaLR(adam, self._share)
        self.loop = TrainingLoop(
            task,
            adam,
            rate,
            clip_norm=config.clip_norm,
            ema_decay=config.ema_decay if validation else None,
            progress=progress if validation else None,
            devices=self.devices,
        )
        self.loop.ends_at, self._close_readers = ends_at, task.shares.close
        seconds = 60.0 * config.save_minutes if validation else math.inf
        self.keeper = Keeper(self.loop, self._save, folder.checkpoint, seconds)
        if validation:
            watch = StepWatch(self.loop, validation.tracker, config, model.schedule.prediction_type)
            task.on_begin, self.loop.on_step = watch.begin, watch
            if not config.compile:  # which looking inside would undo
                watch.look_into(of_step)
        self.metrics: dict[str, Any] = {}
        self.best, self.stale = -math.inf, 0  # the best validation, and how many came since
        self._judged, self.ended = False, ""  # `ended`: why, where it was before the last epoch
        self._data = self.devices.from_first(self._fingerprints)

    def _fingerprints(self) -> tuple[str, str]:
        held_out = self.validation.held_out.data_fingerprint if self.validation else ""
        return self.train_set.data_fingerprint, held_out

    def _skipped(self) -> dict[str, dict[str, str]]:
        held_out = self.validation.held_out.skipped if self.validation else {}
        return {"train": dict(self.train_set.skipped), "validation": dict(held_out)}

    @property
    def averaged(self) -> DiffusionModel:
        """The model of averaged weights, which is what is used."""
        averaged: DiffusionModel = self.loop.model  # type: ignore[assignment]
        return averaged

    def start(self, resume: bool) -> None:
        """Train, from the folder's checkpoint on where told."""
        if resume:
            self.resume()
        if self.validation and (page := self.validation.tracker.report):
            page.first_step = self.loop.step
            page.steps = lambda: (self.loop.step, self.loop.task.total_steps)
        self.run()

    def run(self) -> Checkpoint:
        """Train to the end; on Ctrl-C, leave a checkpoint of the last whole step and re-raise."""
        patience, total = self.config.patience or math.inf, self.loop.task.total_steps
        file = self.folder.checkpoint
        try:
            with naming_lost_readers():
                self.keeper.run(self._validate, lambda: self.stale >= patience)
        except TimeIsUp:
            self.ended = (
                f"the time of {self.config.max_time} is over after step {self.loop.step} of "
                f"{total}: resumed, {file} goes on from there"
            )
        finally:
            self._close_readers()
        if not self.ended and not self.loop.done:
            self.ended = (
                f"stopped early, after epoch {self.loop.epoch}: {self.stale} validations brought "
                f"nothing better than {self.folder.best}"
            )
        return self.checkpoint()

    def _save(self) -> None:
        if not self.validation:
            return
        save_checkpoint(self.checkpoint(), self.folder.checkpoint)
        epoch, every = self.loop.epoch, self.config.save_every
        if epoch == 0:  # nothing of this run's own is logged yet
            self.folder.begin()
        if (
            every
            and epoch % every == 0
            and self.loop.step == epoch * self.loop.task.steps_per_epoch
        ):
            save_checkpoint(self.checkpoint(), self.folder.of_epoch(epoch))

    def _validate(self, loop: TrainingLoop) -> None:
        self.metrics, self.stale = self.devices.from_first(lambda: self._measured(loop))

    def _measured(self, loop: TrainingLoop) -> tuple[dict[str, Any], int]:
        """What all processes know of a validation."""
        if not self.validation:
            return {}, 0
        if loop.epoch == 0:
            self.keeper.save()  # from here on it can be resumed, and one before it is replaced
        epoch, last = loop.epoch + 1, loop.step >= loop.task.total_steps
        numbers = {"loss": float(np.mean(loop.losses)), "lr": loop.learning_rate.get_last_lr()[0]}
        if last or epoch % self.config.evaluate_every == 0:
            self.metrics = self.validation.measure(self.averaged, epoch, loop.step, last)
            numbers |= self.metrics
            self._keep_best()
        self.validation.tracker.log(epoch, loop.step, numbers)
        return self.metrics, self.stale

    def _keep_best(self) -> None:
        """The highest success is the best; where no one ever judged, the lowest loss."""
        found = self.metrics.get(SUCCESS)
        if found is None and "validation_loss" in self.metrics and not self._judged:
            found = -self.metrics["validation_loss"]
        if found is None:
            return
        better, self.stale = found > self.best, self.stale + 1
        if better:
            self.stale = 0
        if found >= self.best:
            self.best = found
            save_checkpoint(self.checkpoint(), self.folder.best)

    def checkpoint(self) -> Checkpoint:
        """The run as it stands."""
        state = self.loop.state_dict()
        weights = state.pop("model")
        state.pop("average", None)  # the checkpoint's own model
        data, held_out = self._data
        provenance: dict[str, Any] = {**versions(), "made_by": "vj2-ddim train", **self.origin}
        if self.train_set.layer_normed is not None:
            provenance["layer_normed"] = self.train_set.layer_normed
        return Checkpoint(
            self.averaged,
            weights,
            {
                "config": self.config.to_dict(),
                "validation_data": held_out,
                "skipped_files": self._skipped(),
                "stale": self.stale,
                **state,
            },
            data,
            self.metrics,
            provenance,
        )

    def resume(self) -> None:
        """Take up the folder's checkpoint."""
        saved = load_resumable(self.folder)
        before = training_config(saved)
        self._require_same_run(saved, before)
        self.loop.load_state_dict(
            {**saved.training, "model": saved.weights, "average": saved.model.state_dict()}
        )
        self.metrics, self.stale = saved.metrics, saved.training.get("stale", 0)
        if any(before[name] != getattr(self.config, name) for name in LONGER):
            self._extend(before["num_epochs"])
        if not self.validation:
            return
        self.folder.record()
        if self.loop.epoch == 0:
            self.folder.begin(resumed=True)
        self.folder.begun = True
        if self.folder.best.exists():
            self._take_up_best(self.validation.judge is not None)
        self.validation.tracker.forget_after(self.loop.epoch, self.loop.step)

    def _take_up_best(self, judged: bool) -> None:
        metrics = load_checkpoint(self.folder.best).metrics
        self._judged = SUCCESS in metrics
        if self._judged and not judged:
            logger.warning(
                "%s was chosen by a judge; tell it again to go on choosing", self.folder.best
            )
        if self._judged:
            self.best = metrics[SUCCESS]
        elif not judged:
            self.best = -metrics.get("validation_loss", math.inf)

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
        data = self._data
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
