"""Writing files whole or not at all, and never in the place of what is no file."""

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import OutputError

if sys.platform != "win32":
    import fcntl

__all__ = ["SCRATCH", "atomic_path", "naming", "sha256_of", "write_json"]

SCRATCH = ".vj2-ddim-scratch-"
"""How the names of the folders begin in which something is being written."""


@contextmanager
def naming(target: Path | str) -> Iterator[None]:
    """An error of the system that names no file, a full disk for example, as one that does."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or isinstance(error, OutputError):
            raise
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error


@contextmanager
def atomic_path(target: Path | str, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path; put what was written there at `target` when the block succeeds.

    If the block raises (a full disk, Ctrl-C), the temporary is removed and what stood at `target`
    before is untouched; if the process is killed, the next one that writes beside it removes it.
    With `folder` the path is a new empty folder instead of a file name.

    Links are followed: what they lead to is replaced. A fifo or a device, `/dev/stdout` for
    example, is written to and stays what it is.

    Raises:
        OutputError: It cannot be written, or what is there must not be replaced.
    """
    target, scratch, lock, stream = Path(target), None, None, None
    try:
        place = _place_of(target, folder)
        if isinstance(place, int):
            stream, place = place, Path(tempfile.gettempdir(), target.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch, lock = _new_scratch(place.parent)
        temporary = scratch / (place.name if folder else target.name)  # its suffix says how
        if folder:
            temporary.mkdir()
        yield temporary
        if stream is None:
            _put(temporary, place)
        else:
            with open(temporary, "rb") as written, os.fdopen(os.dup(stream), "wb") as out:
                shutil.copyfileobj(written, out)
    except OSError as error:
        of_another = scratch and error.filename and str(scratch) not in str(error.filename)
        if of_another or isinstance(error, OutputError):
            raise
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        for descriptor in (lock, stream):
            if descriptor is not None:
                os.close(descriptor)


def _place_of(target: Path, folder: bool) -> Path | int:
    """Where a rename puts it, links followed; a descriptor of what is written to as it stands."""
    with suppress(FileNotFoundError):
        found = os.stat(target)
        is_folder = stat.S_ISDIR(found.st_mode)
        if folder and not is_folder:
            raise OutputError(f"{target} is a file; name a folder that does not exist yet")
        if is_folder and not folder:
            raise OutputError(f"{target} is a folder; name a file")
        for ours in (1, 2):  # a file that the shell writes what is printed to stays that file
            with suppress(OSError):
                if os.path.samestat(found, os.fstat(ours)):
                    return os.dup(ours)
        if stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode):
            return _opened(target)
        if not (is_folder or stat.S_ISREG(found.st_mode)):
            raise OutputError(f"{target} is neither a file nor a folder; name another")
    place = Path(os.path.realpath(target))
    if place.is_mount():
        raise OutputError(f"{target} cannot be replaced as a whole; name a folder in it")
    return place


def _opened(target: Path) -> int:
    """A descriptor of a fifo or a device; an error, no endless wait, for a fifo nobody reads."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise OutputError(f"{target}: nobody reads from it; start what reads it first") from error
    os.set_blocking(descriptor, True)
    return descriptor


def _new_scratch(where: Path) -> tuple[Path, int | None]:
    """A folder for one writer, and the lock on it, which ends with the process."""
    _sweep(where)
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=where))
        lock = _locked(scratch)
        if scratch.exists():  # it was not swept before it was locked
            return scratch, lock
        if lock is not None:
            os.close(lock)


def _locked(folder: Path, how: int = 0) -> int | None:
    """A descriptor that holds the system's lock on a folder; None where it cannot be had."""
    if sys.platform == "win32":
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


@lru_cache(maxsize=256)  # what is left behind is of processes before this one
def _sweep(where: Path) -> None:
    """Remove the folders of writers that are dead; what one had moved aside goes back."""
    for scratch in where.glob(f"{SCRATCH}*"):
        if sys.platform == "win32" or (lock := _locked(scratch, fcntl.LOCK_NB)) is None:
            continue
        with suppress(OSError):
            for aside in scratch.glob("*.old"):
                there = where / aside.stem
                if aside.is_dir() and (scratch / aside.stem).is_dir() and not there.exists():
                    os.replace(aside, there)
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def _put(temporary: Path, place: Path) -> None:
    """Rename it; a folder that is there is moved aside, and back where that fails."""
    aside = temporary.with_name(f"{place.name}.old")
    if temporary.is_dir() and place.exists():
        os.replace(place, aside)
    try:
        os.replace(temporary, place)
    except OSError:
        if aside.exists():
            os.replace(aside, place)
        raise


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path | str, value: Any) -> None:  # noqa: ANN401
    """Write plain values as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
