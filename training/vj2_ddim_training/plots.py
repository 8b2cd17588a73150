"""Pictures of action sequences and of noise. They touch nothing global: no pyplot, no backend."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vj2_ddim_plugin.cli.pictures import draw_channels, num_samples
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["plot_noise", "plot_sequences"]


def plot_sequences(
    original: FloatArray,
    noisy: FloatArray,
    recreated: FloatArray,
    spec: ActionSpec,
    max_samples: int = 2,
) -> Figure:
    """Original, noisy and recreated sequences side by side, one sample a row."""
    num = num_samples(max_samples, original, noisy, recreated)
    figure = Figure(figsize=(13, 2.8 * num), layout="constrained")
    axes = figure.subplots(num, 3, squeeze=False)
    titles = ("original", "noisy", "recreated")
    for row in range(num):
        for axis, title, actions in zip(
            axes[row], titles, (original, noisy, recreated), strict=True
        ):
            axis.set_title(f"{title}, sample {row}")
            if actions.shape[1:] == (spec.length, spec.num_channels):
                draw_channels(axis, actions[row], spec)
            else:
                _draw_rows(axis, actions[row])
    return figure


def plot_noise(true_noise: FloatArray, predicted_noise: FloatArray, max_samples: int = 2) -> Figure:
    """Heat maps of true noise, predicted noise and their difference, one sample a row."""
    num = num_samples(max_samples, true_noise, predicted_noise)
    figure = Figure(figsize=(13, 2.2 * num), layout="constrained")
    axes = figure.subplots(num, 3, squeeze=False)
    columns = {
        "true noise": true_noise,
        "predicted noise": predicted_noise,
        "difference": predicted_noise - true_noise,
    }
    for row in range(num):
        for axis, (title, noise) in zip(axes[row], columns.items(), strict=True):
            image = axis.imshow(
                noise[row].T, aspect="auto", cmap="RdBu", vmin=-3, vmax=3, interpolation="nearest"
            )
            axis.set(title=f"{title}, sample {row}", xlabel="row", ylabel="channel")
            axis.set_yticks(range(noise.shape[2]))
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _draw_rows(axis: Axes, diffused: FloatArray) -> None:
    """Draw a diffused array `[M, C]` in its own units."""
    axis.plot(diffused, "o-", markersize=3, linewidth=0.8)
    axis.set_xlabel("row of the diffused array")
