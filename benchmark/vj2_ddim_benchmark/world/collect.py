"""Trajectories of touched screens: collected by policies, kept in HDF5 files; and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np

from vj2_ddim_benchmark.progress import Progress
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.policies import NEAR_MISS_SHARE, mixed_policy
from vj2_ddim_benchmark.world.problems import screens_with
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import NUM_STEPS, Actions
from vj2_ddim_benchmark.world.widgets import WIDGETS
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = [
    "Transitions", "collect_transitions", "counted", "load_transitions", "measure_speed",
    "save_transitions",
]  # fmt: skip

FORMAT = "vj2-ddim touch screen transitions 1"
DATASETS = {"frames": (5, "u"), "actions": (4, "f"), "states": (3, "i")}  # dimensions, type
SCRIPTED_SHARE = 0.7  # of the gestures, unless told; the others are random
PURPOSE = 2  # keeps the randomness apart from that of problems with the same seed


@dataclass(frozen=True)
class Transitions:
    """n trajectories of T screens each, one action block between any two."""

    frames: Images  # [n, T, H, W, 3]
    actions: Actions  # [n, T-1, 250, 3]
    states: IntArray  # [n, T, S]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        num, length = self.frames.shape[:2]
        expected = {"actions": (num, length - 1, NUM_STEPS, 3), "states": (num, length)}
        found = {"actions": self.actions.shape, "states": self.states.shape[:2]}
        if found != expected:
            raise DataError(
                f"frames of shape {self.frames.shape} go with {expected}; found {found}"
            )


def collect_transitions(
    num_trajectories: int,
    *,
    horizon: int,
    split: str,
    seed: int,
    scripted_share: float = SCRIPTED_SHARE,
    near_miss_share: float = NEAR_MISS_SHARE,
    size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Transitions:
    """Touch fresh screens and record what happens; no kind of widget is much rarer than another.

    Args:
        num_trajectories: n.
        horizon: Action blocks in each trajectory; it has one screen more.
        split: `"train"`, `"validation"` or `"test"`.
        seed: The same seed gives the same trajectories.
        scripted_share: Share of gestures made by the scripted policy; the others are random.
        near_miss_share: Share of the scripted gestures that are mistakes.
        size: Width and height of the frames, in pixels.
        progress: Called after each round with the number of transitions it added.

    Raises:
        ConfigError: The split is unknown, or a number is out of range.
    """
    if not 0.0 <= scripted_share <= 1.0:
        raise ConfigError(f"scripted_share must be in [0, 1]; found {scripted_share}")
    rng = seeded(split, seed, PURPOSE, num_trajectories=num_trajectories, horizon=horizon)
    active = np.flatnonzero([widget.active for widget in WIDGETS])
    kinds = np.resize(rng.permutation(active), num_trajectories)
    pool, rows = screens_with(kinds, split, seed, size)
    screens = pool.select(rng.permutation(rows))
    frames = np.empty((num_trajectories, horizon + 1, size, size, 3), np.uint8)
    actions = np.empty((num_trajectories, horizon, NUM_STEPS, 3), np.float32)
    states = np.empty((num_trajectories, horizon + 1, screens.state.shape[1]), np.int64)
    frames[:, 0], states[:, 0] = screens.render(), screens.state
    for step in range(horizon):
        actions[:, step] = mixed_policy(screens, scripted_share, rng, near_miss_share)
        screens = screens.execute(actions[:, step])
        frames[:, step + 1], states[:, step + 1] = screens.render(), screens.state
        if progress is not None:
            progress(num_trajectories)
    return Transitions(frames, actions, states)


def counted(progress: Progress, phase: str, total: int) -> Callable[[int], None]:
    """A progress for `collect_transitions` that adds up, and tells how many of a total are done."""
    done = 0

    def count(added: int) -> None:
        nonlocal done
        done += added
        progress(phase, done, total)

    return count


def save_transitions(
    path: Path | str, transitions: Transitions, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write trajectories to an HDF5 file, whole or not at all; attributes hold their provenance."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
        for name in DATASETS:
            values = getattr(transitions, name)
            chunks = (1, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, compression="lzf")


def load_transitions(path: Path | str) -> Transitions:
    """Read trajectories from an HDF5 file; a `DataError` if it holds something else."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(
                    f"{path}: found format {file.attrs.get('format')!r}, expected {FORMAT!r}; "
                    f"collect the data anew"
                )
            arrays = {name: file[name][:] for name in DATASETS}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; collect the data first") from error
    except (OSError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a whole HDF5 file of transitions ({error}); collect the data anew"
        ) from error
    for name, (num_dimensions, kind) in DATASETS.items():
        array = arrays[name]
        if array.ndim != num_dimensions or array.dtype.kind != kind:
            raise DataError(
                f"{path}: dataset {name} must have {num_dimensions} dimensions and type {kind}; "
                f"found {array.dtype} of shape {array.shape}"
            )
    try:
        return Transitions(**arrays)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def measure_speed(
    num_screens: int = 512, *, size: int = 64, num_repeats: int = 9, seed: int = 0
) -> dict[str, Any]:
    """Transitions a second of `execute` and `render`, medians over the repeats after a first run.

    Screens and gestures are drawn before; numpy uses one thread for all of it. `wall` is the clock
    on the wall; `cpu` is the process's time, which tells on a busy machine how fast one core to
    itself would be.
    """
    if num_repeats < 1:
        raise ConfigError(f"num_repeats must be at least 1; found {num_repeats}")
    screens = TouchScreen.generate(num_screens, split="train", seed=seed, size=size)
    actions = mixed_policy(screens, SCRIPTED_SHARE, np.random.default_rng(seed))
    repeats: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(num_repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        screens.execute(actions).render()
        repeats["cpu"].append(time.process_time() - cpu)
        repeats["wall"].append(time.perf_counter() - wall)
    repeats = {clock: seconds[1:] for clock, seconds in repeats.items()}
    rates = {clock: num_screens / median(seconds) for clock, seconds in repeats.items()}
    asked = {"num_screens": num_screens, "size": size, "num_repeats": num_repeats, "seed": seed}
    return {**asked, "transitions_per_second": rates, "repeats": repeats}
