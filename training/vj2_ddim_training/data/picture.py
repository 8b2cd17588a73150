"""One picture of a data set: paths on the screen, durations, gesture types, presses over time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_training.data.describe import DataDescription
from vj2_ddim_training.plots import draw_paths

__all__ = ["plot_description"]

MAX_PATHS = 60
MAX_TIMELINE = 200


def plot_description(description: DataDescription, spec: ActionSpec) -> Figure:
    """Draw what `describe_data` found; panels without anything to show stay empty.

    Args:
        description: From `describe_data`.
        spec: The spec it was described with.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    paths, durations, types, timeline = figure.subplots(2, 2).flat
    figure.suptitle(f"{description.path}: {description.num_sequences} sequences")
    actions = description.actions
    if spec.press_channel is not None and len(spec.coordinate_indices) == 2:
        draw_paths(paths, actions[:MAX_PATHS], spec)
    paths.set_title(f"the first {min(MAX_PATHS, len(actions))} gestures on the screen")
    _draw_durations(durations, description)
    types.bar(list(description.gesture_types), list(description.gesture_types.values()))
    types.set(title="gesture types", ylabel="gestures")
    if spec.press_channel is not None and len(actions):
        pressed = spec.pressed(actions[:MAX_TIMELINE]).astype(np.float64)
        seconds = spec.length / spec.rate_hz
        extent = (0.0, seconds, len(pressed), 0.0)
        timeline.imshow(
            pressed,
            aspect="auto",
            cmap="Greys",
            vmin=0,
            vmax=1,
            extent=extent,
            interpolation="nearest",
        )
    timeline.set(title="pressed (dark) over time", xlabel="seconds", ylabel="sequence")
    return figure


def _draw_durations(axis: Axes, description: DataDescription) -> None:
    """Draw the histogram of press durations."""
    axis.set(title="press duration", xlabel="steps", ylabel="gestures")
    if description.durations:
        edges = np.array(description.durations["edges"])
        axis.bar(edges[:-1], description.durations["counts"], np.diff(edges), align="edge")
