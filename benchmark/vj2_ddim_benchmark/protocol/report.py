"""The report for people: a table for the terminal, and one page as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as TerminalTable

from vj2_ddim_benchmark.protocol.document import Document, Picture, Section
from vj2_ddim_benchmark.protocol.html import to_html
from vj2_ddim_benchmark.protocol.markdown import to_markdown
from vj2_ddim_benchmark.protocol.pairs import (
    SIGNIFICANT,
    against_table,
    all_pairs,
    matrix_table,
    pairs_against,
)
from vj2_ddim_benchmark.protocol.records import TOLERANCE_MS, TOLERANCE_SHARE, Record
from vj2_ddim_benchmark.protocol.summary import TASK, Row, by_budget
from vj2_ddim_benchmark.protocol.tables import (
    budget_name,
    budget_table,
    evaluation_table,
    kind_table,
    main_table,
    setting_tables,
)
from vj2_ddim_plugin.files import atomic_path

__all__ = ["make_document", "rich_table", "write_report"]

IN_TERMINAL = ("planner", "success", "95 %", "p50 ms", "cost evals")
MEANINGS = (
    "A plan succeeds if executing it puts the screen into the goal state; before "
    "projection is the same for the plan as it was before it was projected onto valid gestures. "
    "Intervals are Wilson's, 95 %. The cost is the world model's, of the plan that was executed, "
    "mean over the problems. Times are of one plan at a time, from two pictures to the plan, on a "
    "warm planner; building the optimizer and its first plan are timed apart. Evaluations are "
    "means a plan: candidates whose cost was asked for, and rows that went through the denoiser."
)
LATENESS = (
    "Under a budget a plan that was late counts as a failure, here and in every other table and "
    f"pair: one that took longer than the budget by more than {TOLERANCE_MS:g} ms or "
    f"{TOLERANCE_SHARE:.0%} of it, whichever is more, so that noise of the clock does not decide. "
    "Some planners cannot stop early."
)
EVALUATIONS = (
    "Of each planner's budgets, the one with the most cost evaluations a plan (mean) that are no "
    "more than the head of the column says. Time does not count here: a late plan is what it is."
)
KINDS = "Multimodal is all kinds together whose goals are reached by several different gestures."
CAPTIONS = {
    "success_against_time": "Goals reached against the median time of one plan, a point a planner; "
    "bars are Wilson's 95 % intervals.",
    "curves": "Goals reached against the median time of one plan and against its mean number of "
    "cost evaluations, a curve a planner through its budgets; late plans are shown where they were "
    "ready, not as failures; bars are Wilson's 95 % intervals.",
    "chain": "A chain of gestures: the screen with the finger on it, and the goal.",
    "landscape": "One goal: the world model's cost of a tap at every place of the screen, the path "
    "of gradient descent, and the candidates of the sampler.",
    "plans": "Goals, and each planner's plans drawn over the screens they were made for; framed "
    "green where they reach the goal, red where they do not.",
}


def rich_table(rows: Sequence[Row]) -> TerminalTable:
    """The rows of the whole task, for the terminal; the columns that fit 80 characters."""
    table = main_table(rows)
    title = f"{TASK}: {max(row['n'] for row in rows)} problems"
    shown = TerminalTable(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in IN_TERMINAL:
        shown.add_column(name, justify="right" if name != "planner" else "left", no_wrap=True)
    for cells in table.rows:
        named = dict(zip(table.columns, cells, strict=True))
        shown.add_row(*(named[name] for name in IN_TERMINAL))
    return shown


def write_report(
    path: Path,
    rows: Sequence[Row],
    records: Sequence[Record],
    setup: Mapping[str, Any],
    pictures: Sequence[Path] = (),
    studies: Sequence[Section] = (),
) -> None:
    """Write the page as Markdown, and beside it, with the ending `.html`, as one HTML file.

    Args:
        path: The Markdown file.
        rows: What `summarise` returns.
        records: The raw results behind them.
        setup: Settings and environment of the run.
        pictures: PNG or GIF files in the folder of the page or below.
        studies: What the page says of chains and studies.

    Raises:
        DataError: A picture is neither.
    """
    document = make_document(rows, records, setup, pictures, studies)
    for target, text in (
        (path, to_markdown(document, path.parent)),
        (path.with_suffix(".html"), to_html(document)),
    ):
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")


def make_document(
    rows: Sequence[Row],
    records: Sequence[Record],
    setup: Mapping[str, Any],
    pictures: Sequence[Path] = (),
    studies: Sequence[Section] = (),
) -> Document:
    """The page: setup, planners, budgets, kinds, pairs, studies, pictures, all other settings."""
    plain, further = setting_tables(setup)
    budgets = by_budget(records)
    sections = [
        Section("How it was run", (plain,)),
        Section("Planners", (MEANINGS, main_table(rows))),
    ]
    if set(budgets) != {None}:
        sections.append(Section("Success at equal time", (LATENESS, budget_table(rows))))
    if len(budgets) > 1:
        evaluations = (EVALUATIONS, evaluation_table(rows))
        sections.append(Section("Success at equal numbers of cost evaluations", evaluations))
    sections.append(Section("Success by kind of widget", (KINDS, kind_table(rows))))
    for budget, same in budgets.items():
        sections += _pair_sections(same, budget_name(budget) if len(budgets) > 1 else "")
    sections += studies
    shown = [Picture(path, CAPTIONS.get(path.stem, path.stem)) for path in pictures]
    sections.append(Section("Pictures", tuple(shown) or ("There are none.",)))
    if further.rows:
        sections.append(Section("Further settings", (further,)))
    return Document("Planners side by side", _opening(rows, setup), tuple(sections))


def _opening(rows: Sequence[Row], setup: Mapping[str, Any]) -> tuple[str, ...]:
    """What was done, and whether all of it was."""
    overall = [row for row in rows if row["task"] == TASK]
    asked = setup.get("num_problems", max(row["n"] for row in overall))
    split = f" of the {setup['split']} split" if "split" in setup else ""
    first = (
        f"{len({row['planner'] for row in overall})} planners, {asked} one-gesture problems on "
        f"screens{split}, the same for all."
    )
    missing = [f"{row['planner']} has {row['n']}" for row in overall if row["n"] != asked]
    if not missing:
        return (first,)
    return (
        first,
        f"This run is not finished: of {asked} problems, {', '.join(missing)}. Shares and times "
        "are of different problems; only the pairs compare like with like.",
    )


def _pair_sections(records: Sequence[Record], budget: str) -> list[Section]:
    """Pairs with the first planner, and every pair, under one budget."""
    where = f", {budget}" if budget else ""
    reference, pairs = records[0].planner, all_pairs(records)
    if not pairs:
        return []
    return [
        Section(
            f"{reference} against the others{where}",
            (
                "McNemar's test on problems that only one of the two solved. The p-values are not "
                "corrected for their number.",
                against_table(pairs_against(records, reference)),
            ),
        ),
        Section(
            f"Every pair{where}",
            (
                "How many problems only the planner of the row solved : only that of the column, "
                "and McNemar's exact p. Green is ahead and red behind with p below "
                f"{SIGNIFICANT / len(pairs):.2g}: {SIGNIFICANT:g} over {len(pairs)} pairs.",
                matrix_table(pairs),
            ),
            wide=True,
        ),
    ]
