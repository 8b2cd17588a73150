"""Trajectories from one format into another, a step at a time, with their manifest."""

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from vj2_ddim_plugin.arrays import StoredArray, bfloat16_as_float32, readable
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import atomic_path, write_json
from vj2_ddim_training.data.gesture_files import require_finite, require_replaceable
from vj2_ddim_training.data.hdf5 import Hdf5Array, hdf5_type
from vj2_ddim_training.data.manifest import MANIFEST_NAME, Manifest, choose_files, read_manifest
from vj2_ddim_training.data.settings import READ_ALL, ReadingSettings
from vj2_ddim_training.data.sound import keep_sound, naming_the_way_out, report_skipped
from vj2_ddim_training.data.steps import Steps
from vj2_ddim_training.data.trajectory_files import (
    KEYS,
    PATTERNS,
    TrajectoryFile,
    describe_file,
    find_trajectory_files,
)

__all__ = ["convert_trajectories"]


def convert_trajectories(
    source: Path | str,
    out_dir: Path | str,
    to: str = "pairs",
    *,
    reading: ReadingSettings = READ_ALL,
    overwrite: bool = False,
    progress: Progress = silent,
) -> int:
    """Write the trajectories of a folder in a format of which single steps can be read.

    Numbers, types and splits stay as they are; files that are in no split are left out. The folder
    appears whole or not at all.

    Args:
        source: Folder of trajectories of any format.
        out_dir: Folder to make.
        to: The format: `pairs` (memory-mapped), `npz` (not compressed) or `h5`.
        reading: Another manifest, and whether broken files are left out.
        overwrite: Replace an earlier data set.
        progress: Called after every file.

    Returns:
        How many trajectories there are.

    Raises:
        DataError: The source cannot be read; the message names the file.
        ConfigError: The format is unknown, or the folder holds something that would be lost.
    """
    if to not in PATTERNS:
        raise ConfigError(f"to {to!r} is unknown; use one of {', '.join(PATTERNS)}")
    source, out_dir = Path(source), Path(os.path.realpath(out_dir))
    if os.path.realpath(source) == str(out_dir):
        raise ConfigError(f"{out_dir} is the source itself; name another folder")
    require_replaceable(out_dir, ("*_traj_*_???.npy", "*.npz", "*.h5", MANIFEST_NAME), overwrite)
    sound, manifest = _sound_files(source, reading)
    written: dict[str, list[str]] = {}  # by the name in the source
    with atomic_path(out_dir, folder=True) as temporary, naming_the_way_out(reading):
        for done, file in enumerate(sound, start=1):
            names = WRITERS[to](file, temporary, file.paths[0].stem.removesuffix("_emb"))
            written |= {path.name: names for path in file.paths}
            progress("converting", done, len(sound))
        if manifest is not None:
            write_json(temporary / MANIFEST_NAME, manifest.with_files(written))
    return sum(file.num_trajectories for file in sound)


def _sound_files(
    source: Path, reading: ReadingSettings
) -> tuple[list[TrajectoryFile], Manifest | None]:
    """The files of all splits, and the manifest that says so."""

    def check(paths: tuple[Path, ...]) -> TrajectoryFile:
        described = describe_file(paths)
        if reading.skip_broken:
            _require_finite(described)
        return described

    manifest = read_manifest(source, reading.manifest)
    files = choose_files(manifest, source, find_trajectory_files(source)[1], None)
    sound, skipped = keep_sound(files, check, reading)
    report_skipped(source, skipped, len(files))
    return sound, manifest


def _require_finite(file: TrajectoryFile) -> None:
    for path, array in zip((file.paths[0], file.paths[-1]), file.arrays, strict=True):
        with readable(path, DataError):
            steps = Steps(array)
        for part in steps.parts(array.shape[2:]):
            require_finite(part, path)


def _write_pairs(file: TrajectoryFile, folder: Path, stem: str) -> list[str]:
    names = [f"{stem}_traj_{i:05d}_" for i in range(file.num_trajectories)]
    for end, array in zip(("emb", "act"), file.arrays, strict=True):
        steps = _steps(array)
        for name in names:
            with open(folder / f"{name}{end}.npy", "wb") as stream:
                _write_array(stream, array, array.shape[1:], islice(steps, array.shape[1]))
    return [f"{name}emb.npy" for name in names]


def _write_npz(file: TrajectoryFile, folder: Path, stem: str) -> list[str]:
    with zipfile.ZipFile(folder / f"{stem}.npz", "w") as archive:
        for key, array in zip(KEYS, file.arrays, strict=True):
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                _write_array(stream, array, array.shape, _steps(array))
    return [f"{stem}.npz"]


def _write_h5(file: TrajectoryFile, folder: Path, stem: str) -> list[str]:
    with h5py.File(folder / f"{stem}.h5", "w") as to:
        for key, array in zip(KEYS, file.arrays, strict=True):
            chunks = (1, 1, *array.shape[2:])  # single steps
            data = to.create_dataset(key, array.shape, hdf5_type(array), chunks=chunks)
            for index, step in zip(np.ndindex(array.shape[:2]), _steps(array), strict=True):
                numbers = np.frombuffer(step, "V2" if array.bfloat16 else array.dtype)
                if array.bfloat16:
                    numbers = bfloat16_as_float32(numbers)  # HDF5 rounds it back
                data[index] = numbers.reshape(array.shape[2:])
    return [f"{stem}.h5"]


WRITERS = {"pairs": _write_pairs, "npz": _write_npz, "h5": _write_h5}


def _steps(array: StoredArray | Hdf5Array) -> Iterator[bytes]:
    """The bytes of all steps of all trajectories, one after another."""
    if isinstance(array, StoredArray) and array.compressed:
        yield from (step.tobytes() for step in array.items(2))
        return
    steps = Steps(array)
    for step in range(math.prod(array.shape[:2])):
        with readable(array.path, DataError):
            found = steps.raw(step)
        yield found


def _write_array(
    stream: IO[bytes],
    array: StoredArray | Hdf5Array,
    shape: tuple[int, ...],
    steps: Iterable[bytes],
) -> None:
    descr = "<V2" if array.bfloat16 else np.lib.format.dtype_to_descr(array.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for step in steps:
        stream.write(step)
