"""The folder of a race, and how it is filled: the one process that writes a run's results.

Planners take turns on every problem, and who comes first rotates: noise hits all alike.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.race.records import PlanKey, R, Record, read_records, record_log
from vj2_ddim_benchmark.race.tasks import Budgets, Cold
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import read_json, write_json

COLD_TIMES = ("build_ms", "first_plan_ms")


@dataclass(frozen=True)
class RaceResults:
    """What a race left behind; `cold` and `setup` are empty where unknown."""

    records: list[Record]
    cold: Cold
    setup: dict[str, Any]


class RaceFolder:
    """The folder of one race, or of its chains, or of one of its studies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.setup = path / "run.json"  # what all results share, and what is noted beside it
        self.results = path / "results.jsonl"  # a line a plan
        self.cold = path / "cold.json"  # by planner, how long building took, and its first plan

    @property
    def begun(self) -> bool:
        """Whether there is a result; a run may die between its first file and its first result."""
        return self.results.exists() and self.results.stat().st_size > 0

    def claim(self, fixed: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
        """Write what must stay the same, or check that it is; `noted` is of the latest run."""
        plain = json.loads(json.dumps(dict(fixed)))
        if self.setup.exists():
            found, _ = self._read_setup()
            for name, here in plain.items():
                if (there := found.get(name)) != here:
                    raise ConfigError(
                        f"{self.path} holds results of another run: its {name} is {there!r}, here "
                        f"it is {here!r}; use another folder, or the same settings to resume"
                    )
        write_json(self.setup, {"fixed": plain, "noted": dict(noted)})

    def read(self) -> RaceResults:
        """Everything; a DataError names the file and the line that is damaged or there twice."""
        records = read_records(self.results, Record) if self.results.exists() else []
        if not records:
            raise DataError(
                f"{self.results} is missing or empty; give the folder of a run with results"
            )
        lines: dict[PlanKey, int] = {}
        for line, record in enumerate(records, start=1):
            if lines.setdefault(record.key, line) != line:  # it would count twice
                raise DataError(
                    f"{self.results}, line {line}: {record.planner} solves problem "
                    f"{record.problem} a second time under the same budget (first in line "
                    f"{lines[record.key]}); keep one run a folder"
                )
        fixed, noted = self._read_setup()
        return RaceResults(records, self.read_cold(), {**fixed, **noted})

    def read_cold(self) -> Cold:
        """Times of first plans."""
        cold = read_json(self.cold, DataError) if self.cold.exists() else {}
        for planner, times in cold.items():
            if not isinstance(times, Mapping) or not all(
                isinstance(times.get(name), int | float) for name in COLD_TIMES
            ):
                raise DataError(
                    f"{self.cold}: {planner!r} must have the numbers {' and '.join(COLD_TIMES)}; "
                    f"found {times!r}; remove the file to report without them"
                )
        return cold

    def _read_setup(self) -> list[Mapping[str, Any]]:
        """What is fixed, and what is noted; both empty if there is no file."""
        setup = read_json(self.setup, DataError) if self.setup.exists() else {}
        parts = [setup.get(name, {}) for name in ("fixed", "noted")]
        if not all(isinstance(part, Mapping) for part in parts) or (setup and "fixed" not in setup):
            raise DataError(
                f"{self.setup}: must hold the settings of a run under 'fixed' and 'noted'; use "
                f"another folder, or remove the file to report without them"
            )
        return parts


@dataclass(frozen=True)
class Todo:
    """One problem, and whose turn it is under which budget, in order."""

    problem: int
    turns: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Solved:
    """Some results of one problem, and the times of first plans made in that process."""

    records: tuple[Any, ...]
    cold: Cold


MapProblems = Callable[[Sequence[Todo]], Iterator[Solved]]
"""Solves problems and yields results in their order; see `workers.py`."""


def gather(
    folder: RaceFolder, planners: Sequence[str], budgets: Budgets, num_problems: int,
    map_problems: MapProblems, progress: Progress = silent, phase: str = "plan", *,
    kind: type[R], workers: int = 1,
) -> list[R]:  # fmt: skip
    """Race on the first problems; returns the records that were in the folder, and those made."""
    with record_log(folder.results, kind) as log:
        todos = todo_list(planners, budgets, num_problems, {record.key for record in log.records})
        total, count = sum(len(todo.turns) for todo in todos), 0
        cold = folder.read_cold()
        for solved in map_problems(todos):
            if not solved.cold.keys() <= cold.keys():
                cold = {**solved.cold, **cold}
                write_json(folder.cold, cold)
            for record in solved.records:
                log.append(replace(record, workers=workers))
                count += 1
                progress(phase, count, total)
        return [
            record
            for record in log.records
            if record.planner in planners and record.budget_ms in budgets
            if record.problem < num_problems
        ]


def todo_list(
    planners: Sequence[str], budgets: Budgets, num_problems: int, done: Collection[PlanKey] = ()
) -> list[Todo]:
    """The problems that are not solved by all planners under all budgets, and by whom not."""
    todos = []
    for problem in range(num_problems):
        first = problem % len(planners)
        turns = tuple(
            (planner, budget)
            for budget in budgets
            for planner in (*planners[first:], *planners[:first])
            if (planner, problem, budget) not in done
        )
        if turns:
            todos.append(Todo(problem, turns))
    return todos
