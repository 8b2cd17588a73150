"""The folder of a race: what it was made with, its results, and the times of first plans.

```
RUN/
├── run.json         settings that all results share, and what is noted beside them
├── results.jsonl    a line a plan
└── cold.json        by planner, how long building it took, and its first plan
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.race.records import PlanKey, Record, read_records
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import write_json

__all__ = ["Cold", "RaceFolder", "RaceResults"]

Cold = Mapping[str, Mapping[str, float]]
"""By planner: `build_ms`, and `first_plan_ms` of a fresh optimizer."""

COLD_TIMES = ("build_ms", "first_plan_ms")


@dataclass(frozen=True)
class RaceResults:
    """What a race left behind; `cold` and `setup` are empty where unknown."""

    records: list[Record]
    cold: Cold
    setup: dict[str, Any]


@dataclass(frozen=True)
class RaceFolder:
    """The folder of one race, or of its chains, or of one of its studies."""

    path: Path

    @property
    def results(self) -> Path:
        """The raw results."""
        return self.path / "results.jsonl"

    @property
    def setup(self) -> Path:
        """Settings and environment."""
        return self.path / "run.json"

    @property
    def cold(self) -> Path:
        """Times of first plans."""
        return self.path / "cold.json"

    def claim(self, fixed: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
        """Write the settings, or check that those that are there are the same.

        `fixed` are those that must be the same for results to be comparable; `noted` is everything
        else worth knowing, of the latest run.
        """
        plain = json.loads(json.dumps(dict(fixed)))
        if self.setup.exists():
            try:
                found = json.loads(self.setup.read_text(encoding="utf-8"))["fixed"]
                differing = [name for name in plain if found.get(name) != plain[name]]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{self.setup}: not a run's settings ({error!r}); use another folder"
                ) from error
            if differing:
                name = differing[0]
                raise ConfigError(
                    f"{self.path} holds results of another run: its {name} is "
                    f"{found.get(name)!r}, here it is {plain[name]!r}; use another folder, or the "
                    f"same settings to resume"
                )
        write_json(self.setup, {"fixed": plain, "noted": dict(noted)})

    def read(self) -> RaceResults:
        """Everything, with a closer eye than a run that resumes has.

        Raises a DataError that names the file and the line: a line is damaged, cut short or there
        twice, or another file is broken.
        """
        records = read_records(self.results, Record) if self.results.exists() else []
        if not records:
            raise DataError(
                f"{self.results} is missing or empty; give the folder of a run with results"
            )
        self._refuse_repetitions(records)
        return RaceResults(records, self.read_cold(), self._read_setup())

    def read_cold(self) -> Cold:
        """Times of first plans."""
        cold: dict[str, dict[str, float]] = _read_mapping(self.cold)
        for planner, times in cold.items():
            if not isinstance(times, Mapping) or not all(
                isinstance(times.get(name), int | float) for name in COLD_TIMES
            ):
                raise DataError(
                    f"{self.cold}: {planner!r} must have the numbers {' and '.join(COLD_TIMES)}; "
                    f"found {times!r}; remove the file to report without them"
                )
        return cold

    def _refuse_repetitions(self, records: list[Record]) -> None:
        """A plan that is there twice would count twice."""
        lines: dict[PlanKey, int] = {}
        for line, record in enumerate(records, start=1):
            if record.key in lines:
                raise DataError(
                    f"{self.results}, line {line}: {record.planner} solves problem "
                    f"{record.problem} a second time under the same budget (first in line "
                    f"{lines[record.key]}); keep one run a folder"
                )
            lines[record.key] = line

    def _read_setup(self) -> dict[str, Any]:
        setup = _read_mapping(self.setup)
        parts = [setup.get(name, {}) for name in ("fixed", "noted")]
        if not all(isinstance(part, Mapping) for part in parts) or (setup and "fixed" not in setup):
            raise DataError(
                f"{self.setup}: must hold the settings of a run under 'fixed' and 'noted'; remove "
                f"the file to report without them"
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
