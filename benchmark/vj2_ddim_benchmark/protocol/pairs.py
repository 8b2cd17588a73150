"""Planners two by two, on the problems that both were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from vj2_ddim_benchmark.protocol.document import Table
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.statistics import PairedTest, mcnemar

__all__ = ["SIGNIFICANT", "Pair", "against_table", "all_pairs", "matrix_table", "pairs_against"]

SIGNIFICANT = 0.05
AGAINST_COLUMNS = ("against", "problems", "only ours", "only theirs", "exact p", "mid-p")

Solved = dict[str, dict[int, bool]]


@dataclass(frozen=True)
class Pair:
    """Two planners and McNemar's test of them.

    Attributes:
        first: A planner.
        second: Another one.
        num_problems: Problems that both were given.
        test: Who alone solved how many of them, and the p-values.
    """

    first: str
    second: str
    num_problems: int
    test: PairedTest


def pairs_against(records: Sequence[Record], reference: str) -> list[Pair]:
    """The reference with every other planner it shares problems with, in order of appearance.

    Args:
        records: Results under one budget.
        reference: The planner that comes first in each pair.
    """
    solved = _solved(records)
    return _pairs(solved, [(reference, name) for name in solved if name != reference])


def all_pairs(records: Sequence[Record]) -> list[Pair]:
    """Every two planners that share problems, once; results under one budget."""
    solved = _solved(records)
    return _pairs(solved, list(combinations(solved, 2)))


def against_table(pairs: Sequence[Pair]) -> Table:
    """One row a pair, named for the second planner."""
    rows = [
        (
            pair.second,
            str(pair.num_problems),
            str(pair.test.only_first),
            str(pair.test.only_second),
            f"{pair.test.exact_p:.2g}",
            f"{pair.test.mid_p:.2g}",
        )
        for pair in pairs
    ]
    return Table(AGAINST_COLUMNS, tuple(rows))


def matrix_table(pairs: Sequence[Pair]) -> Table:
    """Every pair twice: problems only the row's planner solved : only the column's, and exact p.

    A cell is marked where the row's planner is ahead or behind with p below `SIGNIFICANT` divided
    by the number of pairs (Bonferroni). Columns are numbered as the rows are.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    cells = [["·" if row == column else "" for column in names] for row in names]
    marks = {}
    for pair in pairs:
        test = pair.test
        first, second = names.index(pair.first), names.index(pair.second)
        cells[first][second] = f"{test.only_first} : {test.only_second} (p {test.exact_p:.1g})"
        cells[second][first] = f"{test.only_second} : {test.only_first} (p {test.exact_p:.1g})"
        if test.exact_p < SIGNIFICANT / len(pairs):
            better, worse = (
                (first, second) if test.only_first > test.only_second else (second, first)
            )
            marks[better, worse + 1], marks[worse, better + 1] = "ahead", "behind"
    rows = [(f"{i}. {name}", *cells[i - 1]) for i, name in enumerate(names, start=1)]
    return Table(("", *(f"{i}." for i in range(1, len(names) + 1))), tuple(rows), marks)


def _solved(records: Sequence[Record]) -> Solved:
    """By planner, which problems it solved in time."""
    solved: Solved = {}
    for record in records:
        solved.setdefault(record.planner, {})[record.problem] = record.solved
    return solved


def _pairs(solved: Solved, names: Sequence[tuple[str, str]]) -> list[Pair]:
    pairs = []
    for first, second in names:
        ours, theirs = solved.get(first, {}), solved[second]
        common = sorted(set(ours) & set(theirs))
        if common:
            test = mcnemar([ours[i] for i in common], [theirs[i] for i in common])
            pairs.append(Pair(first, second, len(common), test))
    return pairs
