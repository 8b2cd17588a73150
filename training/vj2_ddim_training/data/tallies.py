"""What is counted of actions and latents while a data set goes by, a part at a time."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.gestures import PATH_TOLERANCE, is_valid, outside_bounds, pressed
from vj2_ddim_plugin.gestures.segments import (
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
)
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.gestures import GESTURE_TYPES, find_gestures, gesture_type

__all__ = ["ActionTally", "LatentTally"]

NUM_BINS = 10
REST_TOLERANCE = 1e-6  # coordinates this near 0 are 0, in the planner's units
MAX_KEPT = 200  # sequences, for the picture
MAX_STATES = 32  # whose tokens' norms are kept for it
NORMED = 0.05  # a layer-normed token's mean is this near 0 and its std this near 1
REPEATS = "repeat an earlier one"
HABITS = ("have a block without", "have several press", "have a path", REPEATS)
"""Troubles of a gesture file that recorded trajectories may well have."""


class ActionTally:
    """Sequences `[n, L, A]`: how many, their ranges, presses and types, and what is wrong."""

    def __init__(self, spec: ActionSpec) -> None:
        self.spec, self.num_sequences, self.num_valid = spec, 0, 0
        self._ranges = np.outer([np.inf, -np.inf], np.ones(spec.num_channels))  # lowest, highest
        self._durations = np.zeros(spec.action_block + 1, np.int64)  # presses of so many steps
        self._types: Counter[str] = Counter()
        self._troubles: dict[str, tuple[int, int]] = {}  # of a file: how many, and the first
        self._keys: list[NDArray[np.int64]] = []  # of its sequences
        self._distinct: list[NDArray[np.int64]] = []  # of each file before
        self.kept = np.empty((0, spec.length, spec.num_channels), np.float32)

    def add(self, actions: FloatArray) -> None:
        """Look at some sequences of the file at hand."""
        begun, spec = sum(map(len, self._keys)), self.spec
        finite = np.isfinite(actions)
        for bound, extreme, least in zip(
            self._ranges, (np.minimum, np.maximum), (np.inf, -np.inf), strict=True
        ):
            found = extreme.reduce(np.where(finite, actions, least), axis=(0, 1), initial=least)
            extreme(bound, found, out=bound)
        for trouble, bad in _all_troubles(actions, spec):
            if len(bad):
                count, first = self._troubles.get(trouble, (0, begun + int(bad[0])))
                self._troubles[trouble] = count + len(bad), first
        self._keys.append(np.array([hash(each.tobytes()) for each in actions], np.int64))
        self.num_sequences += len(actions)
        self.num_valid += int(is_valid(actions[finite.all(axis=(1, 2))], spec).sum())
        self.kept = np.concatenate([self.kept, actions[: MAX_KEPT - len(self.kept)]])
        self._add_presses(np.where(finite, actions, 0.0))

    def _add_presses(self, actions: FloatArray) -> None:
        spec = self.spec
        if spec.press_channel is None:
            return
        gestures = find_gestures(actions, spec)
        steps = (gestures.stop - gestures.start)[gestures.has_press]
        self._durations += np.bincount(steps, minlength=len(self._durations))
        if len(spec.coordinate_indices) == 2:
            self._types.update(gesture_type(actions, spec).tolist())

    def faults_of_file(self) -> list[str]:
        """What is wrong with the sequences since the file before."""
        keys = np.concatenate([*self._keys, np.empty(0, np.int64)])
        distinct, first = np.unique(keys, return_index=True)
        if repeats := len(keys) - len(distinct):
            again = np.setdiff1d(np.arange(len(keys)), first)[0]
            self._troubles[REPEATS] = repeats, int(again)
        self._distinct.append(distinct)
        found = [
            f"{count} of {len(keys)} sequences {trouble} (the first is number {first})"
            for trouble, (count, first) in self._troubles.items()
        ]
        self._troubles, self._keys = {}, []
        return found

    @property
    def num_shared(self) -> int:
        """Sequences that are in more than one file, once for each file beyond the first."""
        keys = np.concatenate([*self._distinct, np.empty(0, np.int64)])
        return len(keys) - len(np.unique(keys))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: counts, ranges of the channels, types and presses in steps."""
        pairs = zip(self.spec.channels, *self._ranges.tolist(), strict=True)
        typed = self.spec.press_channel is not None and len(self.spec.coordinate_indices) == 2
        durations: dict[str, Any] = {}
        steps = np.repeat(np.arange(len(self._durations)), self._durations)
        if len(steps):
            counts, edges = np.histogram(steps, NUM_BINS)
            durations = {"shortest": int(steps[0]), "median": float(np.median(steps))}
            durations |= {"mean": float(steps.mean()), "longest": int(steps[-1])}
            durations |= {"counts": counts.tolist(), "edges": edges.tolist()}
        return {
            "num_sequences": self.num_sequences,
            "channel_ranges": {name: (low, high) for name, low, high in pairs if low <= high},
            "durations": durations,
            "gesture_types": {name: self._types[name] for name in GESTURE_TYPES} if typed else {},
            "valid_share": self.num_valid / max(self.num_sequences, 1),
        }


