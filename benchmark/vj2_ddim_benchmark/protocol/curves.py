"""The pictures of success: against planning time, and, under several budgets, evaluations too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from vj2_ddim_benchmark.protocol.summary import TASK, Row
from vj2_ddim_plugin.files import atomic_path

__all__ = ["curve", "draw_curves", "draw_line", "draw_success_against_time"]

Point = tuple[float, float, float, float]


def curve(rows: Sequence[Row], planner: str, key: str) -> list[Point]:
    """A planner's points over its budgets on the whole task, from left to right.

    Late plans are not failures here: the point is where the plan really was ready.

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
            100 * row["any_time_success"],
            100 * row["any_time_success_low"],
            100 * row["any_time_success_high"],
        )
        for row in rows
        if row["task"] == TASK and row["planner"] == planner
    )


def draw_line(axes: Any, index: int, points: Sequence[Point], label: str | None) -> None:  # noqa: ANN401
    """Points with the bars of their intervals, joined; colour and mark tell one line from others.

    Args:
        axes: Where.
        index: Which line it is.
        points: What `curve` returns.
        label: For the legend, or None.
    """
    x, success, low, high = zip(*points, strict=True)
    below = [max(0.0, s - end) for s, end in zip(success, low, strict=True)]
    above = [max(0.0, end - s) for s, end in zip(success, high, strict=True)]
    axes.errorbar(
        x,
        success,
        yerr=[below, above],
        fmt=f"{'os^D'[index // 10 % 4]}-",
        color=f"C{index % 10}",
        capsize=3,
        label=label,
    )
    axes.set(ylim=(-3, 103))
    axes.grid(alpha=0.3)


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Success against the time that plans took, and against cost evaluations."""
    figure = Figure(figsize=(11, _height(rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for index, planner in enumerate(_planners(rows)):
        draw_line(axes[0], index, curve(rows, planner, "p50_ms"), planner)
        draw_line(axes[1], index, curve(rows, planner, "cost_evaluations"), None)
    axes[0].set(
        xscale="log",
        xlabel="time of one plan, median (ms)",
        ylabel="goals reached (%), 95 % interval",
    )
    axes[1].set_xscale("symlog", linthresh=1)
    axes[1].set(xlabel="cost evaluations of one plan, mean", xlim=(-0.2, None))
    for side in axes:
        side.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def draw_success_against_time(path: Path, rows: Sequence[Row]) -> None:
    """Success with its 95 % interval against the median time of a plan, one point a planner."""
    figure = Figure(figsize=(8.5, _height(rows)), layout="constrained")
    axes = figure.subplots()
    for index, planner in enumerate(_planners(rows)):
        draw_line(axes, index, curve(rows, planner, "p50_ms"), planner)
    axes.set(
        xscale="log",
        xlabel="time of one plan, median (ms)",
        ylabel="goals reached (%), 95 % interval",
        title="One-gesture goals on unseen screens",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _planners(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["planner"] for row in rows))


def _height(rows: Sequence[Row]) -> float:
    """Inches that the legend needs, a line a planner."""
    return max(5.2, 0.4 + 0.215 * len(_planners(rows)))
