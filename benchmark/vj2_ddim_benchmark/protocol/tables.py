"""The tables of the report, from the rows of the summary and the settings of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vj2_ddim_benchmark.protocol.document import Table
from vj2_ddim_benchmark.protocol.summary import TASK, Row

__all__ = [
    "budget_name",
    "budget_table",
    "evaluation_table",
    "kind_table",
    "main_table",
    "setting_tables",
    "with_interval",
]

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
    "late",
)
EVALUATIONS = (0, 16, 64, 256, 1024)


def budget_name(budget_ms: float | None) -> str:
    """A budget in words."""
    return "no deadline" if budget_ms is None else f"{budget_ms:g} ms"


def main_table(rows: Sequence[Row]) -> Table:
    """One row a planner, and a budget where there are several, on the whole task."""
    names = _names(rows)
    return Table(COLUMNS, tuple(_cells(names[_key(row)], row) for row in _overall(rows)))


def budget_table(rows: Sequence[Row]) -> Table:
    """Success in time with its interval: one row a planner, one column a budget."""
    overall = {_key(row): with_interval(row) for row in _overall(rows)}
    planners = list(dict.fromkeys(planner for planner, _ in overall))
    budgets = sorted({budget for _, budget in overall}, key=lambda b: (b is None, b or 0.0))
    body = [(name, *(overall.get((name, budget), "") for budget in budgets)) for name in planners]
    return Table(("planner", *(budget_name(budget) for budget in budgets)), tuple(body))


def evaluation_table(rows: Sequence[Row], limits: Sequence[int] = EVALUATIONS) -> Table:
    """Success, be it late, with its interval: one row a planner, one column a limit.

    Each cell is of the budget under which the planner made the most cost evaluations a plan, of
    those with no more than the limit; it is empty where every budget took more.
    """
    body = []
    for planner, own in _by_planner(_overall(rows)).items():
        cells = []
        for limit in limits:
            within = [row for row in own if row["cost_evaluations"] <= limit]
            most = max(within, key=lambda row: row["cost_evaluations"], default=None)
            cells.append("" if most is None else with_interval(most, "any_time_success"))
        body.append((planner, *cells))
    return Table(("planner", *(f"{limit} or fewer" for limit in limits)), tuple(body))


def kind_table(rows: Sequence[Row]) -> Table:
    """Success with its interval: one row a planner and budget, one column a kind of widget.

    The last column is of all multimodal kinds together, where there are any.
    """
    kinds: dict[str, int] = {}
    for row in rows:
        if row["task"] != TASK:
            kinds[row["task"]] = max(row["n"], kinds.get(row["task"], 0))
    shares = {(_key(row), row["task"]): with_interval(row) for row in rows}
    body = [
        (name, *(shares.get((key, kind), "") for kind in kinds))
        for key, name in _names(rows).items()
    ]
    heads = (f"{kind.removeprefix(f'{TASK}/')} ({n})" for kind, n in kinds.items())
    return Table(("planner", *heads), tuple(body))


def with_interval(row: Row, key: str = "success") -> str:
    """A share and its interval, in percent."""
    return f"{row[key]:.1%} ({100 * row[f'{key}_low']:.1f} to {100 * row[f'{key}_high']:.1f})"


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


def _by_planner(rows: Sequence[Row]) -> dict[str, list[Row]]:
    planners: dict[str, list[Row]] = {}
    for row in rows:
        planners.setdefault(row["planner"], []).append(row)
    return planners


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
        f"{row['cost_evaluations']:.4g}",
        f"{row['denoiser_evaluations']:.4g}",
        "" if row["budget_ms"] is None else f"{row['late']:.1%}",
    )
