"""Files: written whole or not at all, read only where they are files and say one thing."""

import hashlib
import json
import math
import os
import reprlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import VJ2DDIMError

__all__ = ["atomic_path", "named", "read_json", "require_regular_file", "sha256_of", "write_json"]

MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_INTEGER_DIGITS = 16 * 2**20, 64, 20
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def atomic_path(target: Path | str, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` when the block succeeds.

    If the block raises (a full disk, Ctrl-C), the temporary is removed and what stood at `target`
    before is untouched. With `folder` the path is a new empty folder instead of a file name.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    temporary = scratch / target.name
    try:
        if folder:
            temporary.mkdir()
        with named(target):
            yield temporary
        if folder and target.exists():
            os.replace(target, scratch / "replaced")
        os.replace(temporary, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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


def read_json(
    path: Path | str, error: type[VJ2DDIMError], *, max_bytes: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """The object in a JSON file, read strictly: it cannot mean two things or take for ever.

    Refused are keys that stand twice, NaN and numbers too large for a float, integers of more than
    20 digits, 64 levels, `max_bytes`, what is not UTF-8, and what is no object.

    Raises:
        VJ2DDIMError: Of the kind `error`, naming the file and what was found in it.
    """
    path = require_regular_file(path, error, "a JSON file")
    try:
        with open(path, "rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(f"it is larger than {max_bytes} bytes")
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_distinct,
            parse_int=_short_integer,
            parse_float=_finite_float,
            parse_constant=_finite_float,
        )
        _require_shallow(value)
    except (OSError, ValueError, RecursionError) as cause:
        why = "nested too deep" if isinstance(cause, RecursionError) else cause
        raise error(
            f"{path}: cannot be read as JSON ({why}). Repair it or write it again"
        ) from None
    if not isinstance(value, dict):
        raise error(f"{path}: found {reprlib.repr(value)}, expected a JSON object, {{...}}")
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


@contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Let an `OSError` from inside say which file it is of: that of a full disk says none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path | str, value: Any) -> None:  # noqa: ANN401
    """Write plain values as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
