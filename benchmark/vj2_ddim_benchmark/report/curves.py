"""The pictures of success against time, evaluations, and what a study varied.

At most ten lines are drawn; the tables of the report hold the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from vj2_ddim_benchmark.report.summary import Row
from vj2_ddim_benchmark.report.tables import overall, values_of
from vj2_ddim_benchmark.studies import Study, split_name
from vj2_ddim_plugin.cli.pictures import as_label
from vj2_ddim_plugin.files import atomic_path

MOST_LINES = 10
TOLD_OF_FIRST = (
    "ddim-16-ranker-4", "ddim-16", "ddim-1", "retrieval-16", "gaussian-prior-16", "regression",
    "gesture-cem-8x64", "cem-8x32", "gradient-descent-adam-10-x16", "gradient-descent-adam-10",
)  # fmt: skip
"""Who is drawn where there are more planners than lines: every kind of planner, its best known."""

COLORS = (
    "#0b5394", "#2e9fdf", "#12a594", "#6a3d9a", "#b15928", "#4d4d4d", "#e08a00", "#b8a000",
    "#c2185b", "#e53935",
)  # fmt: skip
MARKS = "o^sDPXv<>*"
OURS = "ddim"
SUCCESS = "goals reached (%)"
NAME = {
    "xytext": (8, 0), "textcoords": "offset points", "fontsize": 9, "va": "center",
    "bbox": {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.5},
}  # fmt: skip
PLACES = (  # of a name from its point, in typographic points, the best first
    *((9, 0), (8, 9), (8, -9), (0, 13), (0, -13), (-9, 0)),
    *((x, step) for step in (18, -18, 27, -27, 36, -36) for x in (8, -8)),
)
DPI = 130

Point = tuple[float, float, float, float]
"""Where on the horizontal axis; success and the ends of its 95 % interval, in percent."""


def shown_planners(rows: Sequence[Row], most: int = MOST_LINES) -> list[str]:
    """Who is drawn, in order of appearance: all if they are few, or else those to be told of."""
    names = list(dict.fromkeys(row["planner"] for row in rows))
    in_turn = dict.fromkeys([*(n for n in TOLD_OF_FIRST if n in names), *names])
    chosen = list(in_turn)[:most]
    return [name for name in names if name in chosen]


def points_of(rows: Sequence[Row], planner: str, key: str) -> list[Point]:
    """A planner's points over its budgets on the whole task, from left to right."""
    return sorted(
        (row[key], *_in_percent(row, "any_time_success"))
        for row in overall(rows)
        if row["planner"] == planner
    )


def draw_success(path: Path, rows: Sequence[Row]) -> None:
    """Success against the time of a plan; under several budgets against cost evaluations too."""
    planners = shown_planners(rows)
    several = len({row["budget_ms"] for row in overall(rows)}) > 1
    figure = Figure(figsize=(8.6, 9.6 if several else 5.4), layout="constrained")
    top, *below = figure.subplots(2 if several else 1, 1, squeeze=False)[:, 0]
    time, others = Panel(top), [Panel(axes) for axes in below]
    for index, planner in enumerate(planners):
        time.line(index, points_of(rows, planner, "p50_ms"), planner)
        for panel in others:
            panel.line(index, points_of(rows, planner, "cost_evaluations"), planner)
    top.set(xscale="log", xlabel="time of one plan, median (ms, logarithmic)", ylabel=SUCCESS)
    top.set_title("One-gesture goals on unseen screens: goals reached against planning time")
    top.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    top.xaxis.set_minor_formatter(NullFormatter())
    for axes in below:
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        axes.set(xlabel="cost evaluations of one plan, mean (logarithmic)", ylabel=SUCCESS)
        axes.set_title("... and against how often the world model was asked for a cost")
        axes.set_xlim(-0.3, None)
    for axes in (top, *below):
        axes.xaxis.set_major_formatter("{x:g}")
    left_out = len({row["planner"] for row in rows}) - len(planners)
    rest = f"; {left_out} more planners are in the table" if left_out else ""
    words = f"Higher and further left is better. Bold: this project's. Bars: 95 % intervals{rest}."
    figure.supxlabel(words, fontsize=8.5, color="#555555")
    _save(path, figure, [time, *others])


def draw_study(path: Path, study: Study, rows: Sequence[Row]) -> None:
    """Success with its interval against what was changed, a line a planner."""
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.subplots()
    panel, values = Panel(axes), values_of(rows)
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [float(place) for place in range(len(values))]
    places = dict(zip(values, numbers, strict=True))
    lines: dict[str, list[Point]] = {}
    for row in overall(rows):
        series, value = split_name(row["planner"])
        lines.setdefault(series, []).append((places[value], *_in_percent(row, "success")))
    for index, (name, points) in enumerate(lines.items()):
        panel.line(index, sorted(points), name)
    if study.log and min(numbers) > 0:
        axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(numbers, [as_label(value) for value in values])
    axes.set(xlabel=study.axis, ylabel=f"{SUCCESS}, 95 % interval", title=study.title)
    _save(path, figure, [panel])


@dataclass
class Panel:
    """Axes of success in percent, and the names that its lines will bear."""

    axes: Any
    named: list[tuple[float, float, str, str]] = field(default_factory=list)
    marks: list[tuple[float, float]] = field(default_factory=list)

    def line(self, index: int, points: Sequence[Point], name: str) -> None:
        """Points with the bars of their intervals, joined."""
        x, success, low, high = np.transpose(points)
        bars = np.maximum(0.0, [success - low, high - success])
        color, mark = COLORS[index % len(COLORS)], MARKS[index % len(MARKS)]
        style = {"ms": 6.5, "lw": 1.8, "elinewidth": 1.0, "capsize": 2, "color": color}
        self.axes.errorbar(x, success, yerr=bars, fmt=f"{mark}-", **style)
        self.named.append((x[-1], success[-1], name, color))
        self.marks += zip(x, success, strict=True)

    def frame(self) -> None:
        """Room for names on the right; what is common to all such pictures."""
        self.axes.set_ylim(-4, 106)
        self.axes.grid(alpha=0.25)
        self.axes.spines[["top", "right"]].set_visible(False)
        transform = self.axes.transData
        left, right = (transform.transform((x, 0))[0] for x in self.axes.get_xlim())
        further = transform.inverted().transform((right + 0.22 * (right - left), 0))[0]
        self.axes.set_xlim(None, further)

    def name_lines(self) -> None:
        """Write each name beside the end of its line, where it covers no other name or mark."""
        places = self.axes.transData.transform(self.marks)
        taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in places]
        for x, y, name, color in sorted(self.named, key=lambda each: -each[1]):
            weight = "bold" if name.startswith(OURS) else "normal"
            text = self.axes.annotate(as_label(name), (x, y), color=color, weight=weight, **NAME)
            for offset in PLACES:
                text.set_position(offset)
                text.set_ha("left" if offset[0] > 0 else "right" if offset[0] < 0 else "center")
                box = text.get_window_extent()
                if not any(box.overlaps(other) for other in taken):
                    break
            taken.append(text.get_window_extent())


def _in_percent(row: Row, key: str) -> tuple[float, float, float]:
    return 100 * row[key], 100 * row[f"{key}_low"], 100 * row[f"{key}_high"]


def _save(path: Path, figure: Figure, panels: Sequence[Panel]) -> None:
    for panel in panels:
        panel.frame()
    figure.draw_without_rendering()
    for panel in panels:
        panel.name_lines()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
