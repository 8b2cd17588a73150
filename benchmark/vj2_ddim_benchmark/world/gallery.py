"""A picture of every kind of widget: a screen with the gesture it asks for, and the goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS, WIDGETS
from vj2_ddim_plugin.files import atomic_path

__all__ = ["draw_gallery"]

NUM_COLUMNS = 4
SIZE = 128  # pixels of each screen
INCHES = 1.35  # width of a screen in the figure


def draw_gallery(path: Path | str, *, split: str = "train", seed: int = 0) -> None:
    """Draw a one-gesture problem of each kind that has goals, titled by its kind.

    Left of each pair: the start and the gesture over it (white, from a green dot to a red one);
    right: the goal. A star marks the multimodal kinds.

    Args:
        path: The PNG file to create or replace.
        split: `"train"`, `"validation"` or `"test"`: whose screens.
        seed: Draws the problems.

    Raises:
        ConfigError: The split is unknown, or the seed out of range.
    """
    kinds = [widget.kind for widget in WIDGETS if widget.active]
    problems = one_gesture_problems(6 * len(kinds), split=split, seed=seed, size=SIZE)
    starts, goals = problems.start.render(), problems.goal.render()
    num_rows = -(-len(kinds) // NUM_COLUMNS)
    figure = Figure((2 * NUM_COLUMNS * INCHES, num_rows * 1.2 * INCHES), layout="constrained")
    grid = figure.add_gridspec(num_rows, NUM_COLUMNS)
    for place, kind in enumerate(kinds):
        pair = figure.add_subfigure(grid[divmod(place, NUM_COLUMNS)])
        index = int(np.flatnonzero(problems.kind == kind)[0])
        pair.suptitle(kind + (" *" if kind in MULTIMODAL_KINDS else ""), fontsize=9)
        pictures = (draw_gesture(starts[index], problems.actions[index]), goals[index])
        for axes, picture in zip(pair.subplots(1, 2), pictures, strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
