"""Pictures of plans. They touch nothing global: no pyplot, no backend."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from PIL import Image

from vj2_ddim_plugin.errors import ActionError, ConfigError, escaped
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures import pressed
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = [
    "as_label", "draw_channels", "draw_paths", "image_of", "num_samples", "plot_plan",
    "require_picture", "save_figure",
]  # fmt: skip


def as_label(text: object) -> str:
    """Text of the user's for a picture: no formula between `$`, not left out for its first `_`."""
    literal = escaped(str(text)).replace("$", r"\$")
    return f" {literal}" if literal.startswith("_") else literal


def plot_plan(actions: FloatArray, spec: ActionSpec, max_samples: int = 4) -> Figure:
    """Plans `[n, L, A]` over time, one a row, and touches also as paths on the screen."""
    if actions.ndim != 3 or actions.shape[1:] != (spec.length, spec.num_channels):
        raise ActionError(
            f"plans have shape {actions.shape}, expected [n, {spec.length}, {spec.num_channels}]"
        )
    num = num_samples(max_samples, actions)
    on_screen = spec.press_channel is not None and len(spec.coordinate_indices) == 2
    figure = Figure(figsize=(9, 3.2 * num), layout="constrained")
    axes = figure.subplots(num, 2 if on_screen else 1, squeeze=False)
    for row, plan in zip(axes, actions[:num], strict=True):
        draw_channels(row[0], plan, spec)
        if on_screen:
            draw_paths(row[1], plan[None], spec)
    return figure


def num_samples(max_samples: int, *arrays: FloatArray) -> int:
    """How many rows to draw of arrays `[n, ...]`; raises `ActionError` where that is none."""
    lengths = [len(array) for array in arrays]
    if min(max_samples, *lengths) < 1:
        raise ActionError(
            f"nothing to draw: max_samples is {max_samples} and the arrays have "
            f"{', '.join(map(str, lengths))} samples"
        )
    return min(max_samples, *lengths)


def draw_channels(axis: Axes, actions: FloatArray, spec: ActionSpec) -> None:
    """Draw `[L, A]` over time, shaded where the finger is down."""
    seconds = np.arange(spec.length) / spec.rate_hz
    for index, name in enumerate(spec.channels):
        axis.plot(seconds, actions[:, index], label=as_label(name), linewidth=1.2)
    if spec.press_channel is not None:
        down, of_axis = pressed(actions, spec), axis.get_xaxis_transform()
        axis.fill_between(seconds, 0, 1, where=down, transform=of_axis, color="0.85", linewidth=0)
    axis.set_xlabel("seconds")
    axis.legend(loc="upper right", fontsize="small")


def draw_paths(axis: Axes, actions: FloatArray, spec: ActionSpec) -> None:
    """Draw the pressed path of each of `[n, L, A]` on the screen; a dot is where it starts."""
    x, y = spec.coordinate_indices
    for index, sequence in enumerate(actions):
        path = sequence[pressed(sequence, spec)]
        if not len(path):
            continue
        color = f"C{index % 10}"
        axis.plot(path[:, x], path[:, y], color=color, linewidth=1.2, alpha=0.8)
        axis.plot(path[0, x], path[0, y], "o", color=color, markersize=4)
    axis.set_xlim(spec.action_low[x], spec.action_high[x])
    axis.set_ylim(spec.action_high[y], spec.action_low[y])
    axis.set(xlabel=as_label(spec.channels[x]), ylabel=as_label(spec.channels[y]), aspect="equal")


def require_picture(path: Path | str) -> None:
    """Raise `ConfigError` for a name whose suffix is of no kind of picture."""
    kinds = FigureCanvasBase.get_supported_filetypes()
    if (suffix := Path(path).suffix) and suffix[1:].lower() in kinds:
        return
    raise ConfigError(
        f"{path}: the suffix says how a picture is written; found {suffix or 'none'}, use one of "
        f"{', '.join(sorted('.' + kind for kind in kinds))}"
    )


def image_of(figure: Figure) -> Image.Image:
    """A figure as a picture in memory."""
    with BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=80)
        return Image.open(stream).copy()


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure, whole or not at all; the suffix names the format (`.png`, `.svg`, ...)."""
    require_picture(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
