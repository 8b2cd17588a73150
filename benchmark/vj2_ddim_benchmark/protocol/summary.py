"""`summary.json`: one row a planner and task, from the raw records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.statistics import percentile, wilson_interval
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import write_json

__all__ = ["TASK", "Row", "summarise", "write_summary"]

TASK = "one-gesture"

Row = dict[str, Any]


def summarise(
    records: Sequence[Record], cold: Mapping[str, Mapping[str, float]] | None = None
) -> list[Row]:
    """Rows for the whole task, then for each kind of widget; planners in order of appearance.

    Args:
        records: Raw results.
        cold: What `read_cold` returns.

    Returns:
        Rows with the keys `planner`, `task` (`one-gesture`, or `one-gesture/KIND`), `budget_ms`
        (or None), `success` with its Wilson 95 % interval `success_low` to `success_high`,
        `p50_ms` and `p95_ms` of the plans' times, `cost_evaluations` and `denoiser_evaluations`
        (means a plan), `n`; and also `final_cost` (mean), `success_before_projection` (None where
        unknown) and `cold_ms` (building the optimizer and its first plan).

    Raises:
        DataError: There are no records, or a planner was run under two budgets.
    """
    if not records:
        raise DataError("there are no results to summarise; run the benchmark first")
    planners = list(dict.fromkeys(record.planner for record in records))
    tasks = [None, *sorted({record.kind for record in records})]
    rows = []
    for kind in tasks:
        for planner in planners:
            chosen = [r for r in records if r.planner == planner and kind in (None, r.kind)]
            if chosen:
                rows.append(_row(planner, kind, chosen, (cold or {}).get(planner, {})))
    return rows


def _row(
    planner: str, kind: str | None, records: Sequence[Record], cold: Mapping[str, float]
) -> Row:
    budgets = {record.budget_ms for record in records}
    if len(budgets) > 1:
        raise DataError(
            f"{planner} has results under the budgets {budgets}; summarise one at a time"
        )
    solved = sum(record.success for record in records)
    low, high = wilson_interval(solved, len(records))
    before = [record.success_before_projection for record in records]
    times = [record.wall_ms for record in records]
    return {
        "planner": planner,
        "task": TASK if kind is None else f"{TASK}/{kind}",
        "budget_ms": budgets.pop(),
        "success": solved / len(records),
        "success_low": low,
        "success_high": high,
        "p50_ms": percentile(times, 50),
        "p95_ms": percentile(times, 95),
        "cost_evaluations": float(np.mean([record.cost_evaluations for record in records])),
        "denoiser_evaluations": float(np.mean([r.denoiser_evaluations for r in records])),
        "n": len(records),
        "final_cost": float(np.mean([record.final_cost for record in records])),
        "success_before_projection": (
            None if None in before else float(np.mean([bool(value) for value in before]))
        ),
        "cold_ms": sum(cold.values()) if cold else None,
    }


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as JSON."""
    write_json(path, list(rows))
