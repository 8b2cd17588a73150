"""Boxes divided into rows and columns of cells, with dead space between them."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import stack_boxes
from vj2_ddim_benchmark.world.widgets.widget import inside
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["cell_boxes", "cell_under", "other_than", "shrunk"]


def cell_boxes(
    boxes: FloatArray, rows: IntArray, columns: IntArray, most: int, gap: float = 2.0
) -> FloatArray:
    """Boxes `[m, most, 4]` of the cells of `boxes` `[m, 4]`, counted row by row.

    Args:
        boxes: What is divided, in page pixels.
        rows: Rows of each, `[m]`.
        columns: Columns of each, `[m]`.
        most: Cells that any of them may have; those that one does not have are empty.
        gap: Half the dead space between cells.
    """
    left, top, right, bottom = (edge[:, None] for edge in boxes.T)
    cells, rows, columns = np.arange(most), rows[:, None], columns[:, None]
    row, column = cells // columns, cells % columns
    width, height = (right - left) / columns, (bottom - top) / rows
    x, y = left + column * width, top + row * height
    divided = stack_boxes(x + gap, y + gap, x + width - gap, y + height - gap)
    return np.where((row < rows)[..., None], divided, 0.0)


def cell_under(points: FloatArray, cells: FloatArray) -> IntArray:
    """Which of the cells `[m, n, 4]` each point `[m, 2]` is in, `[m]`; -1 is none."""
    under = inside(points[:, None], cells)
    return np.where(under.any(axis=1), under.argmax(axis=1), -1)


def other_than(current: IntArray, num: IntArray, rng: np.random.Generator) -> IntArray:
    """A random one of `num` `[m]` things, never the current one."""
    return np.asarray((current + rng.integers(1, num)) % num)


def shrunk(boxes: FloatArray, pixels: FloatArray | float) -> FloatArray:
    """Boxes with a margin taken off each side; empty ones stay empty."""
    return np.asarray(boxes + np.asarray(pixels)[..., None] * np.array([1.0, 1.0, -1.0, -1.0]))
