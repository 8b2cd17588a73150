"""Trajectories of touched screens: collected by policies, and kept in HDF5 files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.policies import NEAR_MISS_SHARE, mixed_policy
from vj2_ddim_benchmark.world.problems import screens_with
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import NUM_STEPS, Actions
from vj2_ddim_benchmark.world.widgets import WIDGETS
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures.segments import IntArray

FORMAT = "vj2-ddim touch screen transitions 1"
DATASETS = {"frames": (5, "u"), "actions": (4, "f"), "states": (3, "i")}  # dimensions, type
PURPOSE = 2  # keeps the randomness apart from that of problems with the same seed


@dataclass(frozen=True)
class Transitions:
    """n trajectories of T screens each, one action block between any two."""

    frames: Images  # [n, T, H, W, 3]
    actions: Actions  # [n, T-1, 250, 3]
    states: IntArray  # [n, T, S]

    def __post_init__(self) -> None:
        """Refuse arrays of other kinds, or that do not belong together."""
        for name, (num_dimensions, kind) in DATASETS.items():
            array = getattr(self, name)
            if array.ndim != num_dimensions or array.dtype.kind != kind:
                raise DataError(
                    f"{name} must have {num_dimensions} dimensions and type {kind}; found "
                    f"{array.dtype} of shape {array.shape}"
                )
        num, length = self.frames.shape[:2]
        expected = {"actions": (num, length - 1, NUM_STEPS, 3), "states": (num, length)}
        found = {"actions": self.actions.shape, "states": self.states.shape[:2]}
        if found != expected:
            shape = self.frames.shape
            raise DataError(f"frames of shape {shape} go with {expected}; found {found}")


def collect_screens(
    num_trajectories: int, *, horizon: int, split: str, seed: int, scripted_share: float = 0.7,
    near_miss_share: float = NEAR_MISS_SHARE, size: int = 64,
) -> tuple[list[TouchScreen], Actions]:  # fmt: skip
    """Touch fresh screens; no kind of widget is much rarer than another.

    Returns the screens before each touch and after the last, `[T]` of n screens, and the touches
    `[n, T-1, 250, 3]`.
    """
    if not 0.0 <= scripted_share <= 1.0:
        raise ConfigError(f"scripted_share must be in [0, 1]; found {scripted_share}")
    rng = seeded(split, seed, PURPOSE, num_trajectories=num_trajectories, horizon=horizon)
    active = np.flatnonzero([widget.active for widget in WIDGETS])
    kinds = np.resize(rng.permutation(active), num_trajectories)
    pool, rows = screens_with(kinds, split, seed, size)
    screens = [pool.select(rng.permutation(rows))]
    actions = np.empty((num_trajectories, horizon, NUM_STEPS, 3), np.float32)
    for step in range(horizon):
        actions[:, step] = mixed_policy(screens[-1], scripted_share, rng, near_miss_share)
        screens.append(screens[-1].execute(actions[:, step]))
    return screens, actions


def collect_transitions(
    num_trajectories: int, *, size: int = 64, progress: Progress = silent, phase: str = "collect",
    **how: Any,  # noqa: ANN401
) -> Transitions:  # fmt: skip
    """What `collect_screens` collects, in pictures of `size` x `size` pixels."""
    screens, actions = collect_screens(num_trajectories, size=size, **how)
    frames = np.empty((num_trajectories, len(screens), size, size, 3), np.uint8)
    for step, seen in enumerate(screens):
        frames[:, step] = seen.render()
        if step:
            progress(phase, step * num_trajectories, (len(screens) - 1) * num_trajectories)
    return Transitions(frames, actions, np.stack([seen.state for seen in screens], axis=1))


def save_transitions(
    path: Path | str, transitions: Transitions, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write trajectories to an HDF5 file, whole or not at all; attributes hold their provenance."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, **(attributes or {})})
        for name, values in vars(transitions).items():
            chunks = (1, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, compression="lzf")


def load_transitions(path: Path | str) -> Transitions:
    """Read trajectories from an HDF5 file; a `DataError` if it holds something else."""
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("format")
            if found != FORMAT:
                raise DataError(
                    f"found format {found!r}, expected {FORMAT!r}; collect the data anew"
                )
            return Transitions(**{name: file[name][:] for name in DATASETS})
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; collect the data first") from error
    except (OSError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a whole HDF5 file of transitions ({error}); collect the data anew"
        ) from error
