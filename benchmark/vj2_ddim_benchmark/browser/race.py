"""`vj2-ddim benchmark browser race`: planners on unseen pages, which they touch for real.

Each sees two pictures and plans through the same world model, as on the touch screen; then its plan
is executed on the page, put back into its first state, and the state is read from the DOM.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vj2_ddim_benchmark.browser.oracle import Problem, draw_problem
from vj2_ddim_benchmark.browser.session import Session, retried
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.description import PlannerAssets, read_tuned
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.race.tasks import ReadyPlanner, make_ready, plan, problem_seed
from vj2_ddim_benchmark.report.summary import wilson_interval
from vj2_ddim_benchmark.settings import TUNED_DIR, BrowserRaceSettings
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.interface import FloatArray

PURPOSE = 9  # keeps the randomness apart from that of data with the same seed


class Attempt(NamedTuple):
    """Whether a plan reached its goal, and how long it took to make."""

    reached: bool
    plan_ms: float


def race_on_pages(
    bundle: Path, world_model: Path, settings: BrowserRaceSettings, progress: Progress = silent
) -> dict[str, Any]:
    """Have every planner plan and touch, problem after problem.

    Args:
        bundle: A denoiser of pages.
        world_model: What all encode with and plan through.
        settings: Who, on whose pages, how many.
        progress: Told phase, done, in all.

    Returns:
        Success with its interval, median time of a plan in ms, and success by kind of widget, of
        each planner; and what it was measured with.

    Raises:
        BrowserError: A browser failed again and again.
        ConfigError: Browser or kit are missing, or a planner cannot be built.
    """
    use_threads(settings.threads)
    model = WorldModel.load(world_model)
    spec = read_bundle(bundle).action_spec
    assets = PlannerAssets(spec, bundle, settings.threads, settings.seed)
    ready = [
        make_ready(each, assets, read_tuned(TUNED_DIR, each), {None: model}, LatentCost)
        for each in planners_of(settings.planners)
    ]
    rng = seeded(settings.split, settings.seed, PURPOSE, num_problems=settings.num_problems)
    problems = [draw_problem(settings.split, rng) for _ in range(settings.num_problems)]
    tried: list[list[Attempt]] = []
    with closing(Session(model.config.screen_size)) as session:
        for done, problem in enumerate(problems):
            seed = problem_seed(settings.seed, done)
            tried.append(_attempts(session, model, ready, problem, seed))
            progress("race", done + 1, len(problems))
    kinds = [_kind(problem) for problem in problems]
    by_planner = zip(ready, zip(*tried, strict=True), strict=True)
    return {
        "settings": settings.to_dict(),
        "bundle_sha256": sha256_of(bundle / "bundle.json"),
        "world_model_sha256": sha256_of(world_model),
        "planners": {
            planner.name: _summary(planner, found, kinds) for planner, found in by_planner
        },
        "environment": environment(),
    }


def _attempts(
    session: Session, model: WorldModel, ready: list[ReadyPlanner], problem: Problem, seed: int
) -> list[Attempt]:
    """Of every planner at one problem."""
    goal, start = _pictures(session, problem)
    found = []
    for planner in ready:
        asked: dict[str, Any] = {"with_cost": planner.with_cost, "seed": seed}
        result = plan(planner.optimizer, model, start[None], goal[None], **asked)
        reached = _reaches(session, problem, result.actions[0])
        found.append(Attempt(reached, 1e3 * result.wall_time_s["total"]))
    return found


def _pictures(session: Session, problem: Problem) -> tuple[Images, Images]:
    """Of the goal, then of the start."""
    page, state, goal = problem
    return retried(lambda: (session.show(page, goal), session.show(page, state)))


def _reaches(session: Session, problem: Problem, action: FloatArray) -> bool:
    """Whether an action block `[250, 3]` leads from the start to the goal; never a lost touch."""

    def touched() -> bool:
        session.show(problem.page, problem.state)
        return np.array_equal(session.touch(action)[1], problem.goal)

    return retried(touched)


def _kind(problem: Problem) -> str:
    """The kind of the first widget whose state is to change."""
    apart = np.flatnonzero(problem.state != problem.goal)
    return problem.page.widgets[int(apart[0])].kind


def _summary(planner: ReadyPlanner, tried: Sequence[Attempt], kinds: list[str]) -> dict[str, Any]:
    reached, times = zip(*tried, strict=True)
    low, high = wilson_interval(sum(reached), len(reached))
    by_kind = {
        kind: [hit for hit, own in zip(reached, kinds, strict=True) if own == kind]
        for kind in sorted(set(kinds))
    }
    return {
        "success": float(np.mean(reached)), "low": low, "high": high,
        "p50_ms": float(np.median(times)), "with_cost": planner.with_cost,
        "kinds": {kind: float(np.mean(hits)) for kind, hits in by_kind.items()},
    }  # fmt: skip
