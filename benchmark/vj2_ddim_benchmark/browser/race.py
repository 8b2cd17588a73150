"""`vj2-ddim benchmark browser race`: planners on unseen pages, which they touch for real.

Each sees two pictures and plans through the same world model, as on the touch screen; then its plan
is executed on the page, put back into its first state, and the state is read from the DOM. On a
chain it sees the page again after each touch, until page and goal look alike or touches run out.
"""

from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vj2_ddim_benchmark.browser.episode import (
    Posed,
    asking,
    assets_of,
    draw_chains,
    hashes_of,
    made_ready,
    pictures,
    plan_on,
    reaches,
    reaches_in_turn,
    stop_distance,
)
from vj2_ddim_benchmark.browser.miniwob import TASKS
from vj2_ddim_benchmark.browser.oracle import draw_problem
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.browser.task_oracle import draw_task_problem
from vj2_ddim_benchmark.browser.tasks import TaskSession, session_of
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.race.tasks import ReadyPlanner, problem_seed
from vj2_ddim_benchmark.report.summary import wilson_interval
from vj2_ddim_benchmark.settings import NO_FILES, TUNED_DIR, BrowserFiles, BrowserRaceSettings
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.cli.console import Progress, silent

PURPOSE = 9  # keeps the randomness apart from that of data with the same seed
LENGTHS = (2, 3, 4)


class Attempt(NamedTuple):
    """Whether a plan reached its goal, and how long it took to make."""

    reached: bool
    plan_ms: float


def race_on_pages(
    bundle: Path, world_model: Path, settings: BrowserRaceSettings, progress: Progress = silent,
    *, tuned: Path = TUNED_DIR, files: BrowserFiles = NO_FILES,
) -> dict[str, Any]:  # fmt: skip
    """Have every planner plan and touch, problem after problem.

    Args:
        bundle: A denoiser of pages.
        world_model: What all encode with and plan through.
        settings: Who, on whose pages, how many.
        progress: Told phase, done, in all.
        tuned: The folder of recorded sweeps.
        files: What else planners need.

    Returns:
        Of each planner success with its interval, median time of a plan in ms from the pictures on,
        success by kind of widget or by task, and on chains by their length; which tasks a mouse
        moved; and what it was measured with.

    Raises:
        BrowserError: A browser failed again and again.
        ConfigError: Browser or kit are missing, or a planner cannot be built.
    """
    use_threads(settings.threads)
    model = WorldModel.load(world_model)
    assets = assets_of(bundle, settings.threads, settings.seed, files)
    ready = made_ready(settings.planners, assets, model, tuned)
    kinds, tried, chains = _raced(model, ready, settings, progress)
    by_planner = zip(ready, zip(*tried, strict=True), strict=True)
    return {
        "settings": settings.to_dict(),
        **hashes_of(bundle, world_model, files),
        "planners": {
            planner.name: _summary(planner, found, kinds) for planner, found in by_planner
        },
        "chains": chains,
        "moved_by_mouse": sorted({kind for kind in kinds if kind in TASKS and TASKS[kind].mouse}),
        "environment": environment(),
    }


def _raced(
    model: WorldModel, ready: list[ReadyPlanner], settings: BrowserRaceSettings, progress: Progress
) -> tuple[list[str], list[list[Attempt]], dict[str, Any]]:
    """The kind of each problem, what every planner did there, and what some did on chains."""
    tried: list[list[Attempt]] = []
    chains: dict[str, Any] = {}
    with closing(session_of(settings.pages, model.config.screen_size)) as session:
        problems = _problems(session, settings, progress)
        for done, problem in enumerate(problems):
            seed = problem_seed(settings.seed, done)
            tried.append(_attempts(session, model, ready, problem, seed))
            progress("race", done + 1, len(problems))
        if isinstance(session, Session):
            chains = race_on_chains(session, model, ready, settings, progress)
    return [problem.kind for problem in problems], tried, chains


def race_on_chains(
    session: Session, model: WorldModel, ready: Sequence[ReadyPlanner],
    settings: BrowserRaceSettings, progress: Progress,
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """Of each planner and length of chain, the share of goals reached and its interval."""
    if not settings.num_chains:
        return {}
    chosen = settings.chain_planners or settings.planners[:1]
    stop = stop_distance(session, model, settings.seed)
    drawn = settings.split, settings.seed, settings.num_chains
    chains = {length: draw_chains(length, *drawn) for length in LENGTHS}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for planner in (each for each in ready if each.name in chosen):
        found[planner.name] = {}
        for length, problems in chains.items():
            reached = []
            for number, problem in enumerate(problems):
                seed = problem_seed(settings.seed, number)
                ask = asking(model, planner, seed)
                reached.append(reaches_in_turn(session, model, problem, ask, length, stop))
                progress(f"{planner.name}, {length} gestures", number + 1, len(problems))
            found[planner.name][str(length)] = _share(reached)
    return found


def _problems(
    session: Session | TaskSession, settings: BrowserRaceSettings, progress: Progress
) -> list[Posed]:
    """As many as are asked for; of MiniWoB++ of one task after another."""
    num = settings.num_problems
    rng = seeded(settings.split, settings.seed, PURPOSE, num_problems=num)
    if not isinstance(session, TaskSession):
        return [draw_problem(settings.split, rng) for _ in range(num)]
    problems: list[Posed] = []
    for name in islice(cycle(settings.tasks or TASKS), num):
        problems.append(draw_task_problem(session, settings.split, rng, (name,)))
        progress("problems", len(problems), num)
    return problems


def _attempts(
    session: Session | TaskSession, model: WorldModel, ready: list[ReadyPlanner], problem: Posed,
    seed: int,
) -> list[Attempt]:  # fmt: skip
    """Of every planner at one problem."""
    goal, start = pictures(session, problem)
    found = []
    for planner in ready:
        result = plan_on(model, planner, start, goal, seed)
        reached = reaches(session, problem, result.actions[0])
        found.append(Attempt(reached, 1e3 * result.wall_time_s["total"]))
    return found


def _share(reached: Sequence[bool]) -> dict[str, float]:
    """Of goals reached, with its interval."""
    low, high = wilson_interval(sum(reached), len(reached))
    return {"success": float(np.mean(reached)), "low": low, "high": high}


def _summary(planner: ReadyPlanner, tried: Sequence[Attempt], kinds: list[str]) -> dict[str, Any]:
    reached, times = zip(*tried, strict=True)
    by_kind = {
        kind: [hit for hit, own in zip(reached, kinds, strict=True) if own == kind]
        for kind in sorted(set(kinds))
    }
    return {
        **_share(reached), "p50_ms": float(np.median(times)), "with_cost": planner.with_cost,
        "kinds": {kind: float(np.mean(hits)) for kind, hits in by_kind.items()},
    }  # fmt: skip
