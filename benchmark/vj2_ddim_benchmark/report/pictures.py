"""The pictures that need the planners and the world model: landscape, plans, a chain.

Around the goal's button the cost of a tap has a hole, and elsewhere it slopes nowhere much:
gradient descent walks about the plain; the denoiser, which read the goal, starts in the hole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_benchmark.planners.gradient_descent import GradientDescentOptimizer
from vj2_ddim_benchmark.race.records import ChainRecord, Record, from_stroke
from vj2_ddim_benchmark.race.tasks import (
    Race,
    ReadyPlanner,
    pictures_of,
    planning_problem,
    problem_seed,
)
from vj2_ddim_benchmark.report.curves import shown_planners
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.problems import Chains
from vj2_ddim_benchmark.world.touch import NUM_STEPS, gesture_path, tap
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import CostFn, FloatArray, PlanningProblem

MAX_FRAMES = 60  # of a chain's animation
MOVING_FRAMES = 8  # of each gesture, unless there are many
FRAMES_PER_S = 12
MOVE, REST, LAST = 1, 6, 20  # for how many frames a picture is shown
BORDER, HEAD = 8, 22  # pixels
DPI = 100
TAP_KINDS = ("switch", "keypad")
GRID = 48  # taps along each side
SCREEN = (0, 1, 1, 0)  # left, right, bottom and top of a picture
TAP_START, TAP_STEPS = 100, 40
MOST_PROBLEMS, MOST_PLANNERS = 9, 6  # in the picture of plans
SOLVED, FAILED = "#2ca02c", "#d62728"
DESCENT, SAMPLER = "#e8590c", "#ffffff"


def draw_pictures(
    folder: Path, race: Race, planners: Sequence[ReadyPlanner], records: Sequence[Record],
    budget_ms: float | None = None,
) -> None:  # fmt: skip
    """Draw both, of planners that raced (the first is the reference) and their results."""
    problems = telling_problems(records, planners[0].name)
    descents = [p for p in planners if isinstance(p.optimizer, GradientDescentOptimizer)]
    single = [p for p in descents if p.optimizer.settings.num_restarts == 1] or descents  # type: ignore[attr-defined]
    samplers = [p for p in planners if p.with_cost and p not in descents]
    taps = [p for kind in TAP_KINDS for p in problems if race.problems.kind[p] == kind] or problems
    who = single[-1] if single else None, samplers[0] if samplers else None
    draw_landscape(folder / "landscape.png", race, taps[0], *who)
    chosen = shown_planners([{"planner": planner.name} for planner in planners], MOST_PLANNERS)
    shown = [planner for planner in planners if planner.name in chosen]
    draw_plans(folder / "plans.png", race, shown, problems[:MOST_PROBLEMS], budget_ms)


def telling_problems(records: Sequence[Record], reference: str) -> list[int]:
    """The first problem of each kind that the reference solved, then those it did not."""
    chosen: dict[tuple[bool, str], int] = {}
    for record in sorted(records, key=lambda record: record.problem):
        if record.planner == reference:
            chosen.setdefault((not record.solved, record.kind), record.problem)
    return [chosen[key] for key in sorted(chosen)]


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
    return touch_points(optimizer.iterates(problem)[:, 0, 0].numpy())


def draw_landscape(
    path: Path, race: Race, problem: int, descent: ReadyPlanner | None, sampler: ReadyPlanner | None
) -> None:
    """One goal that a tap reaches: the screen, the goal, any tap's cost, and how planners go."""
    frames, seed = pictures_of(race.problems.select(problem)), problem_seed(race.seed, problem)
    asked = planning_problem(race.world_model, *frames, seed=seed, make_cost=race.make_cost)
    if asked.cost is None:
        return
    (before,), (after,) = frames
    figure = Figure(figsize=(12.6, 4.9), layout="constrained")
    start, goal, landscape = (Canvas(axes) for axes in figure.subplots(1, 3))
    for canvas, frame, title in (
        (start, before, "the screen"),
        (goal, after, "the goal; the frame marks what has to change"),
    ):
        canvas.show(frame, title)
        canvas.ring(before, after)
    costs = tap_costs(asked.cost)
    bar = figure.colorbar(landscape.costs(costs, before), ax=landscape.axes, shrink=0.85)
    bar.set_label("cost (logarithmic); dark is near the goal")
    if descent is not None and isinstance(descent.optimizer, GradientDescentOptimizer):
        landscape.descent(descent_path(descent.optimizer, asked), descent.name)
    if sampler is not None:
        spy = Spy(asked.cost)
        result = sampler.optimizer.optimize(PlanningProblem(asked.context, spy, seed=seed))
        points = touch_points(np.concatenate(spy.asked, axis=1)[0])
        landscape.candidates(points, touch_points(result.actions[0]), sampler.name)
    where = {"loc": "outside lower center", "ncols": 4, "frameon": True, "facecolor": "#9aa5b1"}
    figure.legend(*landscape.axes.get_legend_handles_labels(), **where)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


