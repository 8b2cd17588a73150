"""Writing a manifest: which recordings are for training, for validation and for the test."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_training.data.manifest import MANIFEST_NAME, SPLITS, read_manifest
from vj2_ddim_training.data.settings import SplitSettings
from vj2_ddim_training.data.sound import keep_sound, report_skipped
from vj2_ddim_training.data.trajectory_files import describe_file, find_data_files

__all__ = ["split_data"]

Files = list[tuple[Path, ...]]


class Recording(NamedTuple):
    """Files that must not be torn apart."""

    files: Files
    size: int  # bytes


def _bytes_of(recordings: list[Recording]) -> int:
    return sum(each.size for each in recordings)


def split_data(
    folder: Path | str,
    settings: SplitSettings,
    *,
    layer_normed: bool | None = None,
    overwrite: bool = False,
) -> tuple[Path, dict[str, tuple[int, int, int, float]]]:
    """Divide a folder's recordings at random and write the manifest.

    A recording is the file, or all trajectories of one stem of `pairs`; it is in one split, and one
    that lies there under several names is taken once: no split can leak into another. Shares are of
    the bytes, so that large and small recordings are spread alike.

    Args:
        folder: Data of any format.
        settings: The shares or counts, the seed, and where the manifest goes.
        layer_normed: Whether the embeddings were; recorded. None keeps what a manifest says.
        overwrite: Replace a manifest.

    Returns:
        The manifest's path, and for each split its recordings, files, bytes and share of all bytes.

    Raises:
        DataError: There are no files, one is broken, or there are too few to divide.
        ConfigError: A manifest is there already.
    """
    folder = Path(folder)
    path = settings.manifest or folder / MANIFEST_NAME
    if os.path.lexists(path):
        if not overwrite:
            raise ConfigError(f"{path} is there already; pass overwrite=True, or name another")
        if layer_normed is None and (found := read_manifest(folder, path)):
            layer_normed = found.layer_normed
    recordings = _recordings(folder, settings)
    chosen = _divide(recordings, settings, folder)
    splits = {
        name: sorted(paths[0].name for each in of for paths in each.files)
        for name, of in chosen.items()
    }
    manifest = {"splits": splits, "layer_normed": layer_normed, "made_by": "vj2-ddim data split"}
    write_json(path, {**manifest, "seed": settings.seed, "together": settings.together})
    return path, {
        name: (len(of), len(splits[name]), size := _bytes_of(of), size / _bytes_of(recordings))
        for name, of in chosen.items()
    }


def _recordings(folder: Path, settings: SplitSettings) -> list[Recording]:
    """What is divided, in the order of names."""
    kind, files = find_data_files(folder)
    if kind != "actions":
        _, skipped = keep_sound(files, describe_file, settings)
        report_skipped(folder, skipped, len(files))
        files = [paths for paths in files if paths[0].name not in skipped]
    together: dict[str, Files] = {}
    seen: set[tuple[int, int]] = set()
    for paths in files:
        status = paths[0].stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # the same file under another name
        seen.add((status.st_dev, status.st_ino))
        of_stem = kind == "pairs" and settings.together == "recording"
        stem = paths[0].name.rpartition("_traj_")[0] if of_stem else paths[0].name
        together.setdefault(stem, []).append(paths)
    return [
        Recording(of, sum(each.stat().st_size for paths in of for each in paths))
        for of in together.values()
    ]


def _divide(
    recordings: list[Recording], settings: SplitSettings, folder: Path
) -> dict[str, list[Recording]]:
    """The recordings of each split, drawn at random."""
    wanted = {name: float(getattr(settings, name)) for name in SPLITS}
    order = [
        recordings[i] for i in np.random.default_rng(settings.seed).permutation(len(recordings))
    ]
    asked = {name for name, share in wanted.items() if share}
    counts = max(wanted.values()) > 1.0
    least = int(sum(wanted.values())) if counts else len(asked)
    if len(order) < least:
        raise DataError(
            f"{folder}: found {len(order)} recordings, expected at least {least} for "
            f"{', '.join(sorted(asked))}: a file or recording is never torn apart. `vj2-ddim data "
            f"convert --to pairs` makes a file of each trajectory, together='file' takes each for "
            f"a recording of its own; neighbours of one recording are alike, though, and what is "
            f"measured on them flatters the model"
        )
    if counts:
        ends = np.cumsum([int(wanted[name]) for name in SPLITS])
        return {
            name: order[end - int(wanted[name]) : end]
            for name, end in zip(SPLITS, ends, strict=True)
        }
    return _by_share(order, wanted)


def _by_share(order: list[Recording], wanted: dict[str, float]) -> dict[str, list[Recording]]:
    """The largest first, each to the split that lacks most; none that is asked for stays empty."""
    total = _bytes_of(order)
    lacking = {name: share * total for name, share in wanted.items()}
    lacking["left out"] = (1.0 - sum(wanted.values())) * total
    found: dict[str, list[Recording]] = {name: [] for name in lacking}
    for each in sorted(order, key=lambda recording: -recording.size):
        name = max(lacking, key=lacking.__getitem__)
        found[name].append(each)
        lacking[name] -= each.size
    for name, share in wanted.items():
        if share and not found[name]:
            largest = max(found, key=lambda other: len(found[other]))
            found[name].append(found[largest].pop())  # its smallest
    return {name: found[name] for name in SPLITS}
