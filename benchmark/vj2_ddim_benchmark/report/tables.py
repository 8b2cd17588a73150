"""The tables of the report: frames of text whose first column names the rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import pandas as pd

from vj2_ddim_benchmark.race.records import Record
from vj2_ddim_benchmark.report.summary import CHAIN, ONE_GESTURE, PairedTest, Row, mcnemar
from vj2_ddim_benchmark.studies import Study, split_name

PLANNER = "planner"
EVALUATIONS = (0, 16, 64, 256, 1024)
SIGNIFICANT = 0.05


def overall(rows: Sequence[Row], task: str = ONE_GESTURE) -> list[Row]:
    """The rows of a whole task."""
    return [row for row in rows if row["task"] == task]


def budget_name(budget_ms: float | None) -> str:
    """A budget in words."""
    return "no deadline" if budget_ms is None else f"{budget_ms:g} ms"


def with_interval(row: Row, key: str = "success") -> str:
    """A share and its interval, in percent."""
    return f"{row[key]:.1%} ({100 * row[f'{key}_low']:.1f} to {100 * row[f'{key}_high']:.1f})"


def main_table(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a planner, and a budget where there are several, on the whole task."""
    names = _names(overall(rows))
    return pd.DataFrame(
        {
            PLANNER: names[_key(row)],
            "success": f"{row['success']:.1%}",
            "95 %": f"{row['success_low']:.1%} to {row['success_high']:.1%}",
            "before projection": _text(row["success_before_projection"], ".1%"),
            "cost": f"{row['final_cost']:.3g}",
            "p50 ms": f"{row['p50_ms']:.1f}",
            "p95 ms": f"{row['p95_ms']:.1f}",
            "first plan ms": _text(row["first_plan_ms"], ".1f"),
            "building ms": _text(row["build_ms"], ".1f"),
            "cost evals": f"{row['cost_evaluations']:.4g}",
            "denoiser evals": f"{row['denoiser_evaluations']:.4g}",
            "late": "" if row["budget_ms"] is None else f"{row['late']:.1%}",
        }
        for row in overall(rows)
    )


def budget_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Success in time with its interval: one row a planner, one column a budget."""
    shown = overall(rows)
    budgets = sorted({row["budget_ms"] for row in shown}, key=lambda b: (b is None, b or 0.0))
    cells = ((row["planner"], budget_name(row["budget_ms"]), with_interval(row)) for row in shown)
    return _wide(cells, [budget_name(budget) for budget in budgets])


def evaluation_table(rows: Sequence[Row], limits: Sequence[int] = EVALUATIONS) -> pd.DataFrame:
    """Success, be it late, under the budget with the most cost evaluations within each limit."""
    heads = {limit: f"{limit} or fewer" for limit in limits}
    cells = []
    for planner in dict.fromkeys(row["planner"] for row in rows):
        own = [row for row in overall(rows) if row["planner"] == planner]
        for limit, head in heads.items():
            within = [row for row in own if row["cost_evaluations"] <= limit]
            most = max(within, key=lambda row: row["cost_evaluations"], default=None)
            text = "" if most is None else with_interval(most, "any_time_success")
            cells.append((planner, head, text))
    return _wide(cells, list(heads.values()))


def kind_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Success with its interval: one row a planner and budget, one column a kind of widget."""
    names, heads = _names(overall(rows)), _heads(rows, ONE_GESTURE, "{} ({})")
    cells = (
        (names[_key(row)], heads[row["task"]], with_interval(row))
        for row in rows
        if row["task"] != ONE_GESTURE
    )
    return _wide(cells, list(heads.values()), list(names.values()))