@dataclass(frozen=True)
class Canvas:
    """Axes that show a screen in its own coordinates: x to the right, y down, both 0 to 1."""

    axes: Any

    def show(self, picture: FloatArray | Images, title: str, **how: object) -> Any:  # noqa: ANN401
        """A picture of the whole screen."""
        self.axes.set(xticks=[], yticks=[])
        self.axes.set_title(title, fontsize=11)
        shown = self.axes.imshow(picture, **{"interpolation": "nearest", "extent": SCREEN, **how})
        self.axes.set(xlim=(-0.02, 1.02), ylim=(1.02, -0.02))
        return shown

    def ring(self, before: Images, after: Images) -> None:
        """A frame around what differs between two pictures of one screen."""
        rows, columns = np.nonzero((before != after).any(axis=-1))
        if len(rows):
            size, margin = before.shape[0], 2
            low, high = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]])
            width, height = (high - low + 1 + 2 * margin) / size
            corner = tuple((low - margin) / size)
            self.axes.add_patch(Rectangle(corner, width, height, fill=False, lw=2.5, ec="#d6006e"))

    def costs(self, costs: FloatArray, frame: Images) -> Any:  # noqa: ANN401
        """Colours by the logarithm of the cost, the screen's outlines, a line around the hole.

        The line is half way, in logarithms, from the least cost to the median.
        """
        norm = LogNorm(max(float(costs.min()), 1e-9 + 1e-4 * float(costs.max())), costs.max())
        title = "cost of a tap there, says the world model"
        shown = self.show(costs, title, interpolation=None, cmap="viridis", norm=norm)
        grey = frame.astype(float).mean(axis=-1)
        edges = np.zeros((*grey.shape, 4))
        edges[..., 3] = 0.45 * (np.hypot(*np.gradient(grey)) > 12)
        self.show(edges, title)
        level = float(np.sqrt(max(costs.min(), 1e-12) * np.median(costs)))
        if costs.min() < level < costs.max():
            at = (np.arange(len(costs)) + 0.5) / len(costs)
            self.axes.contour(at, at, costs, levels=[level], colors="white", linewidths=1.6)
            self.axes.plot([], [], color="white", lw=1.6, label="the hole around the goal")
        return shown

    def descent(self, path: FloatArray, name: str) -> None:
        """A line through the iterates, from a ring to a cross."""
        plot, label = self.axes.plot, f"{name}: ring to cross"
        plot(*path.T, "-", color="white", lw=4, zorder=3)
        plot(*path.T, ".-", color=DESCENT, lw=2, ms=5, zorder=4, label=label)
        plot(*path[0], "o", mfc="none", mec=DESCENT, ms=12, mew=2.5, zorder=4)
        plot(*path[-1], "X", color=DESCENT, mec="white", ms=12, zorder=5)

    def candidates(self, points: FloatArray, best: FloatArray, name: str) -> None:
        """A dot a candidate, a star on the plan."""
        style, plot = {"mec": "black", "mew": 0.8, "ls": "none"}, self.axes.plot
        plot(*points.T, "o", color=SAMPLER, ms=6, zorder=6, label=f"{name}: candidates", **style)
        plot(*best, "*", color="#ff3bd4", ms=18, zorder=7, label=f"{name}: plan", **style)


