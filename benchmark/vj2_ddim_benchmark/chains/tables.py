"""What the report says of chains: a table, its meaning, and the same for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as TerminalTable

from vj2_ddim_benchmark.chains.race import SPARE_GESTURES
from vj2_ddim_benchmark.chains.summary import TASK
from vj2_ddim_benchmark.protocol.document import Section, Table
from vj2_ddim_benchmark.protocol.summary import Row
from vj2_ddim_benchmark.protocol.tables import budget_name, with_interval

__all__ = ["chain_section", "chain_table", "rich_chain_table"]

IN_TERMINAL = ("planner", "success", "gestures", "p50 ms a plan")
MEANING = (
    "The goal differs from the start in as many widgets as the chain is long, and one gesture "
    "changes one widget. The host shows the planner the screen as it is and the final goal, "
    "executes the plan, and shows it again what came of it. It stops by itself when the latents of "
    "the two pictures are close enough, or when it has made "
    f"{SPARE_GESTURES} gestures more than the chain is long; only then is the true state compared. "
    "A wrong stop is a chain in which the host believed it was there and was not. Intervals are "
    "Wilson's, 95 %; gestures and cost evaluations are means a chain."
)


def chain_section(rows: Sequence[Row]) -> Section:
    """The part of the report about chains, from what `summarise_chains` returns."""
    return Section("Chains of two to five gestures", (MEANING, chain_table(rows)))


def chain_table(rows: Sequence[Row]) -> Table:
    """One row a planner, and a budget where there are several: all chains, then each length."""
    lengths: dict[str, int] = {}
    for row in rows:
        if row["task"] != TASK:
            lengths[row["task"]] = max(row["n"], lengths.get(row["task"], 0))
    shares = {(row["planner"], row["budget_ms"], row["task"]): with_interval(row) for row in rows}
    overall = [row for row in rows if row["task"] == TASK]
    several = len({row["budget_ms"] for row in overall}) > 1
    body = []
    for row in overall:
        planner, budget = row["planner"], row["budget_ms"]
        body.append(
            (
                f"{planner}, {budget_name(budget)}" if several else planner,
                with_interval(row),
                *(shares.get((planner, budget, task), "") for task in lengths),
                f"{row['wrong_stops']:.1%}",
                f"{row['gestures']:.2f}",
                "" if row["p50_ms"] is None else f"{row['p50_ms']:.1f}",
                f"{row['chain_p50_ms']:.1f}",
                f"{row['cost_evaluations']:.4g}",
            )
        )
    heads = [f"of {task.removeprefix(f'{TASK}/')} ({n})" for task, n in lengths.items()]
    measures = ("wrong stops", "gestures", "p50 ms a plan", "p50 ms a chain", "cost evals")
    return Table(("planner", "success", *heads, *measures), tuple(body))


def rich_chain_table(rows: Sequence[Row]) -> TerminalTable:
    """The columns that fit 80 characters, for the terminal."""
    table = chain_table(rows)
    num = max(row["n"] for row in rows)
    shown = TerminalTable(title=f"{TASK}: {num} problems", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in IN_TERMINAL:
        shown.add_column(name, justify="right" if name != "planner" else "left", no_wrap=True)
    for cells in table.rows:
        named = dict(zip(table.columns, cells, strict=True))
        shown.add_row(*(named[name] for name in IN_TERMINAL))
    return shown
