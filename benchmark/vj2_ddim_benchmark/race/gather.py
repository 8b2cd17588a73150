"""Who plans when, and the log of what came of it: the one process that writes a run's results.

Planners take turns on every problem, under one budget after the other, and who comes first rotates,
so that noise of the machine hits all alike. A problem is solved by all of them in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vj2_ddim_benchmark.race.folder import Cold, RaceFolder
from vj2_ddim_benchmark.race.records import PlanKey, R, RecordLog
from vj2_ddim_plugin.cli.console import Progress
from vj2_ddim_plugin.files import write_json

__all__ = ["MapProblems", "Solved", "Todo", "gather", "silent", "todo_list"]


def silent(phase: str, done: int, total: int, line: str = "", /) -> None:
    """A `Progress` that nobody looks at."""


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
    folder: RaceFolder,
    planners: Sequence[str],
    budgets: Sequence[float | None],
    num_problems: int,
    map_problems: MapProblems,
    progress: Progress | None = None,
    phase: str = "plan",
    *,
    kind: type[R],
    workers: int = 1,
) -> list[R]:
    """Race on the first problems; results that are in the folder are kept, and the others made.

    Returns the records of these planners under these budgets on these problems, old and new.
    `workers` is noted in those that are made.
    """
    report = progress or silent
    with RecordLog(folder.results, kind) as log:
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

    Planners are in the order of problem 0.
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
