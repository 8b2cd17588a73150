"""What happens after an epoch: the validation loss, the measures, now and then pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vj2_ddim_plugin.ddim import add_noise, to_x0_and_epsilon
from vj2_ddim_plugin.gestures import decode, project
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler, diffusion_loss
from vj2_ddim_training.evaluation import SHOWN_SHARE, EvaluationSettings, evaluate, recreate_from
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.plots import plot_noise, plot_sequences
from vj2_ddim_training.run_folder import Tracker

__all__ = ["SUCCESS", "SuccessMeasure", "Validation"]

SUCCESS = "success"
SuccessMeasure = Callable[..., Mapping[str, float]]
"""Tries a model out where it will be used; returns named numbers, among them `success`.

Called with the `DiffusionModel`, and with its `RankerNetwork` as well where a ranker is trained.
"""

NUM_INFERENCE_STEPS = 10
NUM_SHOWN = 2


@dataclass
class Validation:
    """Measures the averaged weights on held-out data."""

    held_out: Examples
    training: FloatArray
    tracker: Tracker
    config: TrainingConfig
    judge: SuccessMeasure | None = None

    def measure(self, model: DiffusionModel, epoch: int, step: int, last: bool) -> dict[str, Any]:
        """The validation loss, and `{protocol: {N: {measure: value}}}` at N = 10."""
        model.eval()
        num, seed = self.config.num_validation, self.config.seed
        batch = self.held_out.batch(np.arange(min(num, len(self.held_out))))
        numbers: dict[str, Any] = {"validation_loss": self._loss(model, batch)}
        numbers |= evaluate(
            model,
            self.held_out,
            [NUM_INFERENCE_STEPS],
            EvaluationSettings(num_sequences=num, num_generated=num, seed=seed),
            training=self.training,
        )
        if self.judge is not None:
            numbers |= self.judge(model)
        if last or epoch % self.config.picture_every == 0:
            self._pictures(model, epoch, step)
        return numbers

    @torch.inference_mode()
    def _loss(self, model: DiffusionModel, batch: Batch) -> float:
        device = next(model.parameters()).device
        inputs = {
            name: torch.as_tensor(np.asarray(array), device=device)
            for name, array in batch.inputs.items()
        }
        original = torch.as_tensor(np.asarray(batch.original), device=device)
        generator = torch.Generator().manual_seed(self.config.seed)
        return float(diffusion_loss(model, original, inputs, generator))

    def _pictures(self, model: DiffusionModel, epoch: int, step: int) -> None:
        """Original / noisy / recreated sequences, and true / predicted noise."""
        count = min(NUM_SHOWN, len(self.held_out))
        batch = self.held_out.batch(np.arange(count))
        schedule, spec = model.schedule, model.action_spec
        timestep = int(SHOWN_SHARE * schedule.num_train_timesteps)
        noise = np.random.default_rng(self.config.seed).standard_normal(
            batch.original.shape, np.float32
        )
        noisy = add_noise(batch.original, noise, timestep, schedule)
        recreated = project(
            decode(
                recreate_from(model, batch, SHOWN_SHARE, NUM_INFERENCE_STEPS, self.config.seed),
                spec,
            ),
            spec,
        )
        sampler = TorchSampler(model)
        encoded = sampler.encode(batch.inputs)
        output = sampler.denoise(noisy, timestep, None if encoded is None else encoded.condition)
        _, predicted = to_x0_and_epsilon(output, noisy, timestep, schedule)
        sequences = plot_sequences(batch.actions, noisy, recreated, spec, count)
        self.tracker.picture("sequences", epoch, step, sequences)
        self.tracker.picture("noise", epoch, step, plot_noise(noise, predicted, count))
