"""The pictures that need the planners and the world model, in `RUN/pictures/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vj2_ddim_benchmark.planners.gradient_descent import GradientDescentOptimizer
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.landscape import draw_landscape
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.run import Race
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_plugin.files import atomic_path

__all__ = ["draw_pictures", "draw_plans", "telling_problems"]

TAP_KINDS = ("switch", "keypad")
SOLVED, FAILED = "#2ca02c", "#d62728"


def draw_pictures(
    folder: Path,
    race: Race,
    competitors: Sequence[Competitor],
    records: Sequence[Record],
    budget_ms: float | None = None,
) -> None:
    """Draw `landscape.png` and `plans.png`.

    The first is one tap goal: the cost of tapping anywhere, the path of gradient descent, the
    sampler's candidates; the second is screens with plans over them.

    Args:
        folder: Where they go.
        race: The problems and the world model.
        competitors: Who raced; the first one is the reference.
        records: Their raw results under the budget.
        budget_ms: What the plans that are drawn are made under.
    """
    problems = telling_problems(records, competitors[0].name)
    descents = [c for c in competitors if isinstance(c.optimizer, GradientDescentOptimizer)]
    single = [c for c in descents if c.optimizer.num_restarts == 1] or descents  # type: ignore[attr-defined]
    samplers = [c for c in competitors if c.with_cost and c not in descents]
    kinds = race.problems.kind
    taps = [p for kind in TAP_KINDS for p in problems if kinds[p] == kind] or problems
    draw_landscape(
        folder / "landscape.png",
        race,
        taps[0],
        single[-1] if single else None,
        samplers[0] if samplers else None,
    )
    draw_plans(folder / "plans.png", race, competitors, problems, budget_ms)


def telling_problems(records: Sequence[Record], reference: str) -> list[int]:
    """For each kind, the first problem the reference solved and the first it did not."""
    chosen: dict[tuple[str, bool], int] = {}
    for record in sorted(records, key=lambda record: record.problem):
        if record.planner == reference:
            chosen.setdefault((record.kind, not record.solved), record.problem)
    return [chosen[key] for key in sorted(chosen)]


def draw_plans(
    path: Path,
    race: Race,
    competitors: Sequence[Competitor],
    problems: Sequence[int],
    budget_ms: float | None = None,
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
            result = race.plan(competitor, problem, budget_ms)
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
