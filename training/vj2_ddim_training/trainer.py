"""Training the denoiser: its task, validation after every epoch, checkpoints, resuming.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

from __future__ import annotations

import math
import platform
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, diffusion_loss
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.loop import (
    Progress,
    StatelessTask,
    TrainingLoop,
    choose_device,
    warmup_cosine,
)
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.validation import SUCCESS, Validation

__all__ = ["DenoiserTask", "Trainer"]

RESUMED = ("step", "epoch", "losses", "optimizer", "learning_rate", "num_averaged")


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
        original, inputs = self._to_device(self.examples.batch(rows))
        return diffusion_loss(
            self.model,
            original,
            inputs,
            generator,
            self.config.condition_dropout,
            self.config.noises_per_example,
            self.config.auxiliary_weight,
        )

    def _to_device(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(self.model.parameters()).device

        def move(array: Any) -> Tensor:  # noqa: ANN401
            return torch.as_tensor(np.asarray(array, np.float32)).to(device)

        return move(batch.original), {name: move(array) for name, array in batch.inputs.items()}


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
        self.config, self.train_set, self.validation = config, train_set, validation
        self.folder = folder
        self.model = model.to(choose_device(config.device))
        task = DenoiserTask(model, config, train_set)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        share = warmup_cosine(task.total_steps, config.warmup_share, config.num_cycles)
        self.loop = TrainingLoop(
            task,
            optimizer,
            torch.optim.lr_scheduler.LambdaLR(optimizer, share),
            clip_norm=config.clip_norm,
            ema_decay=config.ema_decay,
            progress=progress,
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
        try:
            while not self.loop.done:
                self.loop.run(
                    (self.loop.epoch + 1) * self.loop.task.steps_per_epoch, self._validate
                )
                save_checkpoint(self.checkpoint(), self.folder.checkpoint)
        except KeyboardInterrupt:
            save_checkpoint(self.checkpoint(), self.folder.checkpoint)
            raise
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
        """Keep this epoch if it succeeds at least as often as the best so far."""
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
        missing = [name for name in RESUMED if name not in saved.training]
        if missing:
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
        here = {
            **self.model.config.to_dict(),
            **self.config.to_dict(),
            "data": self.train_set.data_fingerprint,
            "schedule": self.model.schedule.to_dict(),
            "action_spec": self.model.action_spec.to_dict(),
        }
        there = {
            **TrainingConfig().to_dict(),  # settings that there were not when it was saved
            **saved.model.config.to_dict(),
            **saved.training.get("config", {}),
            "data": saved.data_fingerprint,
            "schedule": saved.model.schedule.to_dict(),
            "action_spec": saved.model.action_spec.to_dict(),
        }
        free = {"device", "num_threads", "wandb_mode", "wandb_project"}
        different = {
            key: (there.get(key), value)
            for key, value in here.items()
            if key not in free and there.get(key) != value
        }
        if different:
            raise CheckpointError(
                f"{self.folder.checkpoint} cannot be resumed, these settings differ (there, here): "
                f"{different}. Use the same ones, or overwrite"
            )
