"""`summary.json`: one row a planner, task and budget, from the raw records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.protocol.gather import Cold
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.statistics import percentile, wilson_interval
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import write_json

__all__ = ["MULTIMODAL", "TASK", "Row", "by_budget", "summarise", "write_summary"]

TASK = "one-gesture"
MULTIMODAL = "multimodal"

Row = dict[str, Any]


def by_budget(records: Sequence[Record]) -> dict[float | None, list[Record]]:
    """The records under each budget: the smallest first, no deadline last."""
    budgets = sorted({record.budget_ms for record in records}, key=lambda b: (b is None, b or 0.0))
    return {budget: [r for r in records if r.budget_ms == budget] for budget in budgets}


def summarise(
    records: Sequence[Record],
    cold: Cold | None = None,
    multimodal: Sequence[str] = MULTIMODAL_KINDS,
) -> list[Row]:
    """Rows for the whole task, for each kind of widget, and for all multimodal ones together.

    Args:
        records: Raw results.
        cold: What `read_cold` returns.
        multimodal: The kinds whose goals are reached by several different gestures.

    Returns:
        Rows, planners in order of appearance, with the keys `planner`, `task` (`one-gesture`,
        `one-gesture/KIND` or `one-gesture/multimodal`), `budget_ms` (or None), `success` with its
        Wilson 95 % interval `success_low` to `success_high`, where a plan that was late is a
        failure, the same three of `any_time_success`, where it is not, `late` (the share of such
        plans), `p50_ms` and `p95_ms` of the plans' times, `cost_evaluations` and
        `denoiser_evaluations` (means a plan), `n`; and also `final_cost` (mean),
        `success_before_projection` (None where unknown), `build_ms` (of the optimizer),
        `first_plan_ms` (its first plan, which is not in the percentiles) and `cold_ms` (their sum;
        all three None where unknown).

    Raises:
        DataError: There are no records.
    """
    if not records:
        raise DataError("there are no results to summarise; run the benchmark first")
    planners = list(dict.fromkeys(record.planner for record in records))
    kinds = sorted({record.kind for record in records})
    tasks = {TASK: kinds, **{f"{TASK}/{kind}": [kind] for kind in kinds}}
    several = [kind for kind in kinds if kind in multimodal]
    if several:
        tasks[f"{TASK}/{MULTIMODAL}"] = several
    rows: list[Row] = []
    for task, members in tasks.items():
        for planner in planners:
            chosen = [r for r in records if r.planner == planner and r.kind in members]
            times = (cold or {}).get(planner, {})
            rows += [_row(planner, task, same, times) for same in by_budget(chosen).values()]
    return rows


def _row(planner: str, task: str, records: Sequence[Record], cold: Mapping[str, float]) -> Row:
    before = [record.success_before_projection for record in records]
    times = [record.wall_ms for record in records]
    return {
        "planner": planner,
        "task": task,
        "budget_ms": records[0].budget_ms,
        **_share("success", [record.solved for record in records]),
        **_share("any_time_success", [record.success for record in records]),
        "late": float(np.mean([record.late for record in records])),
        "p50_ms": percentile(times, 50),
        "p95_ms": percentile(times, 95),
        "cost_evaluations": float(np.mean([record.cost_evaluations for record in records])),
        "denoiser_evaluations": float(np.mean([r.denoiser_evaluations for r in records])),
        "n": len(records),
        "final_cost": float(np.mean([record.final_cost for record in records])),
        "success_before_projection": (
            None if None in before else float(np.mean([bool(value) for value in before]))
        ),
        "build_ms": cold.get("build_ms"),
        "first_plan_ms": cold.get("first_plan_ms"),
        "cold_ms": sum(cold.values()) if cold else None,
    }


def _share(name: str, outcomes: Sequence[bool]) -> Row:
    low, high = wilson_interval(sum(outcomes), len(outcomes))
    return {name: sum(outcomes) / len(outcomes), f"{name}_low": low, f"{name}_high": high}


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as JSON."""
    write_json(path, list(rows))
