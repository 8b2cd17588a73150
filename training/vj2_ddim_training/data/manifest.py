"""The manifest of a folder of data: which file belongs to which split."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import DataError, escaped
from vj2_ddim_plugin.files import read_json
from vj2_ddim_plugin.settings import shown

__all__ = ["MANIFEST_NAME", "SPLITS", "Manifest", "choose_files", "files_by_split", "read_manifest"]

MANIFEST_NAME = "manifest.json"
SPLITS = ("train", "validation", "test")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read; `content` is all of it."""

    path: Path
    content: dict[str, Any]

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of the files of each split."""
        found: dict[str, list[str]] = self.content["splits"]
        return found

    @property
    def layer_normed(self) -> bool | None:
        """Whether the embeddings were; None where it does not say."""
        found: bool | None = self.content.get("layer_normed")
        return found

    def with_files(self, files: Mapping[str, list[str]]) -> dict[str, Any]:
        """The content where each file is written as others, or as none."""
        splits = {
            split: list(dict.fromkeys(name for each in listed for name in files.get(each, ())))
            for split, listed in self.splits.items()
        }
        return {**self.content, "splits": splits}


def read_manifest(folder: Path, file: Path | None = None) -> Manifest | None:
    """The manifest of a folder, or the one in `file`; None where the folder has none."""
    path = folder / MANIFEST_NAME if file is None else file
    if file is None and not os.path.lexists(path):
        return None
    manifest = read_json(path, DataError)
    splits = manifest.get("splits")
    if not isinstance(splits, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in splits.values()
    ):
        raise DataError(
            f'{path}: expected {{"splits": {{"train": [file names], ...}}}}. Add the splits'
        )
    if not isinstance(manifest.get("layer_normed"), bool | None):
        raise DataError(
            f"{path}: layer_normed is {manifest['layer_normed']!r}, expected true or false"
        )
    return Manifest(path, manifest)


def choose_files(
    manifest: Manifest | None, folder: Path, files: list[tuple[Path, ...]], split: str | None
) -> list[tuple[Path, ...]]:
    """The files of one split, or of all splits with None; all files where there is no manifest.

    Raises:
        DataError: The split is empty or not there, or any split names what is no data file of the
            folder, one file twice, or one that another split holds.
    """
    if manifest is None:
        return files
    path, by_split = manifest.path, files_by_split(manifest, folder, files)
    listed = set().union(*by_split.values())
    if left := [paths[0].name for paths in files if paths not in listed]:
        _warn_once(f"{path}: {len(left)} files are in no split and left out, {left[0]!r} first")
    wanted = listed if split is None else by_split.get(split, set())
    if not wanted:
        found = ", ".join(name for name, paths in by_split.items() if paths) or "none"
        raise DataError(
            f"{path}: split {split or 'of any name'!r} lists no files; found {found}. Add some, or "
            f"give another folder: one without a manifest belongs whole to what it is given for"
        )
    return [paths for paths in files if paths in wanted]


def files_by_split(
    manifest: Manifest, folder: Path, files: list[tuple[Path, ...]]
) -> dict[str, set[tuple[Path, ...]]]:
    """The files of each split; raises as `choose_files` does."""
    known = {each.name: paths for paths in files for each in paths}
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    found: dict[str, set[tuple[Path, ...]]] = {}
    for split, listed in manifest.splits.items():
        found[split] = set()
        for name, times in Counter(listed).items():
            if name not in known:
                raise DataError(
                    f"{manifest.path}: split {split!r} lists {shown(name)}, which is no "
                    f"data file in {folder}. Correct the name or remove it"
                )
            first = seen.setdefault(_identity(known[name][0]), (split, name))
            other_of_pair = known[name] in found[split]
            if times > 1 or (first != (split, name) and not other_of_pair):
                raise DataError(
                    f"{manifest.path}: {name!r} of split {split!r} is {first[1]!r} of "
                    f"split {first[0]!r} again; a file may be in one split, once. Remove one"
                )
            found[split].add(known[name])
    return found


def _identity(path: Path) -> tuple[int, int]:
    """Of a file, whatever it is called; of one that is none, of its name."""
    try:
        status = path.stat()
    except OSError:
        return 0, hash(path)
    return status.st_dev, status.st_ino


@cache
def _warn_once(message: str) -> None:
    logger.warning("%s", escaped(message))
