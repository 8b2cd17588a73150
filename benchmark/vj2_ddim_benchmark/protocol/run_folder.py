"""What a run left behind, read with a closer eye than a run that resumes has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.protocol.gather import COLD, RESULTS, PlanKey
from vj2_ddim_benchmark.protocol.records import Record, read_records
from vj2_ddim_benchmark.protocol.setup import SETUP
from vj2_ddim_plugin.errors import DataError

__all__ = ["RunFolder", "read_run_folder"]


@dataclass(frozen=True)
class RunFolder:
    """The raw results of a run.

    Attributes:
        records: One a plan, in the order they were made.
        cold: By planner, `build_ms` and `first_plan_ms`; empty where unknown.
        setup: Settings and environment; empty where unknown.
    """

    records: list[Record]
    cold: dict[str, dict[str, float]]
    setup: dict[str, Any]


def read_run_folder(folder: Path) -> RunFolder:
    """Read `results.jsonl`, and `cold.json` and `run.json` where they are.

    Raises:
        DataError: There are no results; or a line is damaged, cut short or there twice, or one of
            the other files is broken. The message names the file and the line.
    """
    path = folder / RESULTS
    records = read_records(path, whole=True)
    if not records:
        raise DataError(f"{path} is missing or empty; give the folder of a run with results")
    _refuse_repetitions(path, records)
    return RunFolder(records, _read_cold(folder / COLD), _read_setup(folder / SETUP))


def _refuse_repetitions(path: Path, records: list[Record]) -> None:
    """A plan that is there twice would count twice."""
    lines: dict[PlanKey, int] = {}
    for line, record in enumerate(records, start=1):
        key = record.planner, record.problem, record.budget_ms
        if key in lines:
            raise DataError(
                f"{path}, line {line}: {record.planner} solves problem {record.problem} a second "
                f"time under the same budget (first in line {lines[key]}); keep one run a folder"
            )
        lines[key] = line


def _read_cold(path: Path) -> dict[str, dict[str, float]]:
    cold: dict[str, dict[str, float]] = _read_mapping(path)
    for planner, times in cold.items():
        if not isinstance(times, Mapping) or not all(
            isinstance(times.get(name), int | float) for name in ("build_ms", "first_plan_ms")
        ):
            raise DataError(
                f"{path}: {planner!r} must have the numbers build_ms and first_plan_ms; found "
                f"{times!r}; remove the file to report without them"
            )
    return cold


def _read_setup(path: Path) -> dict[str, Any]:
    setup = _read_mapping(path)
    parts = [setup.get(name, {}) for name in ("fixed", "noted")]
    if not all(isinstance(part, Mapping) for part in parts) or (setup and "fixed" not in setup):
        raise DataError(
            f"{path}: must hold the settings of a run under 'fixed' and 'noted'; remove the file "
            f"to report without them"
        )
    return {**parts[0], **parts[1]}


def _read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty if the file is missing."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); remove the file to report "
            f"without it"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text ({error}); remove it to report without it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: must hold a JSON object; found {type(value).__name__}")
    return value