def chain_table(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a planner, and a budget where there are several: all chains, then each length."""
    shown, heads = overall(rows, CHAIN), _heads(rows, CHAIN, "of {} ({})")
    names = _names(shown)
    shares = {(_key(row), row["task"]): with_interval(row) for row in rows}
    return pd.DataFrame(
        {
            PLANNER: names[_key(row)],
            "success": with_interval(row),
            **{head: shares.get((_key(row), task), "") for task, head in heads.items()},
            "wrong stops": f"{row['wrong_stops']:.1%}",
            "gestures": f"{row['gestures']:.2f}",
            "p50 ms a plan": _text(row["p50_ms"], ".1f"),
            "p50 ms a chain": f"{row['chain_p50_ms']:.1f}",
            "cost evals": f"{row['cost_evaluations']:.4g}",
        }
        for row in shown
    )


def study_table(study: Study, rows: Sequence[Row]) -> pd.DataFrame:
    """Success with its interval and the median time: one row a planner, one column a value."""
    values = values_of(rows)
    heads = dict(zip(values, [f"{study.axis} = {values[0]}", *values[1:]], strict=True))
    cells = []
    for row in overall(rows):
        series, value = split_name(row["planner"])
        cells.append((series, heads[value], f"{with_interval(row)}, {row['p50_ms']:.1f} ms"))
    return _wide(cells, list(heads.values()))


def values_of(rows: Sequence[Row]) -> list[str]:
    """What a study varied: in ascending order if they are numbers, or else as they appear."""
    values = list(dict.fromkeys(split_name(row["planner"])[1] for row in rows))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


@dataclass(frozen=True)
class Pair:
    """Two planners, and McNemar's test on the problems that both were given."""

    first: str
    second: str
    num_problems: int
    test: PairedTest


def pairs_of(records: Sequence[Record], reference: str | None = None) -> list[Pair]:
    """Every two planners that share problems, or the reference with each; under one budget."""
    solved: dict[str, dict[int, bool]] = {}
    for record in records:
        solved.setdefault(record.planner, {})[record.problem] = record.solved
    pairs = []
    names = combinations(solved, 2) if reference is None else product([reference], solved)
    for first, second in names:
        common = sorted(solved.get(first, {}).keys() & solved[second].keys())
        if common and first != second:
            test = mcnemar(*([solved[name][i] for i in common] for name in (first, second)))
            pairs.append(Pair(first, second, len(common), test))
    return pairs


def against_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair, named for the second planner."""
    return pd.DataFrame(
        {
            "against": pair.second,
            "problems": str(pair.num_problems),
            "only ours": str(pair.test.only_first),
            "only theirs": str(pair.test.only_second),
            "exact p": f"{pair.test.exact_p:.2g}",
            "mid-p": f"{pair.test.mid_p:.2g}",
        }
        for pair in pairs
    )


def matrix_table(pairs: Sequence[Pair]) -> tuple[pd.DataFrame, dict[tuple[int, int], str]]:
    """Every pair twice: problems only the row's planner solved : only the column's, and exact p.

    Cells are marked `ahead` or `behind` below `SIGNIFICANT` over the number of pairs (Bonferroni).
    """
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    cells = [["·" if row == column else "" for column in names] for row in names]
    marks = {}
    for pair in pairs:
        test, first, second = pair.test, names.index(pair.first), names.index(pair.second)
        cells[first][second] = f"{test.only_first} : {test.only_second} (p {test.exact_p:.1g})"
        cells[second][first] = f"{test.only_second} : {test.only_first} (p {test.exact_p:.1g})"
        if test.exact_p < SIGNIFICANT / len(pairs):
            ahead = (first, second) if test.only_first > test.only_second else (second, first)
            marks[ahead[0], ahead[1] + 1], marks[ahead[1], ahead[0] + 1] = "ahead", "behind"
    body = [(f"{i}. {name}", *cells[i - 1]) for i, name in enumerate(names, start=1)]
    columns = ["", *(f"{i}." for i in range(1, len(names) + 1))]
    return pd.DataFrame(body, columns=columns), marks


def setting_tables(setup: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The plain settings, and those that are groups of settings, their names joined by dots."""
    grouped = {name: isinstance(value, Mapping) for name, value in setup.items()}
    plain, groups = (
        _flat({name: value for name, value in setup.items() if grouped[name] is wanted})
        for wanted in (False, True)
    )
    columns = ["setting", "value"]
    return pd.DataFrame(plain, columns=columns), pd.DataFrame(groups, columns=columns)


def _wide(
    cells: Iterable[tuple[str, str, str]], columns: Sequence[str], index: Sequence[str] = ()
) -> pd.DataFrame:
    """Cells by row and column as a table, empty where there is none."""
    tall = pd.DataFrame(cells, columns=[PLANNER, "column", "text"])
    names = list(index) or tall[PLANNER].unique()
    wide = tall.pivot(index=PLANNER, columns="column", values="text").reindex(names)
    return wide.reindex(columns=list(columns)).astype(object).fillna("").reset_index(names=PLANNER)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Groups of plain values are one row each."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if not isinstance(value, Mapping):
            rows.append((prefix + name, _plain(value)))
        elif any(isinstance(inner, Mapping) for inner in value.values()):
            rows += _flat(value, f"{prefix}{name}.")
        elif value:
            joined = ", ".join(f"{key} = {_plain(inner)}" for key, inner in value.items())
            rows.append((prefix + name, joined))
    return rows


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _key(row: Row) -> tuple[str, float | None]:
    return row["planner"], row["budget_ms"]


def _names(rows: Sequence[Row]) -> dict[tuple[str, float | None], str]:
    """What to call a planner under a budget; the planner alone if there is one budget."""
    keys = [_key(row) for row in rows]
    several = len({budget for _, budget in keys}) > 1
    return {key: f"{key[0]}, {budget_name(key[1])}" if several else key[0] for key in keys}


def _heads(rows: Sequence[Row], whole: str, form: str) -> dict[str, str]:
    """By part of a task, its name and how many problems it has at most."""
    parts = (row["task"] for row in rows if row["task"] != whole)
    nums = {task: max(row["n"] for row in overall(rows, task)) for task in parts}
    return {task: form.format(task.removeprefix(f"{whole}/"), num) for task, num in nums.items()}
