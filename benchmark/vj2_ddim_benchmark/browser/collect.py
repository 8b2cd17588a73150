"""Trajectories of touched pages, collected by several browsers at once.

What a trajectory holds depends on its number and the seed alone, so a lost one is made again. Where
the page itself throws it would throw again: then, or where browsers fail at it five times, another
is drawn for that number. What is made is kept in parts beside the file to write, so a run that was
stopped goes on.
"""

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]

from vj2_ddim_benchmark.browser.chromium import BrowserError, PageError
from vj2_ddim_benchmark.browser.miniwob import draw_task
from vj2_ddim_benchmark.browser.oracle import draw_state, mixed_action
from vj2_ddim_benchmark.browser.pages import MAX_WIDGETS, Page, draw_page
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.browser.task_oracle import mixed_gesture
from vj2_ddim_benchmark.browser.tasks import NUM_NUMBERS, TaskSession, session_of, state_of
from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.settings import BrowserCollectSettings
from vj2_ddim_benchmark.world.collect import Transitions, load_transitions, save_transitions
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.touch import NUM_STEPS, Actions
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.gestures.segments import IntArray

PURPOSE = 6  # keeps the randomness apart from that of problems with the same seed
PER_BROWSER = 25  # trajectories; then another is started
NUM_TRIES = 5  # of a trajectory: a machine may be too busy for minutes; then another is drawn
MOST_FAILURES = 15  # one after another; then nothing works
OPEN_SHARE = 0.3  # of pages that may begin with something open


class Trajectory(NamedTuple):
    """One of T pictures, T - 1 touches between them and the T states."""

    frames: Images
    actions: Actions
    states: IntArray


class Job(NamedTuple):
    """Trajectories to make in one browser, by their numbers, and the file to keep them in."""

    indices: Sequence[int]
    part: Path | None

    @property
    def made(self) -> bool:
        """Whether they are there already."""
        return self.part is not None and self.part.exists()


Piece = tuple[Sequence[int], Transitions, Counter[str]]
"""Trajectories by their numbers, and what others were lost to meanwhile."""


def collect_pages(
    settings: BrowserCollectSettings, progress: Progress = silent, parts: Path | None = None
) -> tuple[Transitions, dict[str, Any]]:
    """Touch fresh pages with scripted, missing and random gestures.

    Args:
        settings: How many, whose pages, how they are touched.
        progress: Told phase, done, in all.
        parts: A folder for what is made, piece by piece; pieces that are there are not made again.

    Returns:
        The trajectories and a report: transitions, how many were made now, how many of these were
        lost to a failed browser and made again, seconds, and transitions a second, starts of
        browsers and processes included.

    Raises:
        BrowserError: A trajectory was lost again and again.
        ConfigError: Browser or kit are missing, or the folder holds parts of something else.
        DataError: A part is broken.
    """
    if parts is not None:
        parts.mkdir(parents=True, exist_ok=True)
        RaceFolder(parts).claim(settings.to_dict(), {})
    begun = time.monotonic()
    num, length = settings.num_trajectories, settings.horizon + 1
    frames = np.empty((num, length, settings.size, settings.size, 3), np.uint8)
    actions = np.empty((num, settings.horizon, NUM_STEPS, 3), np.float32)
    on_tasks = settings.pages == "miniwob"
    states = np.empty((num, length, NUM_NUMBERS if on_tasks else MAX_WIDGETS), np.int64)
    jobs = _jobs(settings, parts)
    now = settings.horizon * sum(len(job.indices) for job in jobs if not job.made)
    done, causes = 0, Counter[str]()
    for indices, made, failed in _pieces(settings, jobs):
        frames[indices], actions[indices], states[indices] = made.frames, made.actions, made.states
        done, causes = done + len(indices), causes + failed
        progress("collect", done, num, f"{causes.total()} lost" if causes else "")
    seconds = time.monotonic() - begun
    report = {
        "transitions": num * settings.horizon, "made_now": now, "lost": causes.total(),
        "causes": dict(causes), "seconds": seconds, "per_second": now / seconds,
    }  # fmt: skip
    return Transitions(frames, actions, states), report


