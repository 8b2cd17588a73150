"""What a folder of `*_actions.npy` holds, what is wrong with it, and a picture of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vj2_ddim_plugin.cli.pictures import draw_paths
from vj2_ddim_plugin.errors import DataError, escaped
from vj2_ddim_plugin.gestures import PATH_TOLERANCE, is_valid, outside_bounds, pressed
from vj2_ddim_plugin.gestures.segments import (
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
)
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import (
    find_action_files,
    fingerprint_files,
    read_action_file,
    tail_fault,
)
from vj2_ddim_training.gestures import GESTURE_TYPES, find_gestures, gesture_type

__all__ = ["DataDescription", "describe_data", "find_faults", "plot_description"]

NUM_BINS = 10
REST_TOLERANCE = 1e-6  # coordinates this near 0 are 0, in the planner's units
MAX_PATHS, MAX_TIMELINE = 60, 200  # in the picture


@dataclass(frozen=True)
class DataDescription:
    """Everything `vj2-ddim data inspect` says."""

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
    faults: list[str]
    actions: NDArray[np.float32] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "actions"}


def describe_data(path: Path | str, spec: ActionSpec) -> DataDescription:
    """Look at every `*_actions.npy` of a folder, or at one file. Broken files become faults.

    The fingerprint is of the files that could be read.
    """
    files = find_action_files(Path(path))
    parts, faults = [np.empty((0, spec.length, spec.num_channels), np.float32)], []
    read: list[Path] = []
    for file in files:
        try:
            actions, tail = read_action_file(file, spec)
        except DataError as error:
            faults.append(str(error).replace(escaped(str(file)), escaped(file.name), 1))
            continue
        parts.append(actions)
        read.append(file)
        if tail:
            faults.append(tail_fault(file.name, tail, spec))
        faults += [f"{file.name}: {fault}" for fault in find_faults(actions, spec)]
    actions = np.concatenate(parts)
    distinct = [{sequence.tobytes() for sequence in part} for part in parts[1:]]
    if repeats := sum(map(len, distinct)) - len(set().union(*distinct)):
        faults.append(f"{repeats} sequences are in more than one file")
    usable = np.isfinite(actions).all(axis=(1, 2))
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
        valid_share=float(np.sum(is_valid(actions[usable], spec)) / max(len(actions), 1)),
        data_fingerprint=fingerprint_files(read),
        faults=faults,
        actions=actions,
    )


def _ranges(actions: FloatArray, spec: ActionSpec) -> dict[str, tuple[float, float]]:
    """Lowest and highest finite value of each channel that has one."""
    values = {name: actions[..., index] for index, name in enumerate(spec.channels)}
    finite = {name: of[np.isfinite(of)] for name, of in values.items()}
    return {name: (float(of.min()), float(of.max())) for name, of in finite.items() if of.size}


def _durations(actions: FloatArray, spec: ActionSpec) -> dict[str, Any]:
    if spec.press_channel is None:
        return {}
    gestures = find_gestures(actions, spec)
    steps = (gestures.stop - gestures.start)[gestures.has_press]
    if steps.size == 0:
        return {}
    counts, edges = np.histogram(steps, bins=NUM_BINS)
    middle = {"median": float(np.median(steps)), "mean": float(steps.mean())}
    histogram = {"counts": counts.tolist(), "edges": edges.tolist()}
    return {"shortest": int(steps.min()), **middle, "longest": int(steps.max()), **histogram}


def _type_counts(actions: FloatArray, spec: ActionSpec) -> dict[str, int]:
    if spec.press_channel is None or len(spec.coordinate_indices) != 2:
        return {}
    types = gesture_type(actions, spec)
    return {name: int(np.sum(types == name)) for name in GESTURE_TYPES}


def find_faults(actions: FloatArray, spec: ActionSpec) -> list[str]:
    """Say what is wrong with some sequences."""
    finite = np.isfinite(actions).all(axis=(1, 2))
    numbers = np.arange(len(actions))
    broken, whole = numbers[~finite], numbers[finite]
    found = [("hold NaN or infinite values", broken)]
    found += [(trouble, whole[bad]) for trouble, bad in _troubles(actions[finite], spec)]
    return [
        f"{len(bad)} of {len(actions)} sequences {trouble} (the first is number {bad[0]})"
        for trouble, bad in found
        if len(bad)
    ]


def _troubles(actions: FloatArray, spec: ActionSpec) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each trouble of finite sequences `[n, L, A]`, and those `[n]` that have it."""
    outside = np.asarray(outside_bounds(actions, spec, released_is_zero=True).any(axis=1))
    for index, channel in enumerate(spec.channels):
        yield f"leave the bounds of channel {channel!r}", outside[:, index]
    if spec.press_channel is not None:
        blocks = actions.reshape(-1, spec.action_block, spec.num_channels)
        for trouble, bad in _press_troubles(blocks, spec):
            yield trouble, np.asarray(bad.reshape(-1, spec.horizon).any(axis=1))
    keys = [sequence.tobytes() for sequence in actions]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    repeats = [first[key] != number for number, key in enumerate(keys)]
    yield "repeat an earlier one", np.array(repeats, dtype=np.bool_)


