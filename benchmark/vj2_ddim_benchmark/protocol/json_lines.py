"""A file of plain dataclasses, one line of JSON each, appended as they come and resumable."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import (
    IO,
    Any,
    ClassVar,
    Generic,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from vj2_ddim_plugin.errors import ConfigError, DataError

__all__ = ["Dataclass", "JsonLines", "read_json_lines"]


class Dataclass(Protocol):
    """Any dataclass whose fields are numbers, strings, booleans, None, or lists of such."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


R = TypeVar("R", bound=Dataclass)
NEWLINE = b"\n"


class JsonLines(Generic[R]):
    """A file that is open for more records, locked for this process; a context manager.

    Attributes:
        records: All records of the file: those that were there, then those appended.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        """Open or create the file; a last line that a crash cut short is removed.

        Args:
            path: The file; its folder is created if missing.
            kind: The class of its records.

        Raises:
            ConfigError: Another run is writing it.
            DataError: A line is not such a record.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(path, "ab+")  # noqa: SIM115
        try:
            _lock(self._stream, path)
            self._stream.seek(0)
            content = self._stream.read()
            self.records: list[R] = _parse(path, content, kind)
            self._stream.truncate(content.rfind(b"\n") + 1)
        except BaseException:
            self._stream.close()
            raise

    def append(self, record: R) -> None:
        """Write one record and hand it to the operating system."""
        self._stream.write(json.dumps(dataclasses.asdict(record)).encode() + b"\n")
        self._stream.flush()
        self.records.append(record)

    def __enter__(self) -> JsonLines[R]:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which unlocks it."""
        self._stream.close()


def read_json_lines(path: Path, kind: type[R], *, whole: bool = True) -> list[R]:
    """The records of a file.

    Args:
        path: The file.
        kind: The class of its records.
        whole: Whether to refuse a last line cut short by a crash, which is left out otherwise.

    Raises:
        DataError: The file is missing, or a line is not such a record or was cut short.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; make the run first") from error
    if whole and content and not content.endswith(b"\n"):
        raise DataError(
            f"{path}, line {content.count(NEWLINE) + 1}: cut short; the run crashed or is still "
            f"being written: wait, or run the same command again, which resumes it"
        )
    return _parse(path, content, kind)


def _parse(path: Path, content: bytes, kind: type[R]) -> list[R]:
    types = get_type_hints(kind)
    records = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):  # the rest was cut short
        try:
            values = json.loads(line)
            _check(values, types)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: damaged ({error})") from error
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a {kind.__name__} of this version ({error}); make the "
                f"run again in another folder, or restore the file"
            ) from error
        records.append(kind(**values))
    return records


def _check(values: Any, types: dict[str, Any]) -> None:  # noqa: ANN401
    """Raise a `ValueError` unless these are the fields, each of its type."""
    if not isinstance(values, dict):
        raise ValueError(f"it must be a JSON object; found {type(values).__name__}")
    missing, unknown = sorted(set(types) - set(values)), sorted(set(values) - set(types))
    if missing or unknown:
        raise ValueError(f"fields missing: {missing}; fields unknown: {unknown}")
    for name, hint in types.items():
        if not _fits(values[name], hint):
            raise ValueError(
                f"{name} must be {getattr(hint, '__name__', hint)}; found {values[name]!r}"
            )


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    allowed = get_args(hint) or (hint,)
    return type(value) in allowed or (type(value) is int and float in allowed)


def _lock(stream: IO[bytes], path: Path) -> None:
    """Refuse to share the file with another process, where the system can tell."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"{path} is being written by another run; use another folder, or wait"
        ) from error