class LatentTally:
    """States `[n, N, D]`: their range, what is not finite, and whether tokens are layer-normed."""

    def __init__(self) -> None:
        self.num_states = self.num_tokens = self.num_normed = self.num_not_finite = 0
        self._low, self._high, self._std = np.inf, -np.inf, 0.0
        self.norms: FloatArray | None = None  # [states, N] of the first ones

    def add(self, states: FloatArray) -> int:
        """Look at some states; how many of them hold NaN or infinite values."""
        finite = np.isfinite(states.sum(axis=(1, 2)))
        finite[~finite] = np.isfinite(states[~finite]).all(axis=(1, 2))
        sound = states if finite.all() else states[finite]
        self.num_states += len(states)
        self.num_not_finite += len(states) - len(sound)
        if len(sound):
            self._low = min(self._low, float(sound.min()))
            self._high = max(self._high, float(sound.max()))
            width = sound.shape[-1]
            mean = sound.mean(axis=-1)
            square = np.einsum("tnd,tnd->tn", sound, sound)
            std = np.sqrt(np.maximum(square / width - mean**2, 0.0))
            self._std += float(std.sum())
            self.num_tokens += mean.size
            normed = (np.abs(mean) < NORMED) & (np.abs(std - 1.0) < NORMED)
            self.num_normed += int(normed.sum())
            if self.norms is None:
                self.norms = np.sqrt(square[:MAX_STATES])
        return len(states) - len(sound)

    @property
    def looks_normed(self) -> bool:
        """Whether nearly every token has mean 0 and standard deviation 1."""
        return self.num_tokens > 0 and self.num_normed >= 0.999 * self.num_tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found: dict[str, Any] = {"num_states": self.num_states}
        if self.num_tokens:
            found |= {"range": [self._low, self._high], "token_std": self._std / self.num_tokens}
            found |= {"share_normed": self.num_normed / self.num_tokens}
        return {**found, "num_not_finite": self.num_not_finite, "looks_normed": self.looks_normed}


def _all_troubles(actions: FloatArray, spec: ActionSpec) -> Iterator[tuple[str, NDArray[Any]]]:
    """Each trouble of sequences, and the numbers of those that have it."""
    finite = np.isfinite(actions).all(axis=(1, 2))
    numbers = np.arange(len(actions))
    yield "hold NaN or infinite values", numbers[~finite]
    for trouble, bad in _troubles(actions[finite], spec):
        yield trouble, numbers[finite][bad]


def _troubles(actions: FloatArray, spec: ActionSpec) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each trouble of finite sequences `[n, L, A]`, and those `[n]` that have it."""
    outside = np.asarray(outside_bounds(actions, spec, released_is_zero=True).any(axis=1))
    for index, channel in enumerate(spec.channels):
        yield f"leave the bounds of channel {channel!r}", outside[:, index]
    if spec.press_channel is not None:
        blocks = actions.reshape(-1, spec.action_block, spec.num_channels)
        for trouble, bad in _press_troubles(blocks, spec):
            yield trouble, np.asarray(bad.reshape(-1, spec.horizon).any(axis=1))


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
