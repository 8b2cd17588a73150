"""Whether the same gesture does the same, to the pixel, in a cold browser and in a warm one."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import psutil

from vj2_ddim_benchmark.browser import miniwob
from vj2_ddim_benchmark.browser.chromium import BrowserError
from vj2_ddim_benchmark.browser.collect import collect_pages
from vj2_ddim_benchmark.browser.episode import Posed
from vj2_ddim_benchmark.browser.kit import KIT, VERSION
from vj2_ddim_benchmark.browser.oracle import Way, draw_problem, perform, ways_to
from vj2_ddim_benchmark.browser.pages import KINDS, THEMES
from vj2_ddim_benchmark.browser.session import BrowserSession, Session, retried
from vj2_ddim_benchmark.browser.task_oracle import draw_task_problem
from vj2_ddim_benchmark.browser.tasks import Snapshot, TaskSession, session_of
from vj2_ddim_benchmark.environment import environment
from vj2_ddim_benchmark.settings import BrowserCheckSettings, BrowserCollectSettings
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.touch import Actions
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.gestures.segments import IntArray

PURPOSE = 7  # keeps the randomness apart from that of problems and trajectories
COLLECTED = ("num_trajectories", "horizon", "seed", "pages")  # settings of what measures speed
COUNTS = ("repeats", "lost", "obeyed", "equal_states", "equal_pixels")


class Seen(NamedTuple):
    """What a gesture did: pictures before and after it, the state after it."""

    before: Images
    after: Images
    state: IntArray | Snapshot


@dataclass
class Case:
    """A kind of widget or a task, a gesture that it obeys, and what a cold browser showed."""

    kind: str
    problem: Posed
    action: Actions
    cold: Seen


def check(settings: BrowserCheckSettings, progress: Progress = silent) -> dict[str, Any]:
    """Repeat gestures on all kinds of widgets in both themes, or tasks; measure speed and memory.

    A case's first pictures and state are a new browser's; the repeats are another's, which goes
    through all cases in turn, and loads the kit anew for each theme.

    Returns:
        The counts by kind and in all (repeats, lost, obeyed, equal states and pixels), transitions
        a second with one and with two browsers, MB of one, the versions and the machine's load.
    """
    load = os.getloadavg()
    cases = list(_cold_cases(settings, progress))
    counts = {case.kind: dict.fromkeys(COUNTS, 0) for case in cases}
    with closing(session_of(settings.pages, settings.size)) as session:
        for done in range(settings.repeats):
            for case in cases:
                _repeat(session, case, counts[case.kind])
            progress("repeat", done + 1, settings.repeats)
        memory = _megabytes(session)
        version = session.browser.call("Browser.getVersion")["product"] if session.browser else ""
    total = {name: sum(each[name] for each in counts.values()) for name in COUNTS}
    speed = {}
    for processes in (1, 2) if settings.num_trajectories else ():
        asked = {name: getattr(settings, name) for name in COLLECTED}
        _, speed[str(processes)] = collect_pages(
            BrowserCollectSettings(processes=processes, **asked), progress
        )
    named = f"{KIT} {VERSION}"
    if settings.pages == "miniwob":
        named = f"{miniwob.PACKAGE} {miniwob.VERSION}"
    return {
        "settings": settings.to_dict(), "kinds": counts, "total": total, "speed": speed,
        "browser_mb": memory, "browser": version, "kit": named,
        "load_before": load, "load_after": os.getloadavg(), "environment": environment(),
    }  # fmt: skip


def _cold_cases(settings: BrowserCheckSettings, progress: Progress) -> Iterator[Case]:
    """All of them, each from a browser of its own."""
    on_kit = [partial(_cold_case, settings, *each) for each in product(THEMES, KINDS)]
    on_tasks = [partial(_cold_task, settings, name) for name in miniwob.TASKS]
    makers = on_tasks if settings.pages == "miniwob" else on_kit
    for done, make in enumerate(makers, 1):
        yield retried(make)
        progress("cold", done, len(makers))


def _cold_task(settings: BrowserCheckSettings, name: str) -> Case:
    rng = seeded("train", settings.seed, PURPOSE, list(miniwob.TASKS).index(name))
    with closing(TaskSession(settings.size)) as session:
        problem = draw_task_problem(session, "train", rng, (name,))
    with closing(TaskSession(settings.size)) as session:
        before = problem.show(session)
        action = problem.hidden
        return Case(name, problem, action, Seen(before, *session.touch(action)))


def _cold_case(settings: BrowserCheckSettings, theme: str, kind: str) -> Case:
    rng = seeded("train", settings.seed, PURPOSE, THEMES.index(theme), list(KINDS).index(kind))
    own: list[tuple[int, Way]] = []
    while not own:
        problem = draw_problem("train", rng)
        if problem.page.theme == theme:
            kinds = [each.kind for each in problem.page.widgets]
            own = [(index, way) for index, way in ways_to(problem) if kinds[index] == kind]
    index, way = own[rng.integers(len(own))]
    with closing(Session(settings.size)) as session:
        before = session.show(problem.page, problem.state)
        action = perform(way, session.boxes()[index], rng)
        return Case(kind, problem, action, Seen(before, *session.touch(action)))


def _repeat(session: Session | TaskSession, case: Case, counts: dict[str, int]) -> None:
    counts["repeats"] += 1
    try:
        before = case.problem.show(session)
        found = Seen(before, *session.touch(case.action))
    except BrowserError:
        counts["lost"] += 1
        return
    cold = case.cold
    counts["obeyed"] += case.problem.reached(found.state)
    counts["equal_states"] += _equal(found.state, cold.state)
    counts["equal_pixels"] += all(map(np.array_equal, found[:2], cold[:2]))


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Whether two states are the same, whichever pages they are of."""
    return one.near(other, 0.0) if isinstance(one, Snapshot) else np.array_equal(one, other)


def _megabytes(session: BrowserSession[Any, Any]) -> float:
    """Memory of the browser's processes, what they share counted once."""
    if session.browser is None:
        return 0.0
    root = psutil.Process(session.browser.pid)
    every = [root, *root.children(recursive=True)]
    return float(sum(each.memory_full_info().pss for each in every) / 1e6)
