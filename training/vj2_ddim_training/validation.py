"""What happens after an epoch: the validation loss, the measures, now and then pictures.

The pictures touch nothing global: no pyplot, no backend.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vj2_ddim_plugin.cli.pictures import draw_channels, num_samples
from vj2_ddim_plugin.ddim import add_noise, to_x0_and_epsilon
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import decode, project
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import EvaluationSettings, TrainingConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, diffusion_loss
from vj2_ddim_training.evaluation import SHOWN_SHARE, denoiser_of, evaluate, recreate_from
from vj2_ddim_training.examples import Batch, Examples, spread_rows
from vj2_ddim_training.loop import TrainingLoop
from vj2_ddim_training.measures import sequence_measures
from vj2_ddim_training.run_folder import Tracker

__all__ = ["SUCCESS", "BestEpoch", "SuccessMeasure", "Validation", "plot_noise", "plot_sequences"]

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
        rows = spread_rows(len(self.held_out), num)
        numbers: dict[str, Any] = {"validation_loss": self._loss(model, self.held_out.batch(rows))}
        settings = EvaluationSettings(num_sequences=num, num_generated=num, seed=seed)
        steps = [NUM_INFERENCE_STEPS]
        numbers |= evaluate(model, self.held_out, steps, settings, training=self.training)
        numbers |= tried_out(self.judge, model)
        if last or epoch % self.config.picture_every == 0:
            self._pictures(model, epoch, step)
        return numbers

    @torch.inference_mode()
    def _loss(self, model: DiffusionModel, batch: Batch) -> float:
        device = next(model.parameters()).device
        inputs = {name: torch.as_tensor(of, device=device) for name, of in batch.inputs.items()}
        original = torch.as_tensor(batch.original, device=device)
        generator = torch.Generator().manual_seed(self.config.seed)
        return float(diffusion_loss(model, original, inputs, generator))

    def _pictures(self, model: DiffusionModel, epoch: int, step: int) -> None:
        """Original / noisy / recreated sequences, and true / predicted noise."""
        count = min(NUM_SHOWN, len(self.held_out))
        batch = self.held_out.batch(np.arange(count))
        schedule, spec, seed = model.schedule, model.action_spec, self.config.seed
        timestep = int(SHOWN_SHARE * schedule.num_train_timesteps)
        noise = np.random.default_rng(seed).standard_normal(batch.original.shape, np.float32)
        noisy = add_noise(batch.original, noise, timestep, schedule)
        diffused = recreate_from(model, batch, SHOWN_SHARE, NUM_INFERENCE_STEPS, seed)
        recreated = project(decode(diffused, spec), spec)
        output = denoiser_of(model, batch)(noisy, timestep)
        _, predicted = to_x0_and_epsilon(output, noisy, timestep, schedule)
        sequences = plot_sequences(batch.actions, noisy, recreated, spec, count)
        self.tracker.picture("sequences", epoch, step, sequences)
        self.tracker.picture("noise", epoch, step, plot_noise(noise, predicted, count))
        if self.tracker.mirrored:
            columns = {"original": batch.actions, "noisy": noisy, "recreated": recreated}
            errors = sequence_measures(batch.actions, recreated, spec)
            self.tracker.table("val/reconstructions", step, [
                {"epoch": epoch, "sample": row}
                | {name: _one_sequence(actions[row], spec) for name, actions in columns.items()}
                | {name: float(errors[name][row]) for name in ("mse", "mae")}
                for row in range(count)
            ])  # fmt: skip


def tried_out(judge: SuccessMeasure | None, *models: Any) -> dict[str, float]:  # noqa: ANN401
    """What a judge says of a model, or of a model and a ranker: `success` chooses the epoch."""
    if judge is None:
        return {}
    found = judge(*models)
    success = found.get(SUCCESS) if isinstance(found, Mapping) else None
    if success is None or not math.isfinite(success):
        raise ConfigError(
            f"a judge must return a mapping with {SUCCESS!r}, a finite number; found {found!r:.200}"
        )
    return dict(found)


class BestEpoch:
    """Keeps the weights of the most successful epoch, the later one of equals.

    Success is the measure `success`, or, without it, `best_in_1` of a ranker.
    """

    def __init__(self, measure: Callable[[Any], Mapping[str, float]]) -> None:
        self.measure, self.success = measure, -math.inf
        self.weights: dict[str, Tensor] = {}

    def __call__(self, loop: TrainingLoop) -> None:
        """Look at the model after an epoch."""
        model = loop.model.eval()
        measured = self.measure(model)
        success = measured[SUCCESS] if SUCCESS in measured else measured["best_in_1"]
        if success >= self.success:
            self.success = success
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For a training that goes on."""
        return {"success": self.success, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.success, self.weights = state["success"], dict(state["weights"])


def plot_sequences(
    original: FloatArray, noisy: FloatArray, recreated: FloatArray, spec: ActionSpec, most: int = 2
) -> Figure:
    """Original, noisy and recreated sequences side by side, one sample a row."""
    num = num_samples(most, original, noisy, recreated)
    figure = Figure(figsize=(13, 2.8 * num), layout="constrained")
    columns = {"original": original, "noisy": noisy, "recreated": recreated}
    for row, axes in enumerate(figure.subplots(num, 3, squeeze=False)):
        for axis, (title, actions) in zip(axes, columns.items(), strict=True):
            axis.set_title(f"{title}, sample {row}")
            _draw_sequence(axis, actions[row], spec)
    return figure


def _one_sequence(sequence: FloatArray, spec: ActionSpec) -> Figure:
    figure = Figure(figsize=(3.2, 2), layout="constrained")
    _draw_sequence(figure.subplots(), sequence, spec)
    return figure


def _draw_sequence(axis: Axes, sequence: FloatArray, spec: ActionSpec) -> None:
    if sequence.shape == (spec.length, spec.num_channels):
        draw_channels(axis, sequence, spec)
    else:  # a diffused array, in its own units
        axis.plot(sequence, "o-", markersize=3, linewidth=0.8)
        axis.set_xlabel("row of the diffused array")


def plot_noise(true: FloatArray, predicted: FloatArray, most: int = 2) -> Figure:
    """Heat maps of true noise, predicted noise and their difference, one sample a row."""
    num = num_samples(most, true, predicted)
    figure = Figure(figsize=(13, 2.2 * num), layout="constrained")
    axes = figure.subplots(num, 3, squeeze=False)
    columns = {"true noise": true, "predicted noise": predicted, "difference": predicted - true}
    look: Any = {"aspect": "auto", "cmap": "RdBu", "vmin": -3, "vmax": 3}
    for row in range(num):
        for axis, (title, noise) in zip(axes[row], columns.items(), strict=True):
            image = axis.imshow(noise[row].T, interpolation="nearest", **look)
            axis.set(title=f"{title}, sample {row}", xlabel="row", ylabel="channel")
            axis.set_yticks(range(noise.shape[2]))
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
