"""The colours of a screen: one palette each, drawn from the palettes its split owns.

A palette is a light or dark theme, an accent hue (one of 10 sectors) and a base hue (one of 10
sectors) from which the hues of keys and pages are spread evenly. Which pairs of sectors belong to
which split is decided in `splits.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.splits import draw_pairs
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = [
    "ACCENT",
    "BACKGROUND",
    "INK",
    "KEYS",
    "KNOB",
    "MUTED",
    "NUM_COLORS",
    "PAGES",
    "PAGE_MARKS",
    "SURFACE",
    "PackedColors",
    "draw_palettes",
]

PackedColors = NDArray[np.uint32]  # little-endian red, green, blue, 0

BACKGROUND, SURFACE, MUTED, ACCENT, INK, KNOB = range(6)
KEYS = slice(6, 15)
PAGES = slice(15, 19)
PAGE_MARKS = slice(19, 23)
NUM_COLORS = 23
NUM_SECTORS = 10


def draw_palettes(num: int, split: str, rng: np.random.Generator) -> tuple[PackedColors, IntArray]:
    """Draw palettes of a split.

    Returns:
        `[num, NUM_COLORS]` packed colours, and the sectors `[num, 2]` of accent and base hue.
    """
    sectors = draw_pairs(num, NUM_SECTORS, split, rng)
    accent, base = ((sectors + rng.random((num, 2))) / NUM_SECTORS).T[:, :, None]
    dark = rng.random((num, 1)) < 0.5
    hsv = np.zeros((num, NUM_COLORS, 3))
    _set(hsv, slice(BACKGROUND, BACKGROUND + 1), accent, 0.12, np.where(dark, 0.12, 0.96))
    _set(hsv, slice(SURFACE, SURFACE + 1), accent, 0.15, np.where(dark, 0.26, 0.84))
    _set(hsv, slice(MUTED, MUTED + 1), accent, 0.08, np.where(dark, 0.45, 0.62))
    _set(hsv, slice(ACCENT, ACCENT + 1), accent, 0.85, np.where(dark, 0.95, 0.8))
    _set(hsv, slice(INK, INK + 1), accent, 0.05, np.where(dark, 1.0, 0.05))
    _set(hsv, slice(KNOB, KNOB + 1), accent, 0.0, 1.0)
    steps = np.arange(9)
    _set(hsv, KEYS, base + steps / 9, 0.75, np.where(steps % 2, 0.65, 0.95))
    _set(hsv, PAGES, base + steps[:4] / 4, 0.55, np.where(dark, 0.65, 0.9))
    _set(hsv, PAGE_MARKS, base + steps[:4] / 4 + 0.08, 0.9, np.where(dark, 0.95, 0.5))
    jitter = rng.uniform(0.9, 1.0, (num, 1, 2))
    hsv[..., 1:] *= jitter
    return _pack(_hsv_to_rgb(hsv)), sectors


def _set(
    hsv: FloatArray, where: slice, hue: FloatArray, saturation: float, value: FloatArray | float
) -> None:
    hsv[:, where, 0], hsv[:, where, 1], hsv[:, where, 2] = hue % 1.0, saturation, value


def _hsv_to_rgb(hsv: FloatArray) -> FloatArray:
    """`[..., 3]` hue, saturation, value to red, green, blue, all in [0, 1]."""
    hue, saturation, value = hsv[..., :1], hsv[..., 1:2], hsv[..., 2:]
    shifted = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue) % 6.0
    wave = np.clip(np.minimum(shifted, 4.0 - shifted), 0.0, 1.0)
    return np.asarray(value * (1.0 - saturation * wave))


def _pack(rgb: FloatArray) -> PackedColors:
    levels = np.rint(255.0 * rgb).astype(np.uint32)
    return np.asarray(levels[..., 0] | levels[..., 1] << 8 | levels[..., 2] << 16, dtype="<u4")
