"""The tables of the report, from the rows of the summary and the settings of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vj2_ddim_benchmark.protocol.document import Table
from vj2_ddim_benchmark.protocol.summary import TASK, Row

__all__ = ["budget_name", "budget_table", "kind_table", "main_table", "setting_tables"]

COLUMNS = (
    "planner",
    "success",
    "95 %",
    "before projection",
    "cost",
    "p50 ms",
    "p95 ms",
    "first plan ms",
    "building ms",
    "cost evals",
    "denoiser evals",
)


def budget_name(budget_ms: float | None) -> str:
    """A budget in words."""
    return "no deadline" if budget_ms is None else f"{budget_ms:g} ms"


def main_table(rows: Sequence[Row]) -> Table:
    """One row a planner, and a budget where there are several, on the whole task."""
    names = _names(rows)
    return Table(COLUMNS, tuple(_cells(names[_key(row)], row) for row in _overall(rows)))


def budget_table(rows: Sequence[Row]) -> Table:
    """Success with its interval: one row a planner, one column a budget."""
    overall = {_key(row): _with_interval(row) for row in _overall(rows)}
    planners = list(dict.fromkeys(planner for planner, _ in overall))
    budgets = sorted({budget for _, budget in overall}, key=lambda b: (b is None, b or 0.0))
    body = [(name, *(overall.get((name, budget), "") for budget in budgets)) for name in planners]
    return Table(("planner", *(budget_name(budget) for budget in budgets)), tuple(body))


def kind_table(rows: Sequence[Row]) -> Table:
    """Success with its interval: one row a planner and budget, one column a kind of widget."""
    kinds: dict[str, int] = {}
    for row in rows:
        if row["task"] != TASK:
            kinds[row["task"]] = max(row["n"], kinds.get(row["task"], 0))
    shares = {(_key(row), row["task"]): _with_interval(row) for row in rows}
    body = [
        (name, *(shares.get((key, kind), "") for kind in kinds))
        for key, name in _names(rows).items()
    ]
    heads = (f"{kind.removeprefix(f'{TASK}/')} ({n})" for kind, n in kinds.items())
    return Table(("planner", *heads), tuple(body))


def setting_tables(setup: Mapping[str, Any]) -> tuple[Table, Table]:
    """The plain settings, and those that are groups of settings, their names joined by dots."""
    columns = ("setting", "value")
    groups = {name: value for name, value in setup.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in setup.items() if name not in groups}
    return Table(columns, tuple(_flat(plain))), Table(columns, tuple(_flat(groups)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Groups of plain values are one row each."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if not isinstance(value, Mapping):
            rows.append((prefix + name, _text(value)))
        elif any(isinstance(inner, Mapping) for inner in value.values()):
            rows += _flat(value, f"{prefix}{name}.")
        elif value:
            joined = ", ".join(f"{key} = {_text(inner)}" for key, inner in value.items())
            rows.append((prefix + name, joined))
    return rows


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _overall(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == TASK]


def _key(row: Row) -> tuple[str, float | None]:
    return row["planner"], row["budget_ms"]


def _names(rows: Sequence[Row]) -> dict[tuple[str, float | None], str]:
    """What to call a planner under a budget; the planner alone if there is one budget."""
    keys = [_key(row) for row in _overall(rows)]
    several = len({budget for _, budget in keys}) > 1
    return {
        (name, budget): f"{name}, {budget_name(budget)}" if several else name
        for name, budget in keys
    }


def _with_interval(row: Row) -> str:
    low, high = 100 * row["success_low"], 100 * row["success_high"]
    return f"{row['success']:.1%} ({low:.1f} to {high:.1f})"


def _cells(name: str, row: Row) -> tuple[str, ...]:
    before = row["success_before_projection"]
    first_plan, build = (
        "" if row[key] is None else f"{row[key]:.1f}" for key in ("first_plan_ms", "build_ms")
    )
    return (
        name,
        f"{row['success']:.1%}",
        f"{row['success_low']:.1%} to {row['success_high']:.1%}",
        "" if before is None else f"{before:.1%}",
        f"{row['final_cost']:.3g}",
        f"{row['p50_ms']:.1f}",
        f"{row['p95_ms']:.1f}",
        first_plan,
        build,
        f"{row['cost_evaluations']:g}",
        f"{row['denoiser_evaluations']:g}",
    )
