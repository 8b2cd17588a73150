"""The picture of a run under several budgets: a curve a planner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vj2_ddim_benchmark.protocol.summary import TASK, Row
from vj2_ddim_plugin.files import atomic_path

__all__ = ["curve", "draw_curves"]


def curve(rows: Sequence[Row], planner: str, key: str) -> list[tuple[float, float, float, float]]:
    """A planner's points over its budgets on the whole task, from left to right.

    Args:
        rows: What `summarise` returns.
        planner: Its name.
        key: What is on the horizontal axis: `p50_ms` or `cost_evaluations`.

    Returns:
        The horizontal place, and success with the ends of its 95 % interval, in percent.
    """
    return sorted(
        (
            row[key],
            100 * row["success"],
            100 * row["success_low"],
            100 * row["success_high"],
        )
        for row in rows
        if row["task"] == TASK and row["planner"] == planner
    )


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Success against the time that plans took, and against cost evaluations."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    planners = list(dict.fromkeys(row["planner"] for row in rows))
    for index, planner in enumerate(planners):
        for side, key in zip(axes, ("p50_ms", "cost_evaluations"), strict=True):
            x, success, low, high = zip(*curve(rows, planner, key), strict=True)
            below = [max(0.0, s - end) for s, end in zip(success, low, strict=True)]
            above = [max(0.0, end - s) for s, end in zip(success, high, strict=True)]
            side.errorbar(
                x,
                success,
                yerr=[below, above],
                fmt=f"{'os^D'[index // 10 % 4]}-",
                color=f"C{index % 10}",
                capsize=3,
                label=planner if side is axes[0] else None,
            )
    axes[0].set(
        xscale="log",
        ylim=(-3, 103),
        xlabel="time of one plan, median (ms)",
        ylabel="goals reached (%), 95 % interval",
    )
    axes[1].set_xscale("symlog", linthresh=1)
    axes[1].set(xlabel="cost evaluations of one plan, mean", xlim=(-0.2, None))
    for side in axes:
        side.xaxis.set_major_formatter("{x:g}")
        side.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
