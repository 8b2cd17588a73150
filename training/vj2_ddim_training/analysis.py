"""Where a model is good and where it is not: by timestep, by gesture type, by epoch, by its size.

Numbers first, then the pictures of them; nothing global is touched: no pyplot, no backend.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vj2_ddim_plugin.cli.pictures import as_label, save_figure
from vj2_ddim_plugin.ddim import add_noise, to_x0_and_epsilon
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.gestures import decode, project
from vj2_ddim_training.config import EvaluationSettings
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.evaluation import SHOWN_SHARE, Results, denoiser_of, recreate_from
from vj2_ddim_training.examples import Batch, Examples, spread_rows
from vj2_ddim_training.gestures import gesture_type
from vj2_ddim_training.measures import sequence_measures
from vj2_ddim_training.report import Course, course
from vj2_ddim_training.run_folder import finite, read_lines

__all__ = ["Analysis", "by_gesture_type", "by_timestep"]

Numbers = dict[str, dict[str, float]]
NUM_TIMESTEPS = 20
SHOWN = {"mean_snr_db": "SNR, dB", "mse": "mse", "temporal_iou": "temporal IoU"}


def by_timestep(model: DiffusionModel, batch: Batch, seed: int = 0) -> Numbers:
    """At timesteps of the whole schedule, how far one call of the denoiser is off.

    `noise_mse` of the noise, `mse` of x_0, both in the diffused array's own units and clipped
    nowhere; with `_std` their spread over the sequences.
    """
    schedule, denoise = model.schedule, denoiser_of(model, batch)
    noise = np.random.default_rng(seed).standard_normal(batch.original.shape, np.float32)
    last = schedule.num_train_timesteps - 1
    found: Numbers = {}
    for timestep in np.unique(np.linspace(0, last, NUM_TIMESTEPS).astype(int)).tolist():
        if schedule.alpha_cumprod(timestep) == 0.0:
            continue  # nothing of the data is left, see `NoiseSchedule`
        noisy = add_noise(batch.original, noise, timestep, schedule)
        x0, epsilon = to_x0_and_epsilon(denoise(noisy, timestep), noisy, timestep, schedule)
        errors = {"noise_mse": epsilon - noise, "mse": x0 - batch.original}
        found[str(timestep)] = {
            name + suffix: float(of(np.mean(error.astype(np.float64) ** 2, axis=(1, 2))))
            for name, error in errors.items()
            for suffix, of in (("", np.mean), ("_std", np.std))
        }
    return found


def by_gesture_type(
    model: DiffusionModel, batch: Batch, num_steps: int, seed: int = 0, clip: bool = True
) -> Numbers:
    """What is recreated from half of the noise, for each type of the sequences' first gesture.

    The measures of `sequence_measures`, with `_std` their spread, and `num_sequences`.
    """
    spec = model.action_spec
    if spec.press_channel is None or len(spec.coordinate_indices) != 2:
        return {}
    diffused = recreate_from(model, batch, SHOWN_SHARE, num_steps, seed, clip)
    each = sequence_measures(batch.actions, project(decode(diffused, spec), spec), spec)
    types = gesture_type(batch.actions, spec)[:: spec.horizon]
    found: Numbers = {}
    for name in sorted(set(types.tolist())):
        found[name] = {"num_sequences": int((types == name).sum())}
        for measure, values in each.items():
            known = values[(types == name) & ~np.isnan(values)]
            if len(known):
                found[name] |= {measure: float(known.mean()), f"{measure}_std": float(known.std())}
    return found


class Analysis:
    """Collects the numbers of one model or of several, the first of which is looked at closest."""

    def __init__(self, settings: EvaluationSettings, num_steps: int) -> None:
        self._settings, self._num_steps = settings, num_steps
        self.timesteps: dict[str, Numbers] = {}
        self.types: Numbers = {}
        self.epochs: list[dict[str, Any]] = []  # the lines of the run's `metrics.jsonl`
        self.sizes: Numbers = {}

    def add(self, path: Path, model: DiffusionModel, held_out: Examples, results: Results) -> None:
        """Look at a model that lies at a path, and has these results."""
        settings, total = self._settings, len(held_out)
        batch = held_out.batch(spread_rows(total, settings.num_sequences or total))
        if not self.timesteps:
            how = self._num_steps, settings.seed, settings.clip
            self.types = by_gesture_type(model, batch, *how)
            self.epochs = read_lines(path.with_name("metrics.jsonl"))
        self.timesteps[str(path)] = by_timestep(model, batch, settings.seed)
        size = {"num_parameters": sum(weight.numel() for weight in model.parameters())}
        recreated = results[f"denoise@{SHOWN_SHARE}"][str(self._num_steps)]
        self.sizes[str(path)] = {**size, **recreated}

    def plot(self, folder: Path) -> list[str]:
        """Write `analysis.json` and the pictures that there is something for; their names."""
        drawn: dict[str, Callable[[Figure], None]] = {
            "error_by_timestep.png": partial(_draw_timesteps, self.timesteps)
        }
        if self.types:
            drawn["quality_by_gesture_type.png"] = partial(_draw_types, self.types)
        if self.epochs:
            drawn["convergence.png"] = partial(_draw_epochs, self.epochs)
        if len(self.sizes) > 1:
            drawn["quality_by_model_size.png"] = partial(_draw_sizes, self.sizes)
        for name, draw in drawn.items():
            figure = Figure(figsize=(10, 3.6), layout="constrained")
            draw(figure)
            save_figure(figure, folder / name)
        numbers = {"timestep": self.timesteps, "gesture_type": self.types, "size": self.sizes}
        write_json(folder / "analysis.json", finite(numbers))
        return [*drawn, "analysis.json"]


def _draw_timesteps(by_model: Mapping[str, Numbers], figure: Figure) -> None:
    titles = {"noise_mse": "mse of the noise", "mse": "mse of x0"}
    for axis, (measure, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for name, found in by_model.items():
            mean, std = ([of[measure + end] for of in found.values()] for end in ("", "_std"))
            axis.errorbar(
                [int(t) for t in found], mean, std, capsize=2, linewidth=1.2, label=as_label(name)
            )
        axis.set(xlabel="timestep", title=title, yscale="log")
        axis.legend(fontsize="small")


def _draw_types(types: Numbers, figure: Figure) -> None:
    labels = [f"{name}\n({of['num_sequences']})" for name, of in types.items()]
    for axis, (measure, title) in zip(figure.subplots(1, 3), SHOWN.items(), strict=True):
        mean, std = (
            [of.get(measure + end, np.nan) for of in types.values()] for end in ("", "_std")
        )
        axis.bar(labels, mean, yerr=std, capsize=4, color="C0", alpha=0.8)
        axis.set_title(title)


def _draw_epochs(lines: Sequence[Mapping[str, Any]], figure: Figure) -> None:
    loss, quality = figure.subplots(1, 2)
    _draw_lines(loss, {name: course(lines, name) for name in ("loss", "validation_loss")})
    loss.set(title="loss", yscale="log")
    protocols = ("conditional", "denoise@0.5")
    snr = {name: course(lines, name, "10", "mean_snr_db") for name in protocols}
    _draw_lines(quality, snr)
    quality.set_title("SNR, dB, 10 denoiser steps")


def _draw_lines(axis: Axes, courses: Mapping[str, Course]) -> None:
    for name, points in courses.items():
        if points:
            axis.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=1.2, label=name)
    axis.set_xlabel("epoch")
    axis.legend(fontsize="small")


def _draw_sizes(sizes: Mapping[str, Mapping[str, float]], figure: Figure) -> None:
    for axis, (measure, title) in zip(figure.subplots(1, 3), SHOWN.items(), strict=True):
        for name, of in sizes.items():
            at, mean = of["num_parameters"], of.get(measure, np.nan)
            axis.errorbar(
                at, mean, of.get(f"{measure}_std", np.nan), fmt="o", capsize=4, label=as_label(name)
            )
        axis.set(xlabel="parameters", title=title, xscale="log")
    axis.legend(fontsize="small")
