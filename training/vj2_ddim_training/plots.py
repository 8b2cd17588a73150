"""Pictures of action sequences and of noise. They touch nothing global: no pyplot, no backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["draw_paths", "plot_noise", "plot_plan", "plot_sequences", "save_figure"]

PRESS_COLOR = "0.85"


def plot_sequences(
    original: FloatArray,
    noisy: FloatArray,
    recreated: FloatArray,
    spec: ActionSpec,
    max_samples: int = 2,
) -> Figure:
    """Original, noisy and recreated sequences side by side, one sample a row.

    Args:
        original: `[n, L, A]`.
        noisy: `[n, L, A]`, or `[n, *spec.diffused_shape]` to show what the sampler started from.
        recreated: `[n, L, A]`.
        spec: Names the channels.
        max_samples: Rows at most.
    """
    num = _num_samples(max_samples, original, noisy, recreated)
    figure = Figure(figsize=(13, 2.8 * num), layout="constrained")
    axes = figure.subplots(num, 3, squeeze=False)
    titles = ("original", "noisy", "recreated")
    for row in range(num):
        for axis, title, actions in zip(
            axes[row], titles, (original, noisy, recreated), strict=True
        ):
            axis.set_title(f"{title}, sample {row}")
            if actions.shape[1:] == (spec.length, spec.num_channels):
                _draw_channels(axis, actions[row], spec)
            else:
                _draw_rows(axis, actions[row])
    return figure


def plot_noise(true_noise: FloatArray, predicted_noise: FloatArray, max_samples: int = 2) -> Figure:
    """Heat maps of true noise, predicted noise and their difference, one sample a row.

    Args:
        true_noise: `[n, M, C]`.
        predicted_noise: `[n, M, C]`.
        max_samples: Rows at most.
    """
    num = _num_samples(max_samples, true_noise, predicted_noise)
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


def plot_plan(actions: FloatArray, spec: ActionSpec, max_samples: int = 4) -> Figure:
    """Plans over time, one a row, and their paths on the screen when they are touches.

    Args:
        actions: `[n, L, A]`, in the planner's units.
        spec: Names and bounds the channels.
        max_samples: Rows at most.

    Raises:
        ActionError: The shape is not that of plans.
    """
    if actions.ndim != 3 or actions.shape[1:] != (spec.length, spec.num_channels):
        raise ActionError(
            f"plans have shape {actions.shape}, expected [n, {spec.length}, {spec.num_channels}]"
        )
    num = _num_samples(max_samples, actions)
    on_screen = spec.press_channel is not None and len(spec.coordinate_indices) == 2
    figure = Figure(figsize=(9, 3.2 * num), layout="constrained")
    axes = figure.subplots(num, 2 if on_screen else 1, squeeze=False)
    for row, plan in zip(axes, actions[:num], strict=True):
        _draw_channels(row[0], plan, spec)
        if on_screen:
            draw_paths(row[1], plan[None], spec)
    return figure


def draw_paths(axis: Axes, actions: FloatArray, spec: ActionSpec) -> None:
    """Draw the pressed path of each of `[n, L, A]` on the screen; a dot is where it starts.

    Args:
        axis: A matplotlib Axes. The y axis points down, as on a screen.
        actions: `[n, L, A]` touches with two coordinates.
        spec: What they are.
    """
    x, y = spec.coordinate_indices
    for index, sequence in enumerate(actions):
        pressed = spec.pressed(sequence)
        if not pressed.any():
            continue
        path = sequence[pressed]
        color = f"C{index % 10}"
        axis.plot(path[:, x], path[:, y], color=color, linewidth=1.2, alpha=0.8)
        axis.plot(path[0, x], path[0, y], "o", color=color, markersize=4)
    axis.set_xlim(spec.action_low[x], spec.action_high[x])
    axis.set_ylim(spec.action_high[y], spec.action_low[y])
    axis.set(xlabel=spec.channels[x], ylabel=spec.channels[y], aspect="equal")


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure, whole or not at all; the suffix names the format (`.png`, `.svg`, ...)."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _num_samples(max_samples: int, *arrays: FloatArray) -> int:
    """How many rows to draw."""
    num = min([max_samples, *(len(array) for array in arrays)])
    if num < 1:
        raise ActionError(
            f"nothing to draw: max_samples is {max_samples} and the arrays have "
            f"{', '.join(str(len(array)) for array in arrays)} samples"
        )
    return num


def _draw_channels(axis: Axes, actions: FloatArray, spec: ActionSpec) -> None:
    """Draw `[L, A]` over time, shaded where the finger is down."""
    seconds = np.arange(spec.length) / spec.rate_hz
    for index, name in enumerate(spec.channels):
        axis.plot(seconds, actions[:, index], label=name, linewidth=1.2)
    if spec.press_channel is not None:
        axis.fill_between(
            seconds,
            0,
            1,
            where=spec.pressed(actions),
            transform=axis.get_xaxis_transform(),
            color=PRESS_COLOR,
            linewidth=0,
        )
    axis.set_xlabel("seconds")
    axis.legend(loc="upper right", fontsize="small")


def _draw_rows(axis: Axes, diffused: FloatArray) -> None:
    """Draw a diffused array `[M, C]` in its own units."""
    axis.plot(diffused, "o-", markersize=3, linewidth=0.8)
    axis.set_xlabel("row of the diffused array")
