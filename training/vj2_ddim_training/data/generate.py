"""Make gestures as VJ2-GUI's augmentation does: one straight press a sequence, then write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.data.folders import require_replaceable

__all__ = ["GESTURE_KINDS", "generate_gestures", "write_gestures"]

GESTURE_KINDS = ("click", "swipe", "mixed")


@dataclass(frozen=True)
class _Gestures:
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
    *,
    kind: str = "mixed",
    min_duration_share: float = 0.02,
    max_duration_share: float = 0.3,
    sequence_length: int = 250,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Random gestures `(x, y, press)`, each one straight press; x = y = 0 where released.

    Start, end and duration (whole steps) are uniform, and so is the first step among those that
    let the gesture fit. A duration of 0 is a sequence without a press.

    Args:
        num: Sequences n.
        kind: `click` stays in one place; `swipe` goes from any point to any other; `mixed` is, with
            equal chances, a click or a horizontal, vertical or diagonal swipe.
        min_duration_share: Shortest press, as a share of the sequence (rounded down to steps).
        max_duration_share: Longest press, likewise.
        sequence_length: Steps L.
        rng: Source of randomness.

    Returns:
        float32 `[n, L, 3]`, coordinates in [0, 1].

    Raises:
        ConfigError: A setting is negative, unknown, or cannot go with another.
    """
    gestures = _choose(num, kind, min_duration_share, max_duration_share, sequence_length, rng)
    return gestures.draw(slice(None), sequence_length)


def write_gestures(
    out_dir: Path | str,
    num: int,
    *,
    kind: str = "mixed",
    min_duration_share: float = 0.02,
    max_duration_share: float = 0.3,
    sequence_length: int = 250,
    sequences_per_file: int = 100,
    overwrite: bool = False,
    rng: np.random.Generator,
) -> list[Path]:
    """Write the sequences of `generate_gestures` as `batch_{i:06d}_actions.npy`, `[n * L, 3]`.

    The folder appears whole or not at all. The sequences do not depend on `sequences_per_file`.

    Args:
        out_dir: Folder to make.
        num: Sequences in all.
        kind: See `generate_gestures`.
        min_duration_share: Likewise.
        max_duration_share: Likewise.
        sequence_length: Likewise.
        sequences_per_file: The last file may have fewer.
        overwrite: Replace a folder that holds such files and nothing else.
        rng: Source of randomness.

    Returns:
        The files, in order.

    Raises:
        ConfigError: A setting cannot work, or the folder holds something that would be lost.
    """
    if sequences_per_file < 1:
        raise ConfigError(f"sequences_per_file must be at least 1; found {sequences_per_file}")
    out_dir = Path(out_dir).resolve()
    require_replaceable(out_dir, ("batch_*_actions.npy",), overwrite)
    gestures = _choose(num, kind, min_duration_share, max_duration_share, sequence_length, rng)
    with atomic_path(out_dir, folder=True) as temporary:
        for index, first in enumerate(range(0, num, sequences_per_file)):
            drawn = gestures.draw(slice(first, first + sequences_per_file), sequence_length)
            np.save(temporary / f"batch_{index:06d}_actions.npy", drawn.reshape(-1, 3))
    return sorted(out_dir.iterdir())


def _choose(
    num: int,
    kind: str,
    min_share: float,
    max_share: float,
    sequence_length: int,
    rng: np.random.Generator,
) -> _Gestures:
    """Draw what makes each gesture."""
    _check_settings(num, kind, min_share, max_share, sequence_length)
    shortest, longest = int(min_share * sequence_length), int(max_share * sequence_length)
    start, end = rng.random((num, 2)), rng.random((num, 2))
    if kind == "click":
        moves = np.zeros((num, 2), bool)
    elif kind == "swipe":
        moves = np.ones((num, 2), bool)
    else:  # a click, horizontal, vertical or diagonal: whether x moves, whether y moves
        choice = rng.integers(4, size=num)
        moves = np.stack([choice % 2 == 1, choice >= 2], axis=1)
    duration = rng.integers(shortest, longest, size=num, endpoint=True)
    first_step = rng.integers(0, sequence_length - duration, endpoint=True)
    return _Gestures(start, np.where(moves, end, start), first_step, duration)


def _check_settings(
    num: int, kind: str, min_share: float, max_share: float, sequence_length: int
) -> None:
    """Refuse settings that cannot work."""
    if num < 1 or sequence_length < 1:
        raise ConfigError(
            f"the number of sequences and sequence_length must be at least 1; found {num} and "
            f"{sequence_length}"
        )
    if kind not in GESTURE_KINDS:
        raise ConfigError(f"kind {kind!r} is unknown; use one of {', '.join(GESTURE_KINDS)}")
    if not 0.0 <= min_share <= max_share <= 1.0:
        raise ConfigError(
            f"need 0 <= min_duration_share <= max_duration_share <= 1; found {min_share} and "
            f"{max_share}. They are shares of the sequence: 0.02 is 2 %"
        )
