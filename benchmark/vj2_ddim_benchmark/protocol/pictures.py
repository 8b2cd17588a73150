"""The pictures of a run, in `RUN/pictures/`: see `draw_pictures`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from vj2_ddim_benchmark.planners.gradient_descent import GradientDescentOptimizer
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.landscape import draw_landscape
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.run import Race
from vj2_ddim_benchmark.protocol.summary import TASK, Row
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_plugin.files import atomic_path

__all__ = ["draw_pictures", "draw_plans", "draw_success_against_time", "telling_problems"]

TAP_KINDS = ("switch", "keypad")
SOLVED, FAILED = "#2ca02c", "#d62728"


def draw_pictures(
    folder: Path,
    race: Race,
    competitors: Sequence[Competitor],
    records: Sequence[Record],
    rows: Sequence[Row],
) -> list[Path]:
    """Draw all pictures of a run.

    Args:
        folder: Where they go.
        race: The problems and the world model.
        competitors: Who raced; the first one is the reference.
        records: Their raw results.
        rows: Their summary.

    Returns:
        `success_against_time.png`, `landscape.png` (one tap goal: the cost of tapping anywhere,
        the path of gradient descent, the sampler's candidates) and `plans.png` (screens with the
        plans over them).
    """
    paths = [folder / f"{name}.png" for name in ("success_against_time", "landscape", "plans")]
    reference = competitors[0]
    draw_success_against_time(paths[0], rows)
    problems = telling_problems(records, reference.name)
    descents = [c for c in competitors if isinstance(c.optimizer, GradientDescentOptimizer)]
    single = [c for c in descents if c.optimizer.num_restarts == 1] or descents  # type: ignore[attr-defined]
    samplers = [c for c in competitors if c.with_cost and c not in descents]
    kinds = race.problems.kind
    taps = [p for kind in TAP_KINDS for p in problems if kinds[p] == kind] or problems
    draw_landscape(
        paths[1], race, taps[0], single[-1] if single else None, samplers[0] if samplers else None
    )
    draw_plans(paths[2], race, competitors, problems)
    return paths


def telling_problems(records: Sequence[Record], reference: str) -> list[int]:
    """For each kind, the first problem the reference solved and the first it did not."""
    chosen: dict[tuple[str, bool], int] = {}
    for record in sorted(records, key=lambda record: record.problem):
        if record.planner == reference:
            chosen.setdefault((record.kind, not record.success), record.problem)
    return [chosen[key] for key in sorted(chosen)]


def draw_success_against_time(path: Path, rows: Sequence[Row]) -> None:
    """Success with its 95 % interval against the median time of a plan, one point a planner."""
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(row for row in rows if row["task"] == TASK):
        success, low, high = (
            100 * row[name] for name in ("success", "success_low", "success_high")
        )
        bars = [[max(0.0, success - low)], [max(0.0, high - success)]]
        axes.errorbar(
            row["p50_ms"],
            success,
            yerr=bars,
            fmt="os^D"[index // 10 % 4],
            color=f"C{index % 10}",
            ms=8,
            capsize=4,
            label=row["planner"],
        )
    axes.set(
        xscale="log",
        ylim=(-3, 103),
        xlabel="time of one plan, median (ms)",
        ylabel="goals reached (%), 95 % interval",
        title="One-gesture goals on unseen screens",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def draw_plans(
    path: Path, race: Race, competitors: Sequence[Competitor], problems: Sequence[int]
) -> None:
    """A row of goals, then each planner's plans over the screens, framed green where they work."""
    num_rows, num_columns = 1 + len(competitors), len(problems)
    figure = Figure(figsize=(1.9 * num_columns + 1.6, 2.0 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for column, problem in enumerate(problems):
        start, goal = race.problems.start.select(problem), race.problems.goal.select(problem)
        grid[0, column].imshow(goal.render()[0], interpolation="nearest")
        grid[0, column].set_title(f"{race.problems.kind[problem]} #{problem}", fontsize=9)
        for row, competitor in enumerate(competitors, start=1):
            result = race.plan(competitor.optimizer, problem, with_cost=competitor.with_cost)
            solved = bool(start.execute(result.actions).matches(goal.state)[0])
            axes = grid[row, column]
            axes.imshow(draw_gesture(start.render()[0], result.actions[0]))
            for spine in axes.spines.values():
                spine.set(color=SOLVED if solved else FAILED, linewidth=3)
    for axes in np.ravel(grid):
        axes.set(xticks=[], yticks=[])
    for row, name in enumerate(["goal", *(competitor.name for competitor in competitors)]):
        label = name.replace("gradient-descent-", "gradient\ndescent\n")
        grid[row, 0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
