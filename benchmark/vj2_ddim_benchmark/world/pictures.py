"""Pictures to look at: a screen with a gesture drawn over it, and a gallery of all widgets."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world.touch import PAGE, gesture_path
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS, WIDGETS
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray

OUTLINE = (0, 0, 0)
PATH, PRESS, RELEASE = (255, 255, 255), (40, 200, 80), (235, 50, 50)
WIDTH = 320  # least width of the picture, in pixels
GALLERY_COLUMNS, GALLERY_SIZE = 4, 128  # pairs in a row, pixels of each screen


def draw_gesture(frame: Images, action: ArrayLike) -> Images:
    """Enlarge a picture `[H, W, 3]`, to at least 320 pixels across, and draw a gesture over it.

    The path is white, the press a large green dot, the release a small red one (so a tap is a red
    dot in a green ring); a block `[250, 3]` without a press draws nothing.
    """
    picture = np.asarray(frame)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DataError(
            f"frame must be uint8 of shape [H, W, 3]; found {picture.dtype} {picture.shape}"
        )
    scale = -(-WIDTH // picture.shape[1])
    picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    path = gesture_path(action)
    if len(path) == 0:
        return picture
    path = _dense(path / PAGE * picture.shape[1::-1])
    unit = picture.shape[1] / WIDTH
    for points, outer, radius, color in (
        (path, 3.5, 1.8, PATH), (path[:1], 9.5, 8.0, PRESS), (path[-1:], 6.0, 4.5, RELEASE)
    ):  # fmt: skip
        _stamp(picture, points, outer * unit, OUTLINE)
        _stamp(picture, points, radius * unit, color)
    return picture


def _dense(path: FloatArray) -> FloatArray:
    """The path with points at most one pixel apart."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    even = np.linspace(0.0, length[-1], int(length[-1]) + 2)
    return np.stack([np.interp(even, length, path[:, axis]) for axis in range(2)], axis=1)


def _stamp(picture: Images, points: FloatArray, radius: float, color: tuple[int, int, int]) -> None:
    """Fill a disc around each point `[m, 2]`."""
    reach = np.arange(-int(radius) - 1, int(radius) + 2)
    grid = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(1, -1, 2)
    pixels = np.floor(points).astype(int)[:, None] + grid
    covered = ((pixels + 0.5 - points[:, None]) ** 2).sum(axis=-1) <= radius**2
    covered &= ((pixels >= 0) & (pixels < picture.shape[1::-1])).all(axis=-1)
    x, y = pixels[covered].T
    picture[y, x] = color


def draw_gallery(path: Path | str, *, split: str = "train", seed: int = 0) -> None:
    """Draw a problem of each kind into a PNG file: start and gesture left of the goal."""
    from matplotlib.figure import Figure  # here, so that a planner's worker does not load it

    kinds = [widget.kind for widget in WIDGETS if widget.active]
    problems = one_gesture_problems(6 * len(kinds), split=split, seed=seed, size=GALLERY_SIZE)
    starts, goals = problems.start.render(), problems.goal.render()
    num_rows = -(-len(kinds) // GALLERY_COLUMNS)
    figure = Figure((10.8, 1.62 * num_rows), layout="constrained")
    grid = figure.add_gridspec(num_rows, GALLERY_COLUMNS)
    for place, kind in enumerate(kinds):
        pair = figure.add_subfigure(grid[divmod(place, GALLERY_COLUMNS)])
        index = int(np.flatnonzero(problems.kind == kind)[0])
        pair.suptitle(kind + (" *" if kind in MULTIMODAL_KINDS else ""), fontsize=9)
        pictures = (draw_gesture(starts[index], problems.actions[index]), goals[index])
        for axes, picture in zip(pair.subplots(1, 2), pictures, strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
