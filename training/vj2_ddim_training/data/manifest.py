"""`manifest.json` of a folder of trajectories: which files belong to which split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import DataError

__all__ = ["MANIFEST_NAME", "SPLITS", "read_manifest", "split_names"]

MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "validation", "test")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is none.

    Raises:
        DataError: It is not JSON, or has no `splits` that list file names.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Write it again") from error
    splits = manifest.get("splits") if isinstance(manifest, dict) else None
    if not isinstance(splits, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in splits.values()
    ):
        raise DataError(
            f'{path}: expected {{"splits": {{"train": [file names], ...}}}}. Add the splits'
        )
    return dict(manifest)


def split_names(manifest: dict[str, Any], folder: Path, split: str | None) -> list[str]:
    """File names of one split, or of all splits with None.

    Raises:
        DataError: The split is not in the manifest or empty, or a listed file is missing or lies
            outside the folder.
    """
    path, splits = folder / MANIFEST_NAME, manifest["splits"]
    if split is not None and split not in splits:
        raise DataError(f"{path}: no split {split!r}; found {', '.join(splits) or 'none'}")
    chosen = splits.values() if split is None else [splits[split]]
    names = [name for listed in chosen for name in listed]
    if not names:
        raise DataError(f"{path}: split {split or 'of any name'!r} lists no files")
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{path}: {name!r} is not a plain file name inside {folder}")
        if not (folder / name).is_file():
            raise DataError(f"{path}: lists {name}, which is not in {folder}")
    return names
