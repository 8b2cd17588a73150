"""The report for people: a table for the terminal and a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.statistics import mcnemar
from vj2_ddim_benchmark.protocol.summary import TASK, Row
from vj2_ddim_plugin.files import atomic_path

__all__ = ["paired_rows", "rich_table", "write_report"]

COLUMNS = (
    "planner",
    "success",
    "95 %",
    "before projection",
    "cost",
    "p50 ms",
    "p95 ms",
    "cold ms",
    "cost evals",
    "denoiser evals",
)
IN_TERMINAL = ("planner", "success", "95 %", "p50 ms", "cost evals")
PAIRED_COLUMNS = ("against", "only ours", "only theirs", "exact p", "mid-p")


def rich_table(rows: Sequence[Row]) -> Table:
    """The rows of the whole task, for the terminal; the columns that fit 80 characters."""
    chosen = [row for row in rows if row["task"] == TASK]
    title = f"{TASK}: {chosen[0]['n']} problems"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in IN_TERMINAL:
        table.add_column(name, justify="right" if name != "planner" else "left", no_wrap=True)
    for row in chosen:
        cells = dict(zip(COLUMNS, _cells(row), strict=True))
        table.add_row(*(cells[name] for name in IN_TERMINAL))
    return table


def paired_rows(records: Sequence[Record], reference: str) -> list[list[str]]:
    """McNemar's test of the reference against every other planner, on the problems of both."""
    solved: dict[str, dict[int, bool]] = {}
    for record in records:
        solved.setdefault(record.planner, {})[record.problem] = record.success
    ours = solved.pop(reference)
    rows = []
    for planner, theirs in solved.items():
        common = sorted(set(ours) & set(theirs))
        if common:
            test = mcnemar([ours[i] for i in common], [theirs[i] for i in common])
            counts = str(test.only_first), str(test.only_second)
            rows.append([planner, *counts, f"{test.exact_p:.2g}", f"{test.mid_p:.2g}"])
    return rows


def write_report(
    path: Path,
    rows: Sequence[Row],
    records: Sequence[Record],
    setup: Mapping[str, Any],
    pictures: Sequence[Path] = (),
) -> None:
    """Write `report.md`: the tables, the paired tests, the pictures, and how it was run."""
    overall = [row for row in rows if row["task"] == TASK]
    reference = overall[0]["planner"]
    parts = [
        "# Planners side by side",
        f"{overall[0]['n']} one-gesture problems on screens that no part of training has seen. A "
        "plan succeeds if executing it puts the screen exactly into the goal state. Times are of "
        "one plan at a time, from two pictures to the plan; cold is loading the optimizer and its "
        "first plan. Evaluations are means a plan.",
        _markdown(COLUMNS, [_cells(row) for row in overall]),
        "## Success by kind of widget",
        _by_kind(rows),
        f"## {reference} against the others, problem by problem",
        "McNemar's test on problems that only one of the two solved.",
        _markdown(PAIRED_COLUMNS, paired_rows(records, reference)),
        "## Pictures",
        *(f"![{image.stem}]({image.relative_to(path.parent)})" for image in pictures),
        "## How it was run",
        _markdown(("setting", "value"), _flat(setup)),
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Nested settings as rows, their names joined by dots."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append([prefix + name, f"{value:.4g}" if isinstance(value, float) else str(value)])
    return rows


def _by_kind(rows: Sequence[Row]) -> str:
    kinds = list(dict.fromkeys(row["task"] for row in rows if row["task"] != TASK))
    shares = {(row["planner"], row["task"]): f"{row['success']:.1%}" for row in rows}
    planners = list(dict.fromkeys(row["planner"] for row in rows))
    table = [[name, *(shares.get((name, kind), "") for kind in kinds)] for name in planners]
    return _markdown(("planner", *(kind.removeprefix(f"{TASK}/") for kind in kinds)), table)


def _cells(row: Row) -> list[str]:
    before, cold = row["success_before_projection"], row["cold_ms"]
    return [
        row["planner"],
        f"{row['success']:.1%}",
        f"{row['success_low']:.1%} to {row['success_high']:.1%}",
        "" if before is None else f"{before:.1%}",
        f"{row['final_cost']:.3g}",
        f"{row['p50_ms']:.1f}",
        f"{row['p95_ms']:.1f}",
        "" if cold is None else f"{cold:.1f}",
        f"{row['cost_evaluations']:g}",
        f"{row['denoiser_evaluations']:g}",
    ]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
