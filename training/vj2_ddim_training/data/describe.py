"""What a folder of `*_actions.npy` holds, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.data.fingerprint import fingerprint_files
from vj2_ddim_training.data.flat import find_action_files, read_action_file, tail_problem
from vj2_ddim_training.data.problems import find_problems
from vj2_ddim_training.measures.gestures import GESTURE_TYPES, find_gestures, gesture_type

__all__ = ["DataDescription", "describe_data"]

NUM_BINS = 10


@dataclass(frozen=True)
class DataDescription:
    """Everything `vj2-ddim data inspect` says.

    Attributes:
        path: What was looked at.
        num_files: Files found, the broken ones included.
        num_sequences: Whole sequences in the readable files.
        sequence_length: Steps L.
        rate_hz: Steps a second.
        channel_ranges: For each channel its lowest and highest finite value.
        durations: Pressed steps from the first to the last, over the blocks with a press:
            `shortest`, `median`, `mean`, `longest`, and a histogram as `counts` and bin `edges`.
        gesture_types: Number of blocks of each type.
        valid_share: Share of sequences that keep every rule of the spec, press durations included.
        data_fingerprint: Names the exact files.
        problems: One line for each trouble, beginning with the file's name.
        actions: float32 `[n, L, A]`, for pictures; not part of `to_dict`.
    """

    path: str
    num_files: int
    num_sequences: int
    sequence_length: int
    rate_hz: float
    channel_ranges: dict[str, tuple[float, float]]
    durations: dict[str, Any]
    gesture_types: dict[str, int]
    valid_share: float
    data_fingerprint: str
    problems: list[str]
    actions: NDArray[np.float32] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "actions"}


def describe_data(path: Path | str, spec: ActionSpec) -> DataDescription:
    """Look at every `*_actions.npy` of a folder, or at one file. Broken files become problems.

    Args:
        path: A folder or a file.
        spec: The rules.

    Raises:
        DataError: There is no such folder, or it has no such files.
    """
    files = find_action_files(Path(path))
    parts, problems = [np.empty((0, spec.length, spec.num_channels), np.float32)], []
    for file in files:
        try:
            actions, tail = read_action_file(file, spec)
        except DataError as error:
            problems.append(f"{file.name}: {str(error).removeprefix(f'{file}: ')}")
            continue
        parts.append(actions)
        if tail:
            problems.append(tail_problem(file.name, tail, spec))
        problems += [f"{file.name}: {problem}" for problem in find_problems(actions, spec)]
    actions = np.concatenate(parts)
    problems += _repeats_across_files(parts[1:])
    finite = np.nan_to_num(actions, nan=0.0, posinf=0.0, neginf=0.0)
    return DataDescription(
        path=str(path),
        num_files=len(files),
        num_sequences=len(actions),
        sequence_length=spec.length,
        rate_hz=spec.rate_hz,
        channel_ranges=_ranges(actions, spec),
        durations=_durations(finite, spec),
        gesture_types=_type_counts(finite, spec),
        valid_share=_valid_share(actions, spec),
        data_fingerprint=fingerprint_files(files),
        problems=problems,
        actions=actions,
    )


def _repeats_across_files(parts: list[NDArray[np.float32]]) -> list[str]:
    """Sequences that another file holds too; repeats within a file are that file's problem."""
    distinct = [{sequence.tobytes() for sequence in part} for part in parts]
    repeats = sum(map(len, distinct)) - len(set().union(*distinct))
    return [f"{repeats} sequences are in more than one file"] if repeats else []


def _ranges(actions: FloatArray, spec: ActionSpec) -> dict[str, tuple[float, float]]:
    """Lowest and highest finite value of each channel that has one."""
    ranges = {}
    for index, name in enumerate(spec.channels):
        values = actions[..., index]
        values = values[np.isfinite(values)]
        if values.size:
            ranges[name] = (float(values.min()), float(values.max()))
    return ranges


def _durations(actions: FloatArray, spec: ActionSpec) -> dict[str, Any]:
    """Statistics of press durations in steps; empty without a press."""
    if spec.press_channel is None:
        return {}
    gestures = find_gestures(actions, spec)
    steps = (gestures.stop - gestures.start)[gestures.has_press]
    if steps.size == 0:
        return {}
    counts, edges = np.histogram(steps, bins=NUM_BINS)
    return {
        "shortest": int(steps.min()),
        "median": float(np.median(steps)),
        "mean": float(steps.mean()),
        "longest": int(steps.max()),
        "counts": counts.tolist(),
        "edges": edges.tolist(),
    }


def _type_counts(actions: FloatArray, spec: ActionSpec) -> dict[str, int]:
    """Blocks of each gesture type; empty when these are not touches."""
    if spec.press_channel is None or len(spec.coordinate_indices) != 2:
        return {}
    types = gesture_type(actions, spec)
    return {name: int(np.sum(types == name)) for name in GESTURE_TYPES}


def _valid_share(actions: FloatArray, spec: ActionSpec) -> float:
    """Share of sequences that are valid; 0 when there are none."""
    if len(actions) == 0:
        return 0.0
    usable = np.isfinite(actions).all(axis=(1, 2))
    return float(np.sum(spec.is_valid(actions[usable])) / len(actions))
