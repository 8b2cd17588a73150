"""Gestures that change a page's widgets, problems made of them, and who touches to collect data."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vj2_ddim_benchmark.browser.driver import SIDE, Target
from vj2_ddim_benchmark.browser.pages import KINDS, NUM_LEVELS, SHEET, Page, draw_page
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.policies import (
    MISS_PIXELS,
    NEAR_MISS_SHARE,
    STRAY_PIXELS,
    random_policy,
)
from vj2_ddim_benchmark.world.touch import NUM_STEPS, PAGE, Actions, drag, random_times
from vj2_ddim_plugin.gestures.segments import IntArray

ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))  # of a sortable list
COVERING = ("swipeout", "actions")  # open, they take every touch first
BESIDE = [40.0, 0.0, 240.0, 2.0]  # further from any widget than a browser looks around a tap
MULTIMODAL_SHARE = 1 / 3
MIN_DRAG_STEPS = 25  # three frames

Point = tuple[float, float]  # shares of a box's width and height


class Way(NamedTuple):
    """A gesture that a widget obeys: from a point of one of its boxes to one of another."""

    start_box: int = 0  # -1: where no widget is
    start: Point = (0.5, 0.5)
    end_box: int = 0
    end: Point | None = None  # None: a tap
    long: bool = False
    spread: Point = (0.25, 0.25)  # how far either may be from there


class Problem(NamedTuple):
    """A page, the state it is in and the state to reach, each `[5]`."""

    page: Page
    state: IntArray
    goal: IntArray

    @property
    def kind(self) -> str:
        """The kind of the first widget whose state is to change."""
        apart = np.flatnonzero(self.state != self.goal)
        return self.page.widgets[int(apart[0])].kind

    def show(self, session: Session) -> Images:
        """Begin it; returns the picture `[size, size, 3]`, or a `BrowserError`."""
        return session.show(self.page, self.state)

    def show_goal(self, session: Session) -> Images:
        """Its goal's picture, the same way."""
        return session.show(self.page, self.goal)

    def reached(self, state: IntArray) -> bool:
        """Whether a state `[5]` is the goal's."""
        return np.array_equal(state, self.goal)


Moves = dict[tuple[int, int], list[tuple[int, Way]]]  # (value, number it becomes): widgets and ways


def moves(page: Page, state: ArrayLike) -> Moves:
    """All that one gesture can change on a page in a state `[5]`, and every way to do it."""
    now = np.asarray(state).tolist()
    covers = [i for i, each in enumerate(page.widgets) if _is_open(each.kind, now[i])]
    found: Moves = {}
    for index, widget in enumerate(page.widgets):
        if covers and index not in covers:
            continue
        for goal in range(KINDS[widget.kind][0]):
            for way in _ways(widget.kind, now[index], goal, widget.bullets):
                found.setdefault((widget.value, goal), []).append((index, way))
    return found


def _is_open(kind: str, state: int) -> bool:
    return kind in COVERING and state >= (SHEET if kind == "actions" else 1)


def _ways(kind: str, now: int, goal: int, bullets: bool) -> Iterator[Way]:
    """The ways in which one widget gets from a state into another."""
    if goal == now and kind != "actions":
        return
    match kind:
        case "checkbox" | "accordion":
            yield Way()
        case "toggle":  # beside its knob, which grows under a finger
            yield Way(start=(0.8 if now == 0 else 0.2, 0.5), spread=(0.1, 0.2))
        case "hold":
            yield Way(long=True)
        case "radio" | "segment":
            yield Way(goal, end_box=goal)
        case "range":
            level = (goal / (NUM_LEVELS - 1), 0.5)
            knob = min(max(now / (NUM_LEVELS - 1), 0.06), 0.94)
            yield Way(start=(knob, 0.5), end=level, spread=(0.06, 0.2))
        case "stepper" if abs(goal - now) == 1:
            yield Way(int(goal > now), end_box=int(goal > now))
        case "swipeout" if now == 0:
            ends = (0.25, 0.75) if goal == 1 else (0.75, 0.25)
            yield Way(start=(ends[0], 0.5), end=(ends[1], 0.5), spread=(0.1, 0.2))
        case "swipeout" if goal == 0:
            yield Way(-1)
            back = (0.6, 0.48) if now == 1 else (0.4, 0.52)
            yield Way(start=(back[0], 0.5), end=(back[1], 0.5), spread=(0.02, 0.2))
        case "swiper":
            if bullets:
                yield Way(1 + goal, end_box=1 + goal)
            if abs(goal - now) == 1:
                ends = (0.8, 0.2) if goal > now else (0.2, 0.8)
                yield Way(start=(ends[0], 0.35), end=(ends[1], 0.35), spread=(0.1, 0.15))
        case "actions" if now < SHEET and goal == now + SHEET:
            yield Way()
        case "actions" if now >= SHEET > goal:
            if goal == now - SHEET:
                yield Way(-1)
            if goal > 0:
                yield Way(goal, end_box=goal)
        case "sortable":
            yield from _sorting(ORDERS[now], ORDERS[goal])


