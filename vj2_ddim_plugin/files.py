"""Files: written whole or not at all, read only where they are files and say one thing."""

import errno
import hashlib
import json
import math
import os
import reprlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import OutputError, VJ2DDIMError

if sys.platform != "win32":
    import fcntl

__all__ = ["SCRATCH", "atomic_path", "naming", "read_json", "read_json_value"]
__all__ += ["parse_json", "require_regular_file", "sha256_of", "write_json"]

SCRATCH = ".vj2-ddim-scratch-"
"""How the names of the folders begin in which something is being written."""
MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_INTEGER_DIGITS = 16 * 2**20, 64, 20
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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


def require_regular_file(
    path: Path | str, error: type[VJ2DDIMError], expected: str = "a regular file"
) -> Path:
    """The path, if a regular file stands there, or where its links lead; nothing is opened.

    Raises:
        VJ2DDIMError: Of the kind `error`: nothing is there, a link that leads nowhere, a file that
            may not be read, or what would block or never end: a folder, pipe, socket or device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        found = KINDS.get(stat.S_IFMT(mode), "")
        if not found and not os.access(path, os.R_OK):
            found = "a file without permission to read it"
    except (OSError, ValueError) as cause:  # ValueError: a name with a null byte
        found = getattr(cause, "strerror", "") or str(cause)
        if os.path.islink(path):
            found = f"a link to {os.readlink(path)} that leads nowhere ({found})"
        elif isinstance(cause, FileNotFoundError):
            raise error(f"{path}: no such file, expected {expected}") from cause
    if found:
        raise error(f"{path}: found {found}, expected {expected}")
    return path


def read_json(path: Path | str, error: type[VJ2DDIMError]) -> dict[str, Any]:
    """The object in a JSON file; as `read_json_value`, and what is no object is refused too."""
    return _as_object(read_json_value(path, error), path, error)


def read_json_value(path: Path | str, error: type[VJ2DDIMError]) -> Any:  # noqa: ANN401
    """What a JSON file holds, read strictly: it cannot mean two things or take for ever.

    Refused are keys that stand twice, NaN and numbers too large for a float, integers of more than
    20 digits, 64 levels, `MAX_JSON_BYTES`, and what is not UTF-8.

    Raises:
        VJ2DDIMError: Of the kind `error`, naming the file and what was found in it.
    """
    path = require_regular_file(path, error, "a JSON file")
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES} bytes")
        return _strict_value(content)
    except (OSError, ValueError) as why:
        raise error(
            f"{path}: cannot be read as JSON ({why}). Repair it or write it again"
        ) from None


def parse_json(content: bytes, name: object, error: type[VJ2DDIMError]) -> dict[str, Any]:
    """The object that JSON text says, as strictly as `read_json`; `name` is where it came from."""
    try:
        value = _strict_value(content)
    except ValueError as why:
        raise error(f"{name}: cannot be read as JSON ({why})") from None
    return _as_object(value, name, error)


def _as_object(value: Any, name: object, error: type[VJ2DDIMError]) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise error(f"{name}: found {reprlib.repr(value)}, expected a JSON object, {{...}}")
    return value


def _strict_value(content: bytes) -> Any:  # noqa: ANN401
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_distinct,
            parse_int=_short_integer,
            parse_float=_finite_float,
            parse_constant=_finite_float,
        )
        if content.count(b"[") + content.count(b"{") > MAX_JSON_DEPTH:
            _require_shallow(value)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {reprlib.repr(key)} stands twice in one object")
        found[key] = value
    return found


def _short_integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits, at most {MAX_INTEGER_DIGITS} may be")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{reprlib.repr(text)} is not a finite number")
    return value


def _require_shallow(value: Any) -> None:  # noqa: ANN401
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        nested = [each for each in level if isinstance(each, dict | list)]
        values = [each.values() if isinstance(each, dict) else each for each in nested]
        level = list(chain.from_iterable(values))
    if nested:
        raise ValueError(f"nested more than {MAX_JSON_DEPTH} levels deep")


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def write_json(path: Path | str | None, value: Any) -> None:  # noqa: ANN401
    """Write plain values and paths as indented JSON, whole or not at all; None writes nothing."""
    if path is not None:
        with atomic_path(path) as temporary:
            text = json.dumps(value, indent=2, default=os.fspath)
            temporary.write_text(text + "\n", encoding="utf-8")
