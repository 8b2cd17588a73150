"""Colours and painting: a palette for each screen, and the rectangles everything is made of.

Painted at twice the size, colours packed in integers; 2 x 2 pixels are averaged: smooth edges.
"""

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.touch import PAGE
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

Images = NDArray[np.uint8]
PackedColors = NDArray[np.uint32]  # little-endian red, green, blue, 0
Layers = list[tuple[FloatArray, PackedColors | int]]
"""What m widgets draw, back to front: boxes `[m, 4]` or `[m, r, 4]`, each with a place in the
palette or colours of their own."""

NUM_SECTORS = 10  # of the circle of hues
CHUNK = 32  # pictures painted at once: their canvases stay in the cache


class Color:
    """Places in a palette."""

    BACKGROUND, SURFACE, MUTED, ACCENT, INK, KNOB = range(6)
    KEYS, PAGES, PAGE_MARKS = slice(6, 15), slice(15, 19), slice(19, 23)
    COUNT = 23


def draw_palettes(sectors: IntArray, rng: np.random.Generator) -> PackedColors:
    """Palettes `[n, COUNT]` with accent and base hue in the given sectors, `[n, 2]`."""
    num = len(sectors)
    accent, base = ((sectors + rng.random((num, 2))) / NUM_SECTORS).T[:, :, None]
    dark = rng.random((num, 1)) < 0.5
    steps = np.arange(9)
    look: list[tuple[list[int] | slice, FloatArray, float, FloatArray | float]] = [
        ([Color.BACKGROUND], accent, 0.12, np.where(dark, 0.12, 0.96)),
        ([Color.SURFACE], accent, 0.15, np.where(dark, 0.26, 0.84)),
        ([Color.MUTED], accent, 0.08, np.where(dark, 0.45, 0.62)),
        ([Color.ACCENT], accent, 0.85, np.where(dark, 0.95, 0.8)),
        ([Color.INK], accent, 0.05, np.where(dark, 1.0, 0.05)),
        ([Color.KNOB], accent, 0.0, 1.0),
        (Color.KEYS, base + steps / 9, 0.75, np.where(steps % 2, 0.65, 0.95)),
        (Color.PAGES, base + steps[:4] / 4, 0.55, np.where(dark, 0.65, 0.9)),
        (Color.PAGE_MARKS, base + steps[:4] / 4 + 0.08, 0.9, np.where(dark, 0.95, 0.5)),
    ]
    hsv = np.zeros((num, Color.COUNT, 3))
    for colors, hue, saturation, value in look:
        hsv[:, colors, 0], hsv[:, colors, 1], hsv[:, colors, 2] = hue % 1.0, saturation, value
    hsv[..., 1:] *= rng.uniform(0.9, 1.0, (num, 1, 2))
    levels = np.rint(255.0 * _hsv_to_rgb(hsv)).astype(np.uint32)
    return np.asarray(levels[..., 0] | levels[..., 1] << 8 | levels[..., 2] << 16, dtype="<u4")


def _hsv_to_rgb(hsv: FloatArray) -> FloatArray:
    """`[..., 3]` hue, saturation, value to red, green, blue, all in [0, 1]."""
    hue, saturation, value = hsv[..., :1], hsv[..., 1:2], hsv[..., 2:]
    shifted = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue) % 6.0
    wave = np.clip(np.minimum(shifted, 4.0 - shifted), 0.0, 1.0)
    return np.asarray(value * (1.0 - saturation * wave))


def stack_boxes(*edges: FloatArray) -> FloatArray:
    """Boxes `[..., 4]` from left, top, right and bottom edges that broadcast together."""
    return np.stack(np.broadcast_arrays(*edges), axis=-1)


def cell_boxes(
    boxes: FloatArray, rows: IntArray, columns: IntArray, most: int, gap: float = 2.0
) -> FloatArray:
    """Boxes `[m, most, 4]` of the cells of `boxes` `[m, 4]`; those one does not have are empty."""
    left, top, right, bottom = (edge[:, None] for edge in boxes.T)
    cells, rows, columns = np.arange(most), rows[:, None], columns[:, None]
    row, column = cells // columns, cells % columns
    width, height = (right - left) / columns, (bottom - top) / rows
    x, y = left + column * width, top + row * height
    divided = stack_boxes(x + gap, y + gap, x + width - gap, y + height - gap)
    return np.where((row < rows)[..., None], divided, 0.0)


def shrunk(boxes: FloatArray, pixels: FloatArray | float) -> FloatArray:
    """Boxes with a margin taken off each side; empty ones stay empty."""
    return np.asarray(boxes + np.asarray(pixels)[..., None] * np.array([1.0, 1.0, -1.0, -1.0]))


def paint(palettes: PackedColors, widgets: list[tuple[IntArray, Layers]], size: int) -> Images:
    """Pictures `[n, size, size, 3]`, of each kind of widget which `[m]` they are on, and layers."""
    num = len(palettes)
    images = np.empty((num, size, size, 3), np.uint8)
    canvases = np.empty((min(num, CHUNK), 2 * size, 2 * size), "<u4")
    rectangles = [(rows, *_rectangles(palettes[rows], layers)) for rows, layers in widgets]
    for begin in range(0, num, CHUNK):
        canvas = canvases[: min(CHUNK, num - begin)]
        canvas[:] = palettes[begin : begin + CHUNK, Color.BACKGROUND, None, None]
        for rows, boxes, colors in rectangles:
            inside = np.flatnonzero((rows >= begin) & (rows < begin + CHUNK))
            _fill(canvas, rows[inside] - begin, boxes[inside], colors[inside])
        pixels = _halve(canvas).view(np.uint8).reshape(-1, size, size, 4)
        for channel in range(3):  # one at a time: six times faster than all at once
            images[begin : begin + CHUNK, ..., channel] = pixels[..., channel]
    return images


def _rectangles(palettes: PackedColors, layers: Layers) -> tuple[FloatArray, PackedColors]:
    """Boxes `[m, R, 4]` and colours `[m, R]` of all layers, later ones over earlier ones."""
    boxes, colors = [], []
    for box, color in layers:
        own = palettes[:, color] if isinstance(color, int) else color
        boxes.append(box if box.ndim == 3 else box[:, None])
        own = own if own.ndim == 2 else own[:, None]
        colors.append(np.broadcast_to(own, boxes[-1].shape[:2]))
    return np.concatenate(boxes, axis=1), np.concatenate(colors, axis=1)


def _fill(canvas: PackedColors, rows: IntArray, boxes: FloatArray, colors: PackedColors) -> None:
    """Fill m widgets' rectangles, in order; a slice each is the fastest way."""
    edges = np.rint(boxes * (canvas.shape[1] / PAGE)).astype(int).tolist()
    for row, own, fills in zip(rows.tolist(), edges, colors.tolist(), strict=True):
        picture = canvas[row]
        for (left, top, right, bottom), fill in zip(own, fills, strict=True):
            if right > left and bottom > top:
                picture[top:bottom, left:right] = fill


def _halve(canvas: PackedColors) -> PackedColors:
    """`[n, 2s, 2s]` to `[n, s, s]`: the mean of each 2 x 2 block, a byte at a time."""
    tall = _mean(canvas[:, :, 0::2], canvas[:, :, 1::2])
    return np.ascontiguousarray(_mean(tall[:, 0::2], tall[:, 1::2]))


def _mean(one: PackedColors, other: PackedColors) -> PackedColors:
    """Mean of each byte of two packed arrays, rounded down, without unpacking them."""
    return np.asarray((one & other) + (((one ^ other) & np.uint32(0xFEFEFEFE)) >> np.uint32(1)))
