"""Make gestures: straight presses as VJ2-GUI's augmentation does, paths, and fixed patterns."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.data.gesture_files import require_replaceable
from vj2_ddim_training.data.settings import PATH_KNOTS, PATTERNS, GestureSettings

__all__ = ["generate_gestures", "write_gestures"]

MAX_SEQUENCES, MAX_STEPS_AT_ONCE = 10_000_000, 2**27


CIRCLE_RADIUS, PATTERN_KNOTS = 0.3, 73  # legs of 5 degrees
DWELL_SHARE = 1 / 8  # of a path's legs, on which the finger stands still
PLACES = {  # of each pattern but the circle: start x, y and end x, y
    "centre_click": [(0.5, 0.5, 0.5, 0.5)],
    "corner_clicks": [(x, y, x, y) for y in (0.1, 0.9) for x in (0.1, 0.9)],
    "horizontal_swipes": [(0.2, 0.5, 0.8, 0.5), (0.8, 0.5, 0.2, 0.5)],
    "vertical_swipes": [(0.5, 0.2, 0.5, 0.8), (0.5, 0.8, 0.5, 0.2)],
    "diagonal_swipes": [(x, y, 1.0 - x, 1.0 - y) for y in (0.2, 0.8) for x in (0.2, 0.8)],
}


class _Gestures(NamedTuple):
    """n gestures before they are drawn: whose path, first step and duration, `[n]` each.

    The paths `[m, K, 2]` are straight between K knots that are evenly spaced in time.
    """

    paths: FloatArray
    path: IntArray
    first_step: IntArray
    duration: IntArray

    def draw(self, rows: slice, sequence_length: int) -> NDArray[np.float32]:
        """Some of the gestures as float32 `[len(rows), L, 3]`."""
        duration = self.duration[rows, None]
        step = np.arange(sequence_length) - self.first_step[rows, None]
        pressed = (step >= 0) & (step < duration)
        legs = self.paths.shape[1] - 1
        position = np.where(pressed, step, 0) / np.maximum(duration - 1, 1) * legs
        leg = np.minimum(position.astype(int), legs - 1)
        which = self.path[rows, None]
        start, end = self.paths[which, leg], self.paths[which, leg + 1]
        points = start + (end - start) * (position - leg)[..., None]
        points = np.where(pressed[..., None], points, 0.0)
        return np.concatenate([points, pressed[..., None]], axis=2).astype(np.float32)


def generate_gestures(
    num: int,
    *,
    rng: np.random.Generator,
    **settings: Any,  # noqa: ANN401
) -> NDArray[np.float32]:
    """Gestures `(x, y, press)`, one press each; x = y = 0 where released.

    Start, end and duration (whole steps) are uniform, and so is the first step among those that
    let the gesture fit. A duration of 0 is a sequence without a press. Patterns have fixed places,
    follow one another in a fixed order, and differ in their times.

    Args:
        num: Sequences n.
        rng: Source of randomness.
        **settings: Fields of `GestureSettings` that are not the defaults.

    Returns:
        float32 `[n, L, 3]`, coordinates in [0, 1].
    """
    told = GestureSettings(**settings)
    _require_room(num, told.sequence_length)
    return _choose(num, told, rng).draw(slice(None), told.sequence_length)


def write_gestures(
    out_dir: Path | str,
    num: int,
    settings: GestureSettings | None = None,
    *,
    sequences_per_file: int = 100,
    overwrite: bool = False,
    rng: np.random.Generator,
    **changes: Any,  # noqa: ANN401
) -> list[Path]:
    """Write the sequences of `generate_gestures` as `batch_{i:06d}_actions.npy`, `[n * L, 3]`.

    The folder appears whole or not at all; `overwrite` replaces one that holds such files and
    nothing else. The sequences do not depend on `sequences_per_file`. Returns the files, in order.
    """
    settings = replace(settings or GestureSettings(), **changes)
    if sequences_per_file < 1:
        raise ConfigError(f"sequences_per_file must be at least 1; found {sequences_per_file}")
    _require_room(min(num, sequences_per_file), settings.sequence_length)
    out_dir = Path(os.path.realpath(out_dir))
    require_replaceable(out_dir, ("batch_*_actions.npy",), overwrite)
    gestures = _choose(num, settings, rng)
    with atomic_path(out_dir, folder=True) as temporary:
        for index, first in enumerate(range(0, num, sequences_per_file)):
            rows = slice(first, first + sequences_per_file)
            drawn = gestures.draw(rows, settings.sequence_length)
            np.save(temporary / f"batch_{index:06d}_actions.npy", drawn.reshape(-1, 3))
    return sorted(out_dir.iterdir())


def _require_room(num: int, sequence_length: int) -> None:
    if num * sequence_length > MAX_STEPS_AT_ONCE:
        raise ConfigError(
            f"{num} sequences of {sequence_length} steps at once are too many, at most "
            f"{MAX_STEPS_AT_ONCE} steps may be. Write fewer in a file with sequences_per_file"
        )


def _choose(num: int, settings: GestureSettings, rng: np.random.Generator) -> _Gestures:
    if not 1 <= num <= MAX_SEQUENCES:
        raise ConfigError(
            f"the number of sequences must be at least 1 and at most {MAX_SEQUENCES}; found {num}"
        )
    length = settings.sequence_length
    shortest = int(settings.min_duration_share * length)
    longest = int(settings.max_duration_share * length)
    if settings.shape in (*PATTERNS, "patterns"):
        paths = _patterns(PATTERNS if settings.shape == "patterns" else (settings.shape,))
    elif settings.shape == "path":
        paths, shortest = _paths(num, rng), max(shortest, PATH_KNOTS)
    else:
        paths = _lines(num, settings.shape, rng)
    duration = rng.integers(shortest, longest, size=num, endpoint=True)
    first_step = rng.integers(0, length - duration, endpoint=True)
    return _Gestures(paths, np.arange(num) % len(paths), first_step, duration)


def _lines(num: int, kind: str, rng: np.random.Generator) -> FloatArray:
    """Straight ones `[n, 2, 2]`."""
    start, end = rng.random((num, 2)), rng.random((num, 2))
    if kind == "click":
        moves = np.zeros((num, 2), bool)
    elif kind == "swipe":
        moves = np.ones((num, 2), bool)
    else:  # a click, horizontal, vertical or diagonal: whether x moves, whether y moves
        choice = rng.integers(4, size=num)
        moves = np.stack([choice % 2 == 1, choice >= 2], axis=1)
    return np.stack([start, np.where(moves, end, start)], axis=1)


def _paths(num: int, rng: np.random.Generator) -> FloatArray:
    """Cubic Bezier curves, or three legs, with equal chances: `[n, PATH_KNOTS, 2]`.

    What is travelled from knot to knot is exponential, or nothing, so that the speed varies.
    """
    points = rng.random((num, 4, 2))
    travelled = rng.exponential(size=(num, PATH_KNOTS - 1)) + 1e-6
    travelled[rng.random(travelled.shape) < DWELL_SHARE] = 0.0
    travelled[:, 0] += 1e-6  # a path leads somewhere
    share = np.cumsum(np.pad(travelled, ((0, 0), (1, 0))), axis=1)
    share = np.minimum(share / share[:, -1:], 1.0)[..., None]
    rest = 1.0 - share
    curve = (rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3)
    legs = tuple(np.maximum(0.0, 1.0 - np.abs(3.0 * share - corner)) for corner in range(4))
    curved = rng.random((num, 1, 1)) < 0.5
    weights = np.where(curved, np.concatenate(curve, axis=2), np.concatenate(legs, axis=2))
    return np.asarray(np.clip(weights @ points, 0.0, 1.0))


def _patterns(names: Sequence[str]) -> FloatArray:
    """Those at fixed places, `[m, PATTERN_KNOTS, 2]`."""
    share = np.linspace(0.0, 1.0, PATTERN_KNOTS)[:, None]
    angle = 2.0 * np.pi * share
    circle = 0.5 + CIRCLE_RADIUS * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    paths = []
    for name in names:
        places = np.reshape(PLACES.get(name, []), (-1, 2, 1, 2))
        paths += [start + (end - start) * share for start, end in places] or [circle]
    return np.stack(paths)
