"""Gesture files: float32 `[n * L, A]` in `*_actions.npy`, one sequence after another.

Their reading, the checks of the numbers in any array that is read, and the fingerprint of files.
"""

import fnmatch
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.arrays import bfloat16_as_float32, npy_array
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import require_regular_file, sha256_of
from vj2_ddim_plugin.gestures import outside_bounds
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.manifest import choose_files, read_manifest
from vj2_ddim_training.data.settings import READ_ALL, ReadingSettings
from vj2_ddim_training.data.sound import keep_sound, report_skipped

__all__ = ["FlatActions", "find_action_files", "fingerprint_files", "list_folder"]
__all__ += ["read_action_file", "read_flat_actions", "require_finite", "require_in_range"]
__all__ += ["require_replaceable", "settled", "tail_fault"]

ACTION_FILES = "*_actions.npy"
FINGERPRINT_DIGITS = 16
PIECES, PIECE_BYTES = 64, 2**20  # of a larger file that a fingerprint looks at


class FlatActions(NamedTuple):
    """The sequences of one folder or file."""

    actions: NDArray[np.float32]
    files: tuple[Path, ...]
    tail_rows: dict[str, int]
    faults: list[str]
    skipped: dict[str, str]  # broken files that were left out, and why

    @property
    def data_fingerprint(self) -> str:
        """Names the exact files these sequences came from; reads all of them."""
        return fingerprint_files(self.files)


def read_flat_actions(
    path: Path | str,
    spec: ActionSpec,
    split: str | None = None,
    reading: ReadingSettings = READ_ALL,
) -> FlatActions:
    """Read all whole sequences of every `*_actions.npy` of a folder, or of one `.npy` file.

    A file holds `[n * L, A]`, `[..., L, A]` or `[..., L * A]`, of any floating-point type; with a
    horizon, `[n, action_block, A]` or `[n, action_block * A]` as well, whose blocks follow one
    another. `split` is one of a manifest, in the folder or of `reading`; without one the folder
    belongs whole to what it is given for.

    Raises:
        DataError: There is no such file, or, unless it is to be skipped, a file is truncated, of a
            wrong type or width, shorter than one sequence, or holds NaN, infinite or out-of-bounds
            values.
    """
    tail_rows: dict[str, int] = {}
    path = Path(path)
    manifest = read_manifest(path, reading.manifest) if os.path.isdir(path) else None
    files = choose_files(manifest, path, [(file,) for file in find_action_files(path)], split)

    def check(paths: tuple[Path, ...]) -> tuple[Path, NDArray[np.float32]]:
        (file,) = paths
        actions, tail = read_action_file(file, spec)
        require_finite(actions, file)
        require_in_range(actions, spec, file)
        if tail:
            tail_rows[file.name] = tail
        return file, actions

    sound, skipped = keep_sound(files, check, reading)
    report_skipped(path, skipped, len(files))
    faults = [tail_fault(name, rows, spec) for name, rows in tail_rows.items()]
    actions = np.concatenate([actions for _, actions in sound])
    return FlatActions(actions, tuple(file for file, _ in sound), tail_rows, faults, skipped)


def tail_fault(name: str, rows: int, spec: ActionSpec) -> str:
    """The line that reports a tail shorter than one sequence."""
    return f"{name}: the last {rows} rows are less than one sequence of {spec.length}; left out"


