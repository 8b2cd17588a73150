"""One planner at one page: it plans for the pictures, touches, and plans anew for what it sees."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vj2_ddim_benchmark.browser.chromium import PageError
from vj2_ddim_benchmark.browser.oracle import Problem, draw_chain, draw_problem
from vj2_ddim_benchmark.browser.session import BrowserSession, Session, retried
from vj2_ddim_benchmark.planners.description import PlannerAssets, read_tuned
from vj2_ddim_benchmark.planners.registry import WITH_RIVALS, planners_of
from vj2_ddim_benchmark.race.tasks import (
    SPARE_GESTURES,
    STOP_SHARE,
    MakeCost,
    ReadyPlanner,
    distance_of,
    make_ready,
    picture_distance,
    plan,
    problem_seed,
)
from vj2_ddim_benchmark.settings import NO_FILES, TUNED_DIR, BrowserFiles
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult

CHAIN, STOP = 10, 11  # keep the randomness apart from that of data with the same seed
NUM_STOP_PAIRS = 40  # pages that one gesture tells apart

Ask = Callable[[FloatArray, FloatArray, int], PlanResult]
"""A plan from the latents `[1, N, D]` of page and goal, after so many touches."""


def made_ready(
    names: Sequence[str], assets: PlannerAssets, world_model: WorldModel, tuned: Path = TUNED_DIR
) -> list[ReadyPlanner]:
    """Planners of the registry for pages, with settings of recorded sweeps.

    Raises:
        ConfigError: One cannot be built, or was not tuned.
    """
    models = {None: world_model}
    return [
        make_ready(each, assets, read_tuned(tuned, each), models, LatentCost)
        for each in planners_of(names, rows=WITH_RIVALS)
    ]


def assets_of(
    bundle: Path, threads: int, seed: int, files: BrowserFiles = NO_FILES
) -> PlannerAssets:
    """What planners on pages are built from."""
    parts = files.latents, files.student, files.models
    return PlannerAssets(read_bundle(bundle).action_spec, bundle, threads, seed, *parts)


def hashes_of(bundle: Path, world_model: Path, files: BrowserFiles) -> dict[str, str]:
    """What the planners were, for the record."""
    parts = {"bundle": bundle / "bundle.json", "world_model": world_model, **files.models}
    return {f"{name}_sha256": sha256_of(path) for name, path in parts.items()}


def draw_chains(length: int, split: str, seed: int, num: int) -> list[Problem]:
    """Pages of a split, each `length` gestures from its goal."""
    rng = seeded(split, seed, CHAIN, length)
    return [draw_chain(split, length, rng) for _ in range(num)]


class Posed(Protocol):
    """A problem on a page of whatever kind, for a session that shows such pages."""

    @property
    def kind(self) -> str:
        """What success is told apart by."""

    def show(self, session: Any) -> Images:  # noqa: ANN401
        """Begin it; returns the picture `[size, size, 3]`, or a `BrowserError`."""

    def show_goal(self, session: Any) -> Images:  # noqa: ANN401
        """Its goal's picture, the same way."""

    def reached(self, state: Any) -> bool:  # noqa: ANN401
        """Whether that is what a touch should lead to."""


def pictures(session: BrowserSession[Any, Any], problem: Posed) -> tuple[Images, Images]:
    """Of the goal, then of the start, `[size, size, 3]`; a `BrowserError` after three tries."""
    return retried(lambda: (problem.show_goal(session), problem.show(session)))


def plan_on(
    world_model: WorldModel, planner: ReadyPlanner, seen: Images, goal: Images, seed: int
) -> PlanResult:
    """A plan from the pictures `[size, size, 3]` of page and goal, timed from them on."""
    asked: dict[str, Any] = {"with_cost": planner.with_cost, "seed": seed}
    return plan(planner.optimizer, world_model, seen[None], goal[None], **asked)


def plan_between(
    world_model: WorldModel, planner: ReadyPlanner, state: FloatArray, goal: FloatArray,
    seed: int, make_cost: MakeCost = LatentCost,
) -> PlanResult:  # fmt: skip
    """The same plan from their latents `[1, N, D]`."""
    cost = make_cost(world_model, state, goal) if planner.with_cost else None
    problem = PlanningProblem({"state": state, "goal": goal}, cost, seed=seed)
    return planner.optimizer.optimize(problem)


def _attempted(touched: Callable[[], bool]) -> bool:
    """Whether it led to the goal, never with a lost touch; not where it makes the page throw."""
    try:
        return retried(touched)
    except PageError:
        return False


def reaches(session: BrowserSession[Any, Any], problem: Posed, action: FloatArray) -> bool:
    """Whether an action block `[250, 3]` leads from the start to the goal; never a lost touch."""

    def touched() -> bool:
        problem.show(session)
        return problem.reached(session.touch(action)[1])

    return _attempted(touched)


def asking(world_model: WorldModel, planner: ReadyPlanner, seed: int) -> Ask:
    """Every plan of a planner with a seed of its own."""
    return lambda state, goal, number: plan_between(
        world_model, planner, state, goal, problem_seed(seed, number)
    )


def reaches_in_turn(
    session: Session, world_model: WorldModel, problem: Problem, ask: Ask, length: int, stop: float
) -> bool:
    """Whether plans, one after another, lead to a goal `length` gestures away.

    The host stops where the latents of page and goal are as near as `stop`, or its gestures run
    out; only then is the true state looked at. With a lost touch all is done again; a plan that
    makes the page throw leads nowhere.

    Raises:
        BrowserError: A touch was lost again and again.
    """

    def touched() -> bool:
        goal, seen = world_model.encode(np.stack(pictures(session, problem)))[:, None]
        state = problem.state
        for number in range(length + SPARE_GESTURES):
            picture, state = session.touch(ask(seen, goal, number).actions[0])
            seen = world_model.encode(picture[None])
            if distance_of(world_model, seen, goal)[0] <= stop:
                break
        return problem.reached(state)

    return _attempted(touched)


def stop_distance(session: Session, world_model: WorldModel, seed: int) -> float:
    """Half the least latent distance one gesture makes on training pages: nearer looks alike."""
    rng = seeded("train", seed, STOP)
    pairs = [pictures(session, draw_problem("train", rng)) for _ in range(NUM_STOP_PAIRS)]
    goals, starts = (np.stack(each) for each in zip(*pairs, strict=True))
    return STOP_SHARE * float(picture_distance(world_model, starts, goals).min())
