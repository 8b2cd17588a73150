"""The training loop.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.devices import choose_device
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.interrupts import hold_interrupts
from vj2_ddim_training.loss import diffusion_loss
from vj2_ddim_training.optimization import moving_average, warmup_cosine
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.validation import SUCCESS, Validation

__all__ = ["Progress", "Trainer"]

Progress = Callable[[int, int, str], None]  # steps done, steps in all, a line about the last step
RESUMED = ("step", "epoch", "losses", "optimizer", "learning_rate", "num_averaged")


@dataclass
class Trainer:
    """One training run.

    Attributes:
        model: What is trained; freshly built (its weights are drawn from `config.seed` there).
        config: How.
        train_set: Training examples.
        validation: Measures the averaged weights.
        folder: Where the checkpoint goes.
        progress: Called after every step.
    """

    model: DiffusionModel
    config: TrainingConfig
    train_set: Examples
    validation: Validation
    folder: RunFolder
    progress: Progress = lambda done, total, line: None

    def __post_init__(self) -> None:
        """Set up the optimizer, the schedule of the learning rate, and the average."""
        config = self.config
        self.device = choose_device(config.device)
        self.model.to(self.device)
        self.step = self.epoch = 0  # whole ones done; an epoch is done when it was validated
        self.losses: list[float] = []  # of the current epoch
        self.epoch_length = math.ceil(config.epoch_share * len(self.train_set))
        self.steps_per_epoch = math.ceil(self.epoch_length / config.batch_size)
        self.total_steps = config.num_epochs * self.steps_per_epoch
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        schedule = warmup_cosine(self.total_steps, config.warmup_share, config.num_cycles)
        self.learning_rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule)
        self.average = AveragedModel(
            self.model, avg_fn=moving_average(config.ema_decay), use_buffers=True
        )
        self.metrics: dict[str, Any] = {}
        self.best_success = -math.inf

    def run(self) -> Checkpoint:
        """Train to the end; on Ctrl-C, leave a checkpoint of the last whole step and re-raise.

        Returns:
            The checkpoint, which also lies in the folder.
        """
        try:
            while self.epoch < self.config.num_epochs:
                self._train_epoch()
                self._validate()
                save_checkpoint(self.checkpoint(), self.folder.checkpoint)
        except KeyboardInterrupt:
            save_checkpoint(self.checkpoint(), self.folder.checkpoint)
            raise
        return self.checkpoint()

    def _train_epoch(self) -> None:
        """The rest of the current epoch."""
        order = np.random.default_rng((self.config.seed, self.epoch)).permutation(
            len(self.train_set)
        )[: self.epoch_length]
        self.model.train()
        first = self.epoch * self.steps_per_epoch
        while self.step < first + self.steps_per_epoch:
            begin = (self.step - first) * self.config.batch_size
            self._step(order[begin : begin + self.config.batch_size])
            self.progress(self.step, self.total_steps, f"loss {self.losses[-1]:.4f}")

    def _step(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        noise, dropout = np.random.SeedSequence((self.config.seed, self.step)).generate_state(2)
        torch.manual_seed(int(dropout))
        generator = torch.Generator().manual_seed(int(noise))
        original, inputs = self._to_device(self.train_set.batch(indices))
        loss = diffusion_loss(
            self.model,
            original,
            inputs,
            generator,
            self.config.condition_dropout,
            self.config.noises_per_example,
            self.config.auxiliary_weight,
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        with hold_interrupts():
            self.optimizer.step()
            self.learning_rate.step()
            self.average.update_parameters(self.model)
            self.losses.append(float(loss.detach()))
            self.step += 1

    def _to_device(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        def move(array: Any) -> Tensor:  # noqa: ANN401
            return torch.as_tensor(np.asarray(array, np.float32)).to(self.device)

        return move(batch.original), {name: move(array) for name, array in batch.inputs.items()}

    def _validate(self) -> None:
        epoch, last = self.epoch + 1, self.step >= self.total_steps
        numbers = {"loss": float(np.mean(self.losses)), "lr": self.learning_rate.get_last_lr()[0]}
        if last or epoch % self.config.evaluate_every == 0:
            averaged: DiffusionModel = self.average.module  # type: ignore[assignment]
            self.metrics = self.validation.measure(averaged, epoch, self.step, last)
            numbers |= self.metrics
            self._keep_best()
        self.validation.tracker.log(epoch, self.step, numbers)
        self.epoch, self.losses = epoch, []

    def _keep_best(self) -> None:
        """Keep this epoch if it succeeds at least as often as the best so far."""
        success = self.metrics.get(SUCCESS)
        if success is not None and success >= self.best_success:
            self.best_success = success
            save_checkpoint(self.checkpoint(), self.folder.best)

    def checkpoint(self) -> Checkpoint:
        """The run as it stands."""
        state = {
            "config": self.config.to_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "losses": self.losses,
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "num_averaged": int(self.average.n_averaged),
        }
        averaged: DiffusionModel = self.average.module  # type: ignore[assignment]
        provenance = {
            "vj2_ddim_plugin": vj2_ddim_plugin.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "made_by": "vj2-ddim train",
        }
        return Checkpoint(
            averaged,
            self.model.state_dict(),
            state,
            self.train_set.data_fingerprint,
            self.metrics,
            provenance,
        )

    def resume(self) -> None:
        """Take up the folder's checkpoint.

        Raises:
            CheckpointError: It was made with other settings or other data, or cannot be resumed.
        """
        saved = load_checkpoint(self.folder.checkpoint)
        missing = [name for name in RESUMED if name not in saved.training]
        if missing:
            raise CheckpointError(
                f"{self.folder.checkpoint} cannot be resumed, its training state lacks {missing}. "
                f"Train anew with --overwrite"
            )
        self._require_same_run(saved)
        self.model.load_state_dict(saved.weights)
        self.average.module.load_state_dict(saved.model.state_dict())
        state = saved.training
        self.average.n_averaged.fill_(state["num_averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.step, self.epoch, self.metrics = state["step"], state["epoch"], saved.metrics
        self.losses = list(state["losses"])
        if self.folder.best.exists():
            self.best_success = load_checkpoint(self.folder.best).metrics[SUCCESS]
        self.validation.tracker.forget_after(self.epoch)

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
                f"{different}. Use the same ones, or --overwrite"
            )