def list_folder(folder: Path, pattern: str = "*") -> list[Path]:
    """The entries of a folder whose names match, in sorted order."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError) and not folder.is_symlink()
        why = "no such folder" if missing else f"cannot be listed ({error})"
        raise DataError(f"{folder}: {why}, expected a folder of data") from error
    return [folder / name for name in sorted(fnmatch.filter(names, pattern))]


def find_action_files(path: Path) -> list[Path]:
    """The `*_actions.npy` files of a folder in sorted order, or the file itself."""
    if not os.path.isdir(path):
        expected = f"a folder of {ACTION_FILES}, or one such file"
        return [require_regular_file(path, DataError, expected)]
    if files := list_folder(path, ACTION_FILES):
        return files
    entries = list_folder(path)
    inner = [entry.name for entry in entries if any(entry.glob(ACTION_FILES))]
    if inner:
        hint = f"Its folders {', '.join(inner)} hold some: name one of them"
    else:
        hint = "Make some with `vj2-ddim data generate`"
    found = f"{len(entries)} other entries" if entries else "an empty folder"
    raise DataError(f"{path}: found {found}, expected files named {ACTION_FILES}. {hint}")


def read_action_file(file: Path, spec: ActionSpec) -> tuple[NDArray[np.float32], int]:
    """One file as sequences, unchecked numbers, and the rows of a tail shorter than one."""
    stored = npy_array(file, DataError)
    array = bfloat16_as_float32(stored.open()) if stored.bfloat16 else stored.open()
    length, channels, block = spec.length, spec.num_channels, spec.action_block
    flattened = array.shape[-1:] == (length * channels,)
    rows_only = array.ndim == 2 and array.shape[1] == channels
    blocks = array.shape[1:] in ((block, channels), (block * channels,))
    if not (flattened or rows_only or blocks or array.shape[-2:] == (length, channels)):
        raise DataError(
            f"{file}: found shape {array.shape}, expected [n * {block}, {channels}], "
            f"[n, {block}, {channels}] or [n, {block * channels}] for the channels "
            f"{', '.join(spec.channels)}"
        )
    rows = array.reshape(-1, channels)
    count, tail = divmod(len(rows), length)
    if count == 0:
        raise DataError(
            f"{file}: found {len(rows)} rows, expected at least one sequence of {length}. Remove "
            f"the file, or set the sequence length it was written with"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{file}: found dtype {array.dtype}, expected floating-point numbers. Convert the "
            f"array with .astype('float32') and save it again"
        )
    with np.errstate(over="ignore"):  # a value too large for float32 becomes inf
        whole = np.array(rows[: count * length], dtype=np.float32)
    return settled(whole.reshape(count, length, channels), spec, array.dtype), tail


def settled(actions: NDArray[Any], spec: ActionSpec, recorded: np.dtype[Any]) -> NDArray[Any]:
    """`[..., A]` with what left the bounds because float16 rounds put on them."""
    if recorded.itemsize > 2:
        return actions
    low, high = spec.low_array, spec.high_array
    slack = np.finfo(np.float16).eps * np.maximum(np.abs(low), np.abs(high))
    clipped = np.clip(actions, low, high).astype(actions.dtype)
    return np.where(np.abs(actions - clipped) <= slack, clipped, actions)


def require_finite(rows: FloatArray, file: Path, what: str = "value") -> None:
    """Raise `DataError` unless every number is finite."""
    finite = np.isfinite(rows).reshape(-1, rows.shape[-1]).all(axis=1)
    if not finite.all():
        count = int(np.size(rows) - np.isfinite(rows).sum())
        raise DataError(
            f"{file}: {count} {what}s are NaN or infinite, the first in row "
            f"{int(np.argmin(finite))}. Repair or remove these rows"
        )


def require_in_range(actions: FloatArray, spec: ActionSpec, file: Path) -> None:
    """Raise `DataError` when any of `[..., A]` leaves the spec's bounds."""
    outside = outside_bounds(actions, spec, released_is_zero=True).reshape(-1, spec.num_channels)
    if not outside.any():
        return
    channel = int(np.argmax(outside.any(axis=0)))
    row = int(np.argmax(outside[:, channel]))
    found = actions.reshape(-1, spec.num_channels)[row, channel]
    raise DataError(
        f"{file}: {int(outside.sum())} values are out of bounds; the first in channel "
        f"{spec.channels[channel]!r} is {found:g} in row {row}, expected "
        f"{spec.action_low[channel]:g} to {spec.action_high[channel]:g}. Rescale the data, or set "
        f"the bounds by action_low and action_high"
    )


def fingerprint_files(files: Iterable[Path]) -> str:
    """Fingerprint of some files' names and bytes, which hold the arrays' shapes as well.

    The order in which the files are given and the folder they lie in do not matter. Of files of
    more than 64 MiB, 64 pieces are read that are evenly spread, so that hundreds of gigabytes take
    seconds.
    """
    digest = hashlib.sha256()
    for name, content in sorted((os.fsencode(path.name), _digest_of(path)) for path in files):
        digest.update(b"%s\0%s\n" % (name, content.encode()))
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def _digest_of(path: Path) -> str:
    size = path.stat().st_size
    if size <= PIECES * PIECE_BYTES:
        return sha256_of(path)
    digest = hashlib.sha256(b"%d" % size)
    with open(path, "rb") as stream:
        for number in range(PIECES):
            stream.seek(number * (size - PIECE_BYTES) // (PIECES - 1))
            digest.update(stream.read(PIECE_BYTES))
    return digest.hexdigest()


def require_replaceable(folder: Path, patterns: tuple[str, ...], overwrite: bool) -> None:
    """Make sure that replacing a whole folder loses nothing but an earlier data set."""
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder} is no folder; name one that does not exist yet")
    found = sorted(folder.iterdir())
    if found and not overwrite:
        raise ConfigError(
            f"{folder} is not empty ({len(found)} entries); name another folder, or pass overwrite"
        )
    for path in found:
        if not any(path.match(pattern) for pattern in patterns):
            raise ConfigError(
                f"{folder} holds {path.name}, which is no part of such a data set, and "
                f"overwriting replaces the whole folder; name another folder, or move it away"
            )
