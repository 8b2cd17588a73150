"""The picture that explains the project: what the cost looks like, and who finds its minimum.

The world model scores a tap at every place of one screen. Around the goal's button is a hole, and
elsewhere a plain that slopes nowhere in particular: gradient descent walks about the plain, while
the denoiser, which read the goal, starts in the hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from vj2_ddim_benchmark.planners.descent import descend
from vj2_ddim_benchmark.planners.gradient_descent import GradientDescentOptimizer
from vj2_ddim_benchmark.planners.host import planning_problem
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.run import Race, problem_seed
from vj2_ddim_benchmark.world.scripts import tap
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import CostFn, FloatArray, PlanningProblem

__all__ = ["Spy", "descent_path", "draw_landscape", "tap_costs", "touch_points"]

GRID = 40  # taps along each side
TAP_START, TAP_STEPS = 100, 40


class Spy:
    """A cost that remembers the candidates it was asked about."""

    def __init__(self, cost: CostFn) -> None:
        self.cost = cost
        self.asked: list[FloatArray] = []

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """`[B, K, L, A]` to `[B, K]`."""
        self.asked.append(candidates)
        return self.cost(candidates)


def touch_points(actions: FloatArray) -> FloatArray:
    """Where each of `[..., L, 3]` touches: its mean position weighted by press, `[..., 2]`."""
    press = np.clip(actions[..., 2:], 0.0, 1.0)
    total = press.sum(axis=-2)
    weighted = (actions[..., :2] * press).sum(axis=-2) / np.maximum(total, 1e-12)
    points: FloatArray = np.where(total > 0, weighted, actions[..., :2].mean(axis=-2))
    return points


def tap_costs(cost: CostFn, grid: int = GRID) -> FloatArray:
    """The cost of a tap in the middle of each cell of the screen, `[grid (y), grid (x)]`."""
    centres = (np.arange(grid) + 0.5) / grid
    y, x = np.meshgrid(centres, centres, indexing="ij")
    taps = tap(x.ravel(), y.ravel(), TAP_START, TAP_STEPS)
    costs: FloatArray = cost(taps[None])[0].reshape(grid, grid)
    return costs


def descent_path(optimizer: GradientDescentOptimizer, problem: PlanningProblem) -> FloatArray:
    """The touch points of every iterate of the first restart, `[num_iterations + 1, 2]`."""
    iterates: list[torch.Tensor] = []
    descend(
        optimizer.torch_cost_of(problem),
        optimizer.initial_actions(problem)[:1, :1],
        optimizer.bounds(),
        method=optimizer.method,
        lr=optimizer.lr,
        num_iterations=optimizer.num_iterations,
        watch=iterates.append,
    )
    return touch_points(torch.stack(iterates)[:, 0, 0].numpy())


def draw_landscape(
    path: Path, race: Race, problem: int, descent: Competitor | None, sampler: Competitor | None
) -> None:
    """Draw one problem: the screen, the goal, and the cost of tapping anywhere.

    Args:
        path: The picture to write.
        race: Its problems and world model.
        problem: Which one; its goal should be reached by a tap.
        descent: Gradient descent, whose path is drawn.
        sampler: A sampler that ranks, whose candidates are drawn.
    """
    frames = race.frames(problem)
    seed = problem_seed(race.seed, problem)
    asked = planning_problem(race.world_model, *frames, seed=seed, make_cost=race.make_cost)
    if asked.cost is None:
        return
    figure = Figure(figsize=(12.5, 4.4), layout="compressed")
    start, goal, landscape = figure.subplots(1, 3, width_ratios=(1, 1, 1))
    canvas = Canvas(landscape)
    for axes, frame, title in ((start, frames[0], "the screen"), (goal, frames[1], "the goal")):
        Canvas(axes).screen(frame[0], title)
    canvas.screen(frames[0][0], "cost of a tap, by the world model")
    shown = landscape.imshow(
        tap_costs(asked.cost),
        extent=(0, 1, 1, 0),
        cmap="magma",
        alpha=0.75,
        interpolation="bilinear",
    )
    figure.colorbar(shown, ax=landscape, label="cost (lower is better)")
    if descent is not None and isinstance(descent.optimizer, GradientDescentOptimizer):
        canvas.descent(descent_path(descent.optimizer, asked), descent.name)
    if sampler is not None:
        spy = Spy(asked.cost)
        result = sampler.optimizer.optimize(PlanningProblem(asked.context, spy, seed=seed))
        candidates = np.concatenate(spy.asked, axis=1)[0]
        canvas.candidates(touch_points(candidates), touch_points(result.actions[0]), sampler.name)
    landscape.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


@dataclass(frozen=True)
class Canvas:
    """Axes that show a screen in its own coordinates: x to the right, y down, both 0 to 1."""

    axes: Any

    def screen(self, frame: FloatArray, title: str) -> None:
        """Show a picture of the screen."""
        self.axes.imshow(frame, extent=(0, 1, 1, 0), interpolation="nearest")
        self.axes.set(title=title, xticks=[], yticks=[], xlim=(-0.02, 1.02), ylim=(1.02, -0.02))

    def descent(self, path: FloatArray, name: str) -> None:
        """A line through the iterates, from a ring to a cross."""
        self.axes.plot(*path.T, "-", color="white", lw=3.5, zorder=3)
        self.axes.plot(*path.T, ".-", color="tab:blue", lw=1.5, ms=5, zorder=4, label=name)
        self.axes.plot(*path[0], "o", mfc="none", mec="tab:blue", ms=12, mew=2, zorder=4)
        self.axes.plot(*path[-1], "X", color="tab:blue", mec="white", ms=11, zorder=5)

    def candidates(self, points: FloatArray, best: FloatArray, name: str) -> None:
        """A dot a candidate, a star on the plan."""
        style = {"mec": "black", "mew": 0.6, "ls": "none"}
        self.axes.plot(
            *points.T, "o", color="lime", ms=6, zorder=6, label=f"{name}: candidates", **style
        )
        self.axes.plot(*best, "*", color="lime", ms=17, zorder=7, label=f"{name}: plan", **style)
