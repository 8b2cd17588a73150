"""Raw results: one line of JSON a planner and problem, appended as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

from vj2_ddim_plugin.errors import ConfigError, DataError

__all__ = ["Record", "RecordLog", "read_records"]


@dataclass(frozen=True)
class Record:
    """One plan and what came of it.

    Attributes:
        planner: Its name in the registry.
        problem: Index of the problem.
        kind: Kind of widget that had to be touched.
        success: Whether the plan put the screen exactly into the goal state.
        success_before_projection: The same for the plan before projection; None where unknown.
        final_cost: The world model's cost of the plan, asked for after the clock stopped.
        wall_ms: From the two pictures to the plan.
        cost_evaluations: Candidates whose cost the planner asked for.
        denoiser_evaluations: Rows that went through the denoiser.
        budget_ms: The deadline it was given, or None.
        stopped_because: `finished` or `deadline`.
        projection_distance: The largest change that projection made to the plan.
        provider: What ran.
    """

    planner: str
    problem: int
    kind: str
    success: bool
    success_before_projection: bool | None
    final_cost: float
    wall_ms: float
    cost_evaluations: int
    denoiser_evaluations: int
    budget_ms: float | None
    stopped_because: str
    projection_distance: float
    provider: str


def read_records(path: Path, *, whole: bool = False) -> list[Record]:
    """The records of a file; none if it is missing.

    Args:
        path: The file.
        whole: Whether to refuse a last line cut short by a crash, which is left out otherwise.

    Raises:
        DataError: A line is not a record.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: damaged ({error})") from error
    if whole and text and not text.endswith("\n"):
        raise DataError(
            f"{path}, line {text.count(chr(10)) + 1}: cut short; the run crashed or is still being "
            f"written: wait, or run the same benchmark command again, which resumes it"
        )
    return _parse(path, text)


class RecordLog:
    """A file of records that is open for more, locked for this process; a context manager.

    Attributes:
        records: All records of the file: those that were there, then those appended.

    Raises:
        ConfigError: Another run is writing it.
        DataError: A line is not a record.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; a last line cut short by a crash is removed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open(path, "a+", encoding="utf-8", newline="\n")  # noqa: SIM115
        try:
            _lock(self._stream, path)
            self._stream.seek(0)
            text = self._stream.read()
            self.records = _parse(path, text)
            whole = text[: text.rfind("\n") + 1]
            self._stream.truncate(len(whole.encode("utf-8")))
        except BaseException:
            self._stream.close()
            raise

    def append(self, record: Record) -> None:
        """Write one record and hand it to the operating system."""
        self._stream.write(json.dumps(asdict(record)) + "\n")
        self._stream.flush()
        self.records.append(record)

    def __enter__(self) -> RecordLog:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which unlocks it."""
        self._stream.close()


def _parse(path: Path, text: str) -> list[Record]:
    records = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):  # the rest was cut short
        try:
            values = json.loads(line)
            _check(values)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a record of this version ({error}); make the run "
                f"again in another folder, or restore the file"
            ) from error
        records.append(Record(**values))
    return records


def _check(values: Any) -> None:  # noqa: ANN401
    """Raise a `ValueError` unless these are the fields of a record, each of its type."""
    types = get_type_hints(Record)
    if not isinstance(values, Mapping):
        raise ValueError(f"it must be a JSON object; found {type(values).__name__}")
    missing, unknown = sorted(set(types) - set(values)), sorted(set(values) - set(types))
    if missing or unknown:
        raise ValueError(f"fields missing: {missing}; fields unknown: {unknown}")
    for name, hint in types.items():
        allowed = get_args(hint) or (hint,)
        value = values[name]
        if type(value) not in allowed and not (type(value) is int and float in allowed):
            raise ValueError(f"{name} must be {getattr(hint, '__name__', hint)}; found {value!r}")


def _lock(stream: IO[str], path: Path) -> None:
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
