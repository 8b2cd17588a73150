"""Who plans when, and the log of what came of it: the one process that writes a run's results.

Planners take turns on every problem, under one budget after the other, and who comes first rotates,
so that noise of the machine hits all alike. A problem is solved by all of them in one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vj2_ddim_benchmark.protocol.json_lines import Dataclass, JsonLines
from vj2_ddim_benchmark.protocol.run import Progress
from vj2_ddim_plugin.files import write_json

__all__ = [
    "COLD",
    "RESULTS",
    "Cold",
    "MapProblems",
    "PlanKey",
    "Solved",
    "Todo",
    "gather",
    "read_cold",
    "todo_list",
]

RESULTS, COLD = "results.jsonl", "cold.json"

PlanKey = tuple[str, int, float | None]
"""A planner, a problem and a budget: what there is one result of."""

Cold = Mapping[str, Mapping[str, float]]
"""By planner: `build_ms`, and `first_plan_ms` of a fresh optimizer."""


@dataclass(frozen=True)
class Todo:
    """One problem.

    Attributes:
        problem: Its index.
        turns: A planner's name and a budget each, in the order in which they plan.
    """

    problem: int
    turns: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Solved:
    """Some plans of one problem.

    Attributes:
        records: Their results, in order, of the class that is gathered.
        cold: Times of the planners that made their first plan in this process.
    """

    records: tuple[Any, ...]
    cold: Cold


class Keyed(Dataclass, Protocol):
    """A record that says which plan it is of."""

    @property
    def planner(self) -> str: ...
    @property
    def problem(self) -> int: ...
    @property
    def budget_ms(self) -> float | None: ...


R = TypeVar("R", bound=Keyed)

MapProblems = Callable[[Sequence[Todo]], Iterator[Solved]]
"""Solves problems and yields results in their order; see `executors.py`."""


def gather(
    out: Path,
    planners: Sequence[str],
    budgets: Sequence[float | None],
    num_problems: int,
    map_problems: MapProblems,
    progress: Progress | None = None,
    phase: str = "plan",
    *,
    kind: type[R],
) -> list[R]:
    """Race; results that are already in the folder are kept, and only the others made.

    Args:
        out: The folder of the results, created if missing.
        planners: Names of those that race.
        budgets: Deadlines in ms, or None for none; each planner plans under every one.
        num_problems: The problems raced on are the first ones.
        map_problems: Solves them.
        progress: Called with the phase, the plans made and their number.
        phase: What to call it.
        kind: The class of the results.

    Returns:
        The records of these planners under these budgets on these problems, old and new.

    Raises:
        ConfigError: Another run is writing into the folder.
        DataError: The folder holds results that cannot be read.
    """
    report = progress or (lambda phase, done, total: None)
    with JsonLines(out / RESULTS, kind) as log:
        done = {(record.planner, record.problem, record.budget_ms) for record in log.records}
        todos = todo_list(planners, budgets, num_problems, done)
        total, count, cold = sum(len(todo.turns) for todo in todos), 0, read_cold(out)
        for solved in map_problems(todos):
            if not solved.cold.keys() <= cold.keys():
                cold = {**solved.cold, **cold}
                write_json(out / COLD, cold)
            for record in solved.records:
                log.append(record)
                count += 1
                report(phase, count, total)
        return [
            record
            for record in log.records
            if record.planner in planners
            and record.budget_ms in budgets
            and record.problem < num_problems
        ]


def todo_list(
    planners: Sequence[str],
    budgets: Sequence[float | None],
    num_problems: int,
    done: Collection[PlanKey] = (),
) -> list[Todo]:
    """The problems that are not solved by all planners under all budgets, and by whom they are not.

    Args:
        planners: Names, in the order of problem 0.
        budgets: The order in which they are raced under.
        num_problems: How many.
        done: Results that are there.
    """
    todos = []
    for problem in range(num_problems):
        first = problem % len(planners)
        in_turn = [*planners[first:], *planners[:first]]
        turns = tuple(
            (planner, budget)
            for budget in budgets
            for planner in in_turn
            if (planner, problem, budget) not in done
        )
        if turns:
            todos.append(Todo(problem, turns))
    return todos


def read_cold(out: Path) -> dict[str, Mapping[str, float]]:
    """What is known of first plans; nothing if the file is missing."""
    path = out / COLD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