def _sorting(now: Sequence[int], goal: Sequence[int]) -> Iterator[Way]:
    """Moves of one row of three that make one order of the other."""
    for taken in range(3):
        for put in range(3):
            rest = [*now[:taken], *now[taken + 1 :]]
            if taken != put and (*rest[:put], now[taken], *rest[put:]) == goal:
                yield Way(taken, end_box=put, end=(0.5, 0.5), spread=(0.2, 0.1))


def perform(way: Way, boxes: Sequence[Target], rng: np.random.Generator) -> Actions:
    """The action block `[250, 3]` of a way, on the boxes of its widget as the page has them."""
    return _block(*_ends(way, boxes, rng), way.long, rng)


def _ends(way: Way, boxes: Sequence[Target], rng: np.random.Generator) -> tuple[Point, Point]:
    places = [*boxes, BESIDE]  # the last is at -1
    start = _point(places[way.start_box], way.start, way.spread, rng)
    if way.end is None:
        return start, start
    return start, _point(places[way.end_box], way.end, way.spread, rng)


def _point(box: Target, at: Point, spread: Point, rng: np.random.Generator) -> tuple[float, float]:
    left, top, width, height = box
    x, y = (share + rng.uniform(-most, most) for share, most in zip(at, spread, strict=True))
    return left + x * width, top + y * height


def _block(start: Point, end: Point, long: bool, rng: np.random.Generator) -> Actions:
    """A straight gesture between two points in CSS pixels, at any time of the block."""
    x0, y0, x1, y1 = np.clip(np.array([*start, *end]) / SIDE, 0.0, 1.0)
    first, steps = random_times(np.array([long]), rng)
    if start != end and steps[0] < MIN_DRAG_STEPS:  # a swipe of one frame is none to the kit
        first, steps = np.minimum(first, NUM_STEPS - MIN_DRAG_STEPS), np.array([MIN_DRAG_STEPS])
    action: Actions = drag(x0, y0, x1, y1, first, steps)[0]
    return action


def draw_problem(split: str, rng: np.random.Generator) -> Problem:
    """A page one gesture from its goal; a third of the goals are reached in several ways."""
    several = rng.random() < MULTIMODAL_SHARE
    while True:
        page = draw_page(split, rng)
        state = draw_state(page, rng, open_share=0.5)
        able = {
            move: ways for move, ways in moves(page, state).items() if (len(ways) > 1) == several
        }
        if able:
            value = rng.choice(sorted({value for value, _ in able}))
            number = rng.choice([number for at, number in able if at == value])
            return Problem(page, state, _with_value(page, state, int(value), int(number)))


def draw_chain(split: str, length: int, rng: np.random.Generator) -> Problem:
    """A page `length` gestures from its goal, and no fewer: in so many values do they differ."""
    while True:
        page = draw_page(split, rng)
        state = start = draw_state(page, rng)
        changed: set[int] = set()
        for left in range(length - 1, -1, -1):
            able = [
                (value, number)
                for value, number in sorted(moves(page, state))
                if value not in changed and number != state[_first_of(page, value)]
                if not (left and _covers(page, value, number))  # else nothing after it is reached
            ]
            if not able:
                break
            value = int(rng.choice(sorted({value for value, _ in able})))
            number = int(rng.choice([number for at, number in able if at == value]))
            state = _with_value(page, state, value, number)
            changed.add(value)
        if len(changed) == length:
            return Problem(page, start, state)


