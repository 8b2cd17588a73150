"""The flat `*_actions.npy` format: float32 `[n * L, A]`, one sequence after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_training.data.fingerprint import fingerprint_files
from vj2_ddim_training.data.values import require_finite, require_in_range, to_float32

__all__ = ["ActionFile", "FlatActions", "find_action_files", "load_npy", "read_action_file"]
__all__ += ["read_flat_actions"]

ACTION_FILES = "*_actions.npy"


class ActionFile(NamedTuple):
    """One file: `actions` float32 `[n, L, A]`, and the rows of a tail shorter than L."""

    actions: NDArray[np.float32]
    tail_rows: int


@dataclass(frozen=True)
class FlatActions:
    """The sequences of one folder or file.

    Attributes:
        actions: float32 `[n, L, A]`, in the planner's units, files in sorted order.
        files: The files that were read.
        tail_rows: For each file that ends in a part of a sequence, by name: the rows left over.
        problems: One line for each thing that was left out.
    """

    actions: NDArray[np.float32]
    files: tuple[Path, ...]
    tail_rows: dict[str, int]
    problems: list[str]

    @cached_property
    def data_fingerprint(self) -> str:
        """Names the exact files these sequences came from."""
        return fingerprint_files(self.files)


def read_flat_actions(
    path: Path | str, spec: ActionSpec, *, allow_out_of_range: bool = False
) -> FlatActions:
    """Read every `*_actions.npy` of a folder, or one file.

    A file holds `[n * L, A]`, `[..., L, A]` or `[..., L * A]`, of any floating-point type.

    Args:
        path: A folder, or one `.npy` file of any name.
        spec: Gives L, A and the bounds.
        allow_out_of_range: Accept values outside the bounds.

    Returns:
        All whole sequences, and what was left over.

    Raises:
        DataError: There is no such file, or a file is truncated, of a wrong type or width, shorter
            than one sequence, or holds NaN, infinite or out-of-bounds values.
    """
    files = find_action_files(Path(path))
    parts, tail_rows = [], {}
    for file in files:
        actions, tail = read_action_file(file, spec)
        require_finite(actions, file)
        if not allow_out_of_range:
            require_in_range(actions, spec, file)
        parts.append(actions)
        if tail:
            tail_rows[file.name] = tail
    problems = [tail_problem(name, rows, spec) for name, rows in tail_rows.items()]
    return FlatActions(np.concatenate(parts), tuple(files), tail_rows, problems)


def tail_problem(name: str, rows: int, spec: ActionSpec) -> str:
    """The line that reports a tail shorter than one sequence."""
    return f"{name}: the last {rows} rows are less than one sequence of {spec.length}; left out"


def find_action_files(path: Path) -> list[Path]:
    """The `*_actions.npy` files of a folder in sorted order, or the file itself.

    Raises:
        DataError: There are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; expected a folder of {ACTION_FILES}")
    files = sorted(path.glob(ACTION_FILES))
    if files:
        return files
    entries = list(path.iterdir())
    inner = sorted(entry.name for entry in entries if any(entry.glob(ACTION_FILES)))
    if inner:
        hint = f"Its folders {', '.join(inner)} hold some: name one of them"
    else:
        hint = "Make some with `vj2-ddim data generate`"
    found = f"{len(entries)} other entries" if entries else "an empty folder"
    raise DataError(f"{path}: found {found}, expected files named {ACTION_FILES}. {hint}")


def load_npy(file: Path) -> NDArray[Any]:
    """Memory-map one `.npy` file, read-only.

    Raises:
        DataError: It is missing, truncated, holds Python objects, or is not an `.npy` file.
    """
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{file}: cannot be read as an .npy array of numbers ({error}). It may be truncated, "
            f"hold Python objects, or be of another format: write it again with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{file}: found an .npz archive, expected one array from numpy.save")
    return array


def read_action_file(file: Path, spec: ActionSpec) -> ActionFile:
    """Read one file into sequences; the numbers themselves are not checked.

    Raises:
        DataError: It cannot be read, is of a wrong type or width, or has no whole sequence.
    """
    array = load_npy(file)
    length, channels = spec.length, spec.num_channels
    flattened = array.shape[-1:] == (length * channels,)
    rows_only = array.ndim == 2 and array.shape[1] == channels
    if not (flattened or rows_only or array.shape[-2:] == (length, channels)):
        raise DataError(
            f"{file}: found shape {array.shape}, expected [n * {length}, {channels}], "
            f"[n, {length}, {channels}] or [n, {length * channels}] for the channels "
            f"{', '.join(spec.channels)}"
        )
    rows = array.reshape(-1, channels)
    count, tail = divmod(len(rows), length)
    if count == 0:
        raise DataError(
            f"{file}: found {len(rows)} rows, expected at least one sequence of {length}. Remove "
            f"the file, or set the sequence length it was written with"
        )
    whole = to_float32(rows[: count * length], file)
    return ActionFile(whole.reshape(count, length, channels), tail)