def draw_plans(
    path: Path, race: Race, planners: Sequence[ReadyPlanner], problems: Sequence[int],
    budget_ms: float | None = None,
) -> None:  # fmt: skip
    """A row of goals, then each planner's plans over the screens, framed green where they work."""
    num_rows, num_columns = 1 + len(planners), len(problems)
    figure = Figure(figsize=(1.35 * num_columns + 1.4, 1.42 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for column, problem in enumerate(problems):
        start, goal = race.problems.start.select(problem), race.problems.goal.select(problem)
        grid[0, column].imshow(goal.render()[0], interpolation="nearest")
        grid[0, column].set_title(f"{race.problems.kind[problem]} #{problem}", fontsize=8)
        for row, planner in enumerate(planners, start=1):
            result = race.plan(planner, problem, budget_ms)
            solved = bool(start.execute(result.actions).matches(goal.state)[0])
            axes = grid[row, column]
            axes.imshow(draw_gesture(start.render()[0], result.actions[0]))
            for spine in axes.spines.values():
                spine.set(color=SOLVED if solved else FAILED, linewidth=3)
    for axes in np.ravel(grid):
        axes.set(xticks=[], yticks=[])
    for row, name in enumerate(["the goal", *(planner.name for planner in planners)]):
        label = name.replace("gradient-descent-", "gradient\ndescent\n")
        grid[row, 0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center", labelpad=9)
    words = "Green dot: finger down; red dot: up. Frame: green if the goal is reached, or red."
    figure.supxlabel(words, fontsize=9, color="#555555")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)


def animate_chain(path: Path, frames: Images, actions: ArrayLike, goal: Images) -> None:
    """Write a GIF that loops, whole or not at all.

    `frames` are what the screen showed, uint8 `[m + 1, H, W, 3]`: before, and after each of the
    gestures `actions` `[m, 250, 3]`, at most 29; `goal` is what it should show, uint8 `[H, W, 3]`.
    """
    shown, blocks = np.asarray(frames), np.asarray(actions)
    limit = MAX_FRAMES // 2 - 1
    if len(shown) != len(blocks) + 1 or len(blocks) > limit or shown.shape[1:] != np.shape(goal):
        raise DataError(
            f"m gestures need m + 1 frames of the goal's size, and m at most {limit}; found "
            f"{len(blocks)} gestures, frames {shown.shape} and a goal {np.shape(goal)}"
        )
    beside = draw_gesture(np.asarray(goal), np.zeros((NUM_STEPS, 3)))
    height, width = beside.shape[:2]
    size = 2 * width + 3 * BORDER, height + HEAD + BORDER
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    writer = PillowWriter(fps=FRAMES_PER_S)
    with atomic_path(path) as temporary, writer.saving(figure, str(temporary), DPI):
        for picture, caption, num in _pictures(shown, blocks):
            figure.clear()
            parts = (BORDER, picture, caption), (2 * BORDER + width, beside, "goal")
            for left, image, words in parts:
                figure.figimage(image, left, BORDER, origin="upper")
                figure.text(left / size[0], 1 - 6 / size[1], words, va="top", fontsize=9)
            for _ in range(num):  # equal pictures become one that is shown for longer
                writer.grab_frame()


def animate_record(path: Path, chains: Chains, record: ChainRecord) -> None:
    """Animate what a planner did on one of these chains, from its raw result alone."""
    start, goal = chains.start.select(record.problem), chains.goal.select(record.problem)
    screens = [start, *(start.with_state([state]) for state in record.states)]
    frames = np.concatenate([screen.render() for screen in screens])
    actions = np.reshape([from_stroke(each) for each in record.strokes], (-1, NUM_STEPS, 3))
    animate_chain(path, frames, actions, goal.render()[0])


def telling_chain(records: Sequence[ChainRecord], planner: str) -> ChainRecord:
    """The first of a planner's longest chains that were solved, or of all if none was."""
    own = [record for record in records if record.planner == planner]
    if not own:
        raise DataError(f"there are no chains of planner {planner!r} to animate")
    return min(own, key=lambda record: (not record.solved, -record.length, record.problem))


def _pictures(frames: Images, actions: NDArray[np.floating]) -> Iterator[tuple[Images, str, int]]:
    """Pictures, what is said over them, and for how many frames: rest, move, rest, ..."""
    num = len(actions)
    moving = min(MOVING_FRAMES, (MAX_FRAMES - num - 1) // max(num, 1))
    idle = np.zeros((NUM_STEPS, 3))
    for index, action in enumerate(actions):
        yield draw_gesture(frames[index], idle), f"{index} of {num}", REST
        for part in _parts(action, moving):
            yield draw_gesture(frames[index], part), f"gesture {index + 1} of {num}", MOVE
    yield draw_gesture(frames[-1], idle), f"{num} of {num}", LAST


def _parts(action: NDArray[np.floating], num: int) -> Iterator[NDArray[np.floating]]:
    """The gesture as it is drawn: its press cut off ever later, the last time not at all."""
    pressed = np.flatnonzero(action[:, 2] > 0.5)[: len(gesture_path(action))]
    for share in np.arange(1, num + 1) / num:
        part = action.copy()
        if len(pressed):
            part[pressed[int(np.ceil(share * len(pressed))) - 1] + 1 :] = 0.0
        yield part
