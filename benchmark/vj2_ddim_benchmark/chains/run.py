"""All planners through all chains, in turns, into one file; a run that was cut resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from vj2_ddim_benchmark.chains.records import ChainRecord
from vj2_ddim_benchmark.protocol.gather import RESULTS, MapProblems, todo_list
from vj2_ddim_benchmark.protocol.json_lines import JsonLines
from vj2_ddim_benchmark.protocol.run import Progress

__all__ = ["CHAINS_DIR", "run_chains"]

CHAINS_DIR = "chains"
"""Where the results of chains are, in the folder of a run."""


def run_chains(
    folder: Path,
    planners: Sequence[str],
    budgets: Sequence[float | None],
    num_chains: int,
    map_problems: MapProblems,
    progress: Progress | None = None,
) -> list[ChainRecord]:
    """Go through the chains; results that are already in the folder are kept.

    Args:
        folder: Where `results.jsonl` is, or will be; created if missing.
        planners: Names of those that race; who comes first rotates, as for one gesture.
        budgets: Deadlines of each plan in ms, or None for none.
        num_chains: The first so many chains.
        map_problems: Solves them: an executor around a `ChainWorker` or `ChainSettings`.
        progress: Called with `"chain"`, the chains that were gone through and their number.

    Returns:
        The records of these planners under these budgets on these chains, old and new.

    Raises:
        ConfigError: Another run is writing into the folder.
        DataError: The folder holds results that cannot be read.
    """
    report = progress or (lambda phase, done, total: None)
    with JsonLines(folder / RESULTS, ChainRecord) as log:
        done = {(record.planner, record.problem, record.budget_ms) for record in log.records}
        todos = todo_list(planners, budgets, num_chains, done)
        total, count = sum(len(todo.turns) for todo in todos), 0
        for solved in map_problems(todos):
            for record in cast(tuple[ChainRecord, ...], solved.records):
                log.append(record)
                count += 1
                report("chain", count, total)
        return [
            record
            for record in log.records
            if record.planner in planners
            and record.budget_ms in budgets
            and record.problem < num_chains
        ]
