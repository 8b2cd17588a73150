"""Painting rectangles onto pictures: everything on a screen is made of them.

Pictures are painted at twice their size, colours packed into one integer a pixel, and each block of
2 x 2 pixels is then averaged, so that edges between pixels are smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.palettes import PackedColors
from vj2_ddim_benchmark.world.touch import PAGE
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Images", "Rectangles", "paint", "stack_boxes"]

Images = NDArray[np.uint8]
CHUNK = 32  # pictures painted at once: their canvases stay in the cache


@dataclass(frozen=True)
class Rectangles:
    """R rectangles for each of m widgets, later ones over earlier ones.

    Attributes:
        boxes: `[m, R, 4]` left, top, right, bottom in page pixels; empty ones are not painted.
        colors: `[m, R]` packed colours.
    """

    boxes: FloatArray
    colors: PackedColors


def stack_boxes(
    left: FloatArray, top: FloatArray, right: FloatArray, bottom: FloatArray
) -> FloatArray:
    """Boxes `[..., 4]` from edges that broadcast together."""
    return np.stack(np.broadcast_arrays(left, top, right, bottom), axis=-1)


def paint(background: PackedColors, layers: list[tuple[IntArray, Rectangles]], size: int) -> Images:
    """Paint n pictures.

    Args:
        background: `[n]` packed colours.
        layers: Pairs of the picture `[m]` that each widget is on, and the widgets' rectangles.
        size: Width and height of the pictures.

    Returns:
        `[n, size, size, 3]`.
    """
    num = len(background)
    images = np.empty((num, size, size, 3), np.uint8)
    canvases = np.empty((min(num, CHUNK), 2 * size, 2 * size), "<u4")
    for begin in range(0, num, CHUNK):
        canvas = canvases[: min(CHUNK, num - begin)]
        canvas[:] = background[begin : begin + CHUNK, None, None]
        for rows, rectangles in layers:
            inside = np.flatnonzero((rows >= begin) & (rows < begin + CHUNK))
            _fill(canvas, rows[inside] - begin, rectangles, inside)
        pixels = _halve(canvas).view(np.uint8).reshape(-1, size, size, 4)
        for channel in range(3):  # one at a time: six times faster than all at once
            images[begin : begin + CHUNK, ..., channel] = pixels[..., channel]
    return images


def _fill(canvas: PackedColors, rows: IntArray, rectangles: Rectangles, inside: IntArray) -> None:
    """Fill the rectangles of the widgets at `inside`, in order; a slice each is the fastest way."""
    edges = np.rint(rectangles.boxes[inside] * (canvas.shape[1] / PAGE)).astype(int)
    colors = rectangles.colors[inside]
    for row, boxes, fills in zip(rows.tolist(), edges.tolist(), colors.tolist(), strict=True):
        picture = canvas[row]
        for (left, top, right, bottom), fill in zip(boxes, fills, strict=True):
            if right > left and bottom > top:
                picture[top:bottom, left:right] = fill


def _halve(canvas: PackedColors) -> PackedColors:
    """`[n, 2s, 2s]` to `[n, s, s]`: the mean of each 2 x 2 block, a byte at a time."""
    tall = _mean(canvas[:, :, 0::2], canvas[:, :, 1::2])
    return np.ascontiguousarray(_mean(tall[:, 0::2], tall[:, 1::2]))


def _mean(one: PackedColors, other: PackedColors) -> PackedColors:
    """Mean of each byte of two packed arrays, rounded down, without unpacking them."""
    return np.asarray((one & other) + (((one ^ other) & np.uint32(0xFEFEFEFE)) >> np.uint32(1)))
