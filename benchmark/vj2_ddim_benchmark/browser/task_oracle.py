"""Gestures on whatever a task shows, and problems: tasks that such a gesture has changed."""

from functools import partial
from typing import NamedTuple

import numpy as np

from vj2_ddim_benchmark.browser.driver import SIDE
from vj2_ddim_benchmark.browser.miniwob import Task, draw_task
from vj2_ddim_benchmark.browser.oracle import MIN_DRAG_STEPS
from vj2_ddim_benchmark.browser.session import retried
from vj2_ddim_benchmark.browser.tasks import Snapshot, TaskSession, Use
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.policies import MISS_PIXELS, random_policy
from vj2_ddim_benchmark.world.touch import NUM_STEPS, PAGE, Actions, drag, random_times
from vj2_ddim_plugin.errors import DataError

SPREAD = 0.25  # of an element's width and height, about its centre
ALONG = (40.0, 200.0)  # how far a drag goes, in 320ths
ALIGNED_SHARE = 0.5  # of drags that go along an axis
BENT_SHARE = 1 / 3  # of strokes over an area
MIN_CHANGED = 24  # pixels of 320 x 320 that a goal differs in
NUM_GESTURES = 8  # tried on one page; then another is drawn
NUM_PAGES = 50

Point = tuple[float, float]
Sight = tuple[Images, Snapshot]


class TaskProblem(NamedTuple):
    """A task, its picture after a hidden gesture `[250, 3]`, and what is seen then."""

    task: Task
    goal: Images
    wanted: Snapshot
    hidden: Actions

    @property
    def kind(self) -> str:
        """The task's name."""
        return self.task.name

    def show(self, session: TaskSession) -> Images:
        """Begin it; returns the picture `[size, size, 3]`, or a `BrowserError`."""
        return session.show(self.task)[0]

    def show_goal(self, session: TaskSession) -> Images:
        """Its goal's picture, which was taken when it was drawn."""
        return self.goal

    def reached(self, found: Snapshot) -> bool:
        """Whether it looks as after the hidden gesture."""
        rule = self.task.rule
        return found.near(self.wanted, rule.tolerance, rule.any_number)


def draw_gesture(uses: list[Use], rng: np.random.Generator) -> Actions:
    """A tap, a drag or a stroke `[250, 3]` that one of a page's elements may obey."""
    if not uses:
        action: Actions = random_policy(1, rng)[0]
        return action
    kinds = sorted({use for use, _ in uses})
    kind = str(rng.choice(kinds))
    boxes = [box for use, box in uses if use == kind]
    return _gesture(kind, boxes[rng.integers(len(boxes))], rng)


def mixed_gesture(
    uses: list[Use], scripted_share: float, near_miss_share: float, rng: np.random.Generator
) -> Actions:
    """A gesture on an element, one beside it or a random one, `[250, 3]`, in these shares."""
    draw = rng.random()
    if draw >= scripted_share:
        return draw_gesture([], rng)
    if draw >= scripted_share * near_miss_share:
        return draw_gesture(uses, rng)
    past = rng.uniform(*MISS_PIXELS) * SIDE / PAGE
    missed = [(use, _beside(box, past, rng)) for use, box in uses]
    return draw_gesture(missed, rng)


def _beside(box: list[float], past: float, rng: np.random.Generator) -> list[float]:
    """A line of no height above or below a box."""
    left, top, width, height = box
    return [left, top - past if rng.random() < 0.5 else top + height + past, width, 0.0]


def _gesture(kind: str, box: list[float], rng: np.random.Generator) -> Actions:
    left, top, width, height = box
    middle = kind not in ("area", "text", "scroll")
    low, high = (0.5 - SPREAD, 0.5 + SPREAD) if middle else (0.05, 0.95)
    (x0, y0), (x1, y1) = rng.uniform(low, high, (2, 2)) * (width, height) + (left, top)
    via: Point | None = None
    match kind:
        case "tap":
            x1, y1 = x0, y0
        case "drag":
            x1, y1 = _away((x0, y0), rng)
        case "scroll":
            x1 = x0
        case "area" if rng.random() < 0.5:
            x1, y1 = x0, y0
        case "area" if rng.random() < BENT_SHARE:
            bend = rng.uniform((left, top), (left + width, top + height))
            via = tuple(np.clip(bend, 0.0, SIDE - 1.0) / SIDE)
    x0, y0, x1, y1 = np.clip([x0, y0, x1, y1], 0.0, SIDE - 1.0) / SIDE
    first, steps = random_times(np.array([False]), rng)
    if kind != "tap" and steps[0] < MIN_DRAG_STEPS:
        first, steps = np.minimum(first, NUM_STEPS - MIN_DRAG_STEPS), np.array([MIN_DRAG_STEPS])
    action: Actions = drag(x0, y0, x1, y1, first, steps, via=via)[0]
    return action


def _away(start: Point, rng: np.random.Generator) -> Point:
    """A point some way off."""
    angle = rng.uniform(0.0, 2 * np.pi)
    if rng.random() < ALIGNED_SHARE:
        angle = float(rng.integers(4)) * np.pi / 2
    far = rng.uniform(*ALONG)
    return start[0] + far * float(np.cos(angle)), start[1] + far * float(np.sin(angle))


def draw_task_problem(
    session: TaskSession, split: str, rng: np.random.Generator, names: tuple[str, ...] = ()
) -> TaskProblem:
    """A task of a split that a gesture changes, for all to see; one of these names, if any.

    Raises:
        BrowserError: The browser failed.
        DataError: No gesture changed any of many pages.
    """
    for _ in range(NUM_PAGES):
        task = draw_task(split, rng, names)
        for _ in range(NUM_GESTURES):
            seed = int(rng.integers(2**31))
            before, action, (goal, after) = retried(partial(_tried, session, task, seed))
            problem = TaskProblem(task, goal, after, action)
            if not problem.reached(before[1]) and _num_changed(before[0], goal) >= MIN_CHANGED:
                return problem
    raise DataError(f"no gesture changed any of {NUM_PAGES} pages of {', '.join(names) or 'all'}")


def _tried(session: TaskSession, task: Task, seed: int) -> tuple[Sight, Actions, Sight]:
    """Picture and sight of a task before and after a gesture."""
    before = session.show(task)
    action = draw_gesture(session.uses(), np.random.default_rng(seed))
    return before, action, session.touch(action)


def _num_changed(one: Images, other: Images) -> float:
    """Pixels that differ, as if the pictures were 320 across."""
    return float((one != other).any(axis=-1).mean()) * SIDE * SIDE