def _jobs(settings: BrowserCollectSettings, parts: Path | None) -> list[Job]:
    """All trajectories, as many in each as one browser makes."""
    num = settings.num_trajectories
    order = list(range(num)) if settings.pages == "miniwob" else _by_theme(settings)
    share = min(PER_BROWSER, math.ceil(num / settings.processes))
    return [
        Job(order[first : first + share], None if parts is None else parts / f"{first:07d}.h5")
        for first in range(0, num, share)
    ]


def _pieces(settings: BrowserCollectSettings, jobs: Sequence[Job]) -> Iterator[Piece]:
    """What was made before, then what is made now, as it comes."""
    missing = []
    for job in jobs:
        if job.part is not None and job.made:
            yield job.indices, load_transitions(job.part), Counter()
        else:
            missing.append(job)
    parallel = Parallel(n_jobs=settings.processes, return_as="generator_unordered")
    yield from parallel(delayed(_collect)(settings, *job, os.getpid()) for job in missing)


def _collect(
    settings: BrowserCollectSettings, indices: Sequence[int], part: Path | None, parent: int
) -> Piece:
    """Some trajectories, in a browser of their own, and what transitions were lost to."""
    _end_with(parent)
    made: list[Trajectory] = []
    failures, drawn, causes = 0, 0, Counter[str]()
    with closing(session_of(settings.pages, settings.size)) as session:
        while len(made) < len(indices):
            try:
                made.append(_trajectory(session, settings, indices[len(made)], drawn))
                failures = drawn = 0
            except BrowserError as error:
                failures += 1
                drawn += isinstance(error, PageError) or failures % NUM_TRIES == 0
                causes[str(error)] += 1
                if failures == MOST_FAILURES:
                    raise
    found = Transitions(*(np.stack(each) for each in zip(*made, strict=True)))
    if part is not None:
        save_transitions(part, found)
    return indices, found, causes


@cache
def _end_with(parent: int) -> None:
    """Have this process, if the parent started it, end within a second of the parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)  # its browser ends with it

    if os.getpid() != parent:
        Thread(target=watch, daemon=True).start()


def _by_theme(settings: BrowserCollectSettings) -> list[int]:
    """Numbers of trajectories in an order of themes: another costs a load of the kit."""
    themes = [_beginning(settings, index, 0)[0].theme for index in range(settings.num_trajectories)]
    return sorted(range(settings.num_trajectories), key=themes.__getitem__)


def _randomness(settings: BrowserCollectSettings, index: int, drawn: int) -> np.random.Generator:
    """Of a number that has been drawn so often before."""
    return seeded(settings.split, settings.seed, PURPOSE, index, *[drawn] * (drawn > 0))


def _beginning(
    settings: BrowserCollectSettings, index: int, drawn: int
) -> tuple[Page, IntArray, np.random.Generator]:
    """Page, state and randomness of a number that has been drawn so often before."""
    rng = _randomness(settings, index, drawn)
    page = draw_page(settings.split, rng, settings.kinds)
    return page, draw_state(page, rng, OPEN_SHARE), rng


def _trajectory(
    session: Session | TaskSession, settings: BrowserCollectSettings, index: int, drawn: int
) -> Trajectory:
    if isinstance(session, TaskSession):
        return _on_task(session, settings, _randomness(settings, index, drawn))
    page, state, rng = _beginning(settings, index, drawn)
    how = settings.scripted_share, rng, settings.near_miss_share, settings.kinds
    frames, actions, states = [session.show(page, state)], [], [state]
    for _ in range(settings.horizon):
        actions.append(mixed_action(page, states[-1], session.boxes(), *how))
        picture, state = session.touch(actions[-1])
        frames.append(picture)
        states.append(state)
    return Trajectory(np.stack(frames), np.stack(actions), np.stack(states))


def _on_task(
    session: TaskSession, settings: BrowserCollectSettings, rng: np.random.Generator
) -> Trajectory:
    """What touches do to a task; where one would end its episode, the next goes on."""
    task = draw_task(settings.split, rng, settings.tasks)
    shares = settings.scripted_share, settings.near_miss_share, rng
    frames, actions = [session.show(task)[0]], []
    for _ in range(settings.horizon):
        actions.append(mixed_gesture(session.uses(), *shares))
        frames.append(session.touch(actions[-1])[0])
    states = [state_of(task, picture) for picture in frames]
    return Trajectory(np.stack(frames), np.stack(actions), np.stack(states))