def _first_of(page: Page, value: int) -> int:
    return [each.value for each in page.widgets].index(value)


def _covers(page: Page, value: int, number: int) -> bool:
    """Whether a widget that shows this value is open over the others then."""
    return any(_is_open(each.kind, number) for each in page.widgets if each.value == value)


def draw_state(page: Page, rng: np.random.Generator, open_share: float = 0.0) -> IntArray:
    """A state `[5]` of a page; at most one thing covers others, and that as seldom as asked."""
    numbers: dict[int, int] = {}
    opened = rng.random() < open_share
    for widget in page.widgets:
        number = int(rng.integers(KINDS[widget.kind][0]))
        if _is_open(widget.kind, number):
            number = number if opened else number % SHEET if widget.kind == "actions" else 0
            opened = False
        numbers[widget.value] = numbers.get(widget.value, number)
    return page.padded([numbers[widget.value] for widget in page.widgets])


def _with_value(page: Page, state: IntArray, value: int, number: int) -> IntArray:
    shown = state[: len(page.widgets)].tolist()
    for index, widget in enumerate(page.widgets):
        shown[index] = number if widget.value == value else shown[index]
    return page.padded(shown)


def ways_to(problem: Problem) -> list[tuple[int, Way]]:
    """Every widget and way that reaches a problem's goal by one gesture."""
    apart = int(np.flatnonzero(problem.state != problem.goal)[0])
    value = problem.page.widgets[apart].value
    return moves(problem.page, problem.state).get((value, int(problem.goal[apart])), [])


def mixed_action(
    page: Page, state: ArrayLike, boxes: Sequence[Sequence[Target]], scripted_share: float,
    rng: np.random.Generator, near_miss_share: float = NEAR_MISS_SHARE, kinds: Collection[str] = (),
) -> Actions:  # fmt: skip
    """A scripted gesture, a near miss of one or a random gesture, `[250, 3]`, in these shares.

    The state `[5]` and the boxes of each widget are the page's at the time. With `kinds`, scripted
    ones aim at widgets of these, if any obeys now.
    """
    able, draw = moves(page, state), rng.random()
    if kinds:
        able = _of_kinds(page, able, kinds) or able
    if draw >= scripted_share or not able:
        action: Actions = random_policy(1, rng)[0]
        return action
    value = rng.choice(sorted({value for value, _ in able}))
    ways = [pair for (at, _), pairs in able.items() if at == value for pair in pairs]
    index, way = ways[rng.integers(len(ways))]
    if draw < scripted_share * near_miss_share:
        return _near_miss(way, boxes[index], rng)
    return perform(way, boxes[index], rng)


def _of_kinds(page: Page, able: Moves, kinds: Collection[str]) -> Moves:
    """Those moves that widgets of some kinds make, and only their ways."""
    among = {
        move: [(index, way) for index, way in ways if page.widgets[index].kind in kinds]
        for move, ways in able.items()
    }
    return {move: ways for move, ways in among.items() if ways}


def _near_miss(way: Way, boxes: Sequence[Target], rng: np.random.Generator) -> Actions:
    """A tap beside a widget, a drag for a tap, a tap for a drag, a wrong length, a wrong end."""
    start, end = _ends(way, boxes, rng)
    angle, far = rng.uniform(0.0, 2 * np.pi), rng.uniform(*STRAY_PIXELS) * SIDE / PAGE
    x, y = far * float(np.cos(angle)), far * float(np.sin(angle))
    match rng.integers(5):
        case 0:
            _, top, _, height = [*boxes, BESIDE][way.start_box]
            past = rng.uniform(*MISS_PIXELS) * SIDE / PAGE
            beside = start[0], top - past if rng.random() < 0.5 else top + height + past
            return _block(beside, beside, way.long, rng)
        case 1:
            return _block(start, (start[0] + x, start[1] + y), False, rng)
        case 2:
            return _block(start, start, False, rng)
        case 3:
            return _block(start, end, not way.long, rng)
        case _:
            return _block(start, (end[0] + x / 2, end[1] + y / 2), way.long, rng)