def _press_troubles(
    blocks: FloatArray, spec: ActionSpec
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The troubles of presses, and the blocks `[m]` that have them."""
    press = blocks[..., spec.press_index]
    down = pressed(blocks, spec)
    coordinates = blocks[..., spec.coordinate_indices]
    yield "have a press other than 0 and 1", np.asarray((~np.isin(press, (0.0, 1.0))).any(axis=1))
    moved = np.abs(coordinates).max(axis=2) > REST_TOLERANCE
    yield "have coordinates other than 0 where released", np.asarray((moved & ~down).any(axis=1))
    segments = count_segments(down)
    if spec.min_press_steps > 0:
        yield "have a block without a press", segments == 0
    yield "have several press segments in a block", segments > 1
    if spec.path_knots is not None:
        start, stop = longest_segment(down)
        knots = fit_knots(coordinates, start, stop, spec.path_knots)
        path = interpolate_knots(knots, start, stop, spec.action_block)
        steps = np.arange(spec.action_block)
        on_path = (steps >= start[:, None]) & (steps < stop[:, None])
        span = (spec.high_array - spec.low_array)[spec.coordinate_indices]
        drift = (np.abs(path - coordinates) / span).max(axis=2)
        shape = "straight" if spec.path_knots == 2 else f"through {spec.path_knots} even knots"
        crooked = ((drift > PATH_TOLERANCE) & on_path).any(axis=1)
        yield f"have a path that is not {shape}", np.asarray(crooked)


def plot_description(description: DataDescription, spec: ActionSpec) -> Figure:
    """Draw what `describe_data` found; panels without anything to show stay empty."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    paths, durations, types, timeline = figure.subplots(2, 2).flat
    title = escaped(f"{description.path}: {description.num_sequences} sequences")
    figure.suptitle(title, parse_math=False)
    actions = description.actions
    if spec.press_channel is not None and len(spec.coordinate_indices) == 2:
        draw_paths(paths, actions[:MAX_PATHS], spec)
    paths.set_title(f"the first {min(MAX_PATHS, len(actions))} gestures on the screen")
    durations.set(title="press duration", xlabel="steps", ylabel="gestures")
    if found := description.durations:
        edges = np.array(found["edges"])
        durations.bar(edges[:-1], found["counts"], np.diff(edges), align="edge")
    types.bar(list(description.gesture_types), list(description.gesture_types.values()))
    types.set(title="gesture types", ylabel="gestures")
    if spec.press_channel is not None and len(actions):
        down = pressed(actions[:MAX_TIMELINE], spec).astype(np.float64)
        extent = (0.0, spec.length / spec.rate_hz, len(down), 0.0)
        look: Any = {"aspect": "auto", "cmap": "Greys", "vmin": 0, "vmax": 1}
        timeline.imshow(down, extent=extent, interpolation="nearest", **look)
    timeline.set(title="pressed (dark) over time", xlabel="seconds", ylabel="sequence")
    return figure
