"""Make gestures as VJ2-GUI's augmentation does: one straight press a sequence, then write them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.config import GestureSettings
from vj2_ddim_training.data.gesture_files import require_replaceable

__all__ = ["generate_gestures", "write_gestures"]


class _Gestures(NamedTuple):
    """n gestures before they are drawn: points `[n, 2]`, first step and duration `[n]`."""

    start: FloatArray
    end: FloatArray
    first_step: IntArray
    duration: IntArray

    def draw(self, rows: slice, sequence_length: int) -> NDArray[np.float32]:
        """Some of the gestures as float32 `[len(rows), L, 3]`."""
        duration = self.duration[rows, None]
        step = np.arange(sequence_length) - self.first_step[rows, None]
        pressed = (step >= 0) & (step < duration)
        share = (step / np.maximum(duration - 1, 1))[..., None]
        start, end = self.start[rows, None], self.end[rows, None]
        points = np.where(pressed[..., None], start + (end - start) * share, 0.0)
        return np.concatenate([points, pressed[..., None]], axis=2).astype(np.float32)


def generate_gestures(
    num: int,
    settings: GestureSettings | None = None,
    *,
    rng: np.random.Generator,
    **changes: Any,  # noqa: ANN401
) -> NDArray[np.float32]:
    """Random gestures `(x, y, press)`, each one straight press; x = y = 0 where released.

    Start, end and duration (whole steps) are uniform, and so is the first step among those that
    let the gesture fit. A duration of 0 is a sequence without a press.

    Args:
        num: Sequences n.
        settings: What they are.
        rng: Source of randomness.
        **changes: Fields of `GestureSettings` that are to be others.

    Returns:
        float32 `[n, L, 3]`, coordinates in [0, 1].
    """
    settings = replace(settings or GestureSettings(), **changes)
    return _choose(num, settings, rng).draw(slice(None), settings.sequence_length)


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
    out_dir = Path(out_dir).resolve()
    require_replaceable(out_dir, ("batch_*_actions.npy",), overwrite)
    gestures = _choose(num, settings, rng)
    with atomic_path(out_dir, folder=True) as temporary:
        for index, first in enumerate(range(0, num, sequences_per_file)):
            rows = slice(first, first + sequences_per_file)
            drawn = gestures.draw(rows, settings.sequence_length)
            np.save(temporary / f"batch_{index:06d}_actions.npy", drawn.reshape(-1, 3))
    return sorted(out_dir.iterdir())


def _choose(num: int, settings: GestureSettings, rng: np.random.Generator) -> _Gestures:
    if num < 1:
        raise ConfigError(f"the number of sequences must be at least 1; found {num}")
    length = settings.sequence_length
    shortest = int(settings.min_duration_share * length)
    longest = int(settings.max_duration_share * length)
    start, end = rng.random((num, 2)), rng.random((num, 2))
    if settings.kind == "click":
        moves = np.zeros((num, 2), bool)
    elif settings.kind == "swipe":
        moves = np.ones((num, 2), bool)
    else:  # a click, horizontal, vertical or diagonal: whether x moves, whether y moves
        choice = rng.integers(4, size=num)
        moves = np.stack([choice % 2 == 1, choice >= 2], axis=1)
    duration = rng.integers(shortest, longest, size=num, endpoint=True)
    first_step = rng.integers(0, length - duration, endpoint=True)
    return _Gestures(start, np.where(moves, end, start), first_step, duration)
