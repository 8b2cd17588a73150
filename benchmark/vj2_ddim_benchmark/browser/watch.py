"""`vj2-ddim benchmark browser watch`: a planner at work on unseen pages, as a person sees it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.browser.episode import (
    assets_of,
    draw_chains,
    made_ready,
    plan_between,
    reaches_in_turn,
    stop_distance,
)
from vj2_ddim_benchmark.browser.film import MISSED, REACHED, Block, Shot, Words, shots_of, still
from vj2_ddim_benchmark.browser.session import Session, retried
from vj2_ddim_benchmark.environment import use_threads
from vj2_ddim_benchmark.race.tasks import ReadyPlanner, problem_seed
from vj2_ddim_benchmark.settings import TUNED_DIR, BrowserWatchSettings
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.interface import FloatArray, PlanResult

BEFORE_MS, AFTER_MS = 1000, 1500  # for which the page is seen untouched

Show = Callable[[Sequence[Shot]], None]


def watch_pages(
    bundle: Path, world_model: Path, settings: BrowserWatchSettings, show: Show,
    progress: Progress = silent, *, tuned: Path = TUNED_DIR,
) -> int:  # fmt: skip
    """Have a planner go to goals, page after page, and show each when it is done.

    Args:
        bundle: A denoiser of pages.
        world_model: What the planner encodes with and plans through.
        settings: Who, on whose pages, how many and how far from their goal.
        show: Given the pictures of each page in turn.
        progress: Told phase, done, in all.
        tuned: The folder of recorded sweeps.

    Returns:
        How many goals were reached.

    Raises:
        BrowserError: A browser failed again and again.
        ConfigError: Browser or kit are missing, or the planner cannot be built.
    """
    use_threads(settings.threads)
    model, given = WorldModel.load(world_model), settings
    assets = assets_of(bundle, given.threads, given.seed)
    (planner,) = made_ready([given.planner], assets, model, tuned)
    problems = draw_chains(given.num_gestures, given.split, given.seed, given.num_goals)
    reached = 0
    with closing(Session(model.config.screen_size)) as session:
        stop = stop_distance(session, model, given.seed)
        for index, problem in enumerate(problems):
            watched = Watched(model, planner, problem_seed(given.seed, index))
            session.on_frame = watched.on_frame
            retried(partial(session.show, problem.page, problem.goal))
            goal, length = watched.last[1], given.num_gestures
            success = reaches_in_turn(session, model, problem, watched.ask, length, stop)
            show(watched.film(goal, f"page {index + 1} of {len(problems)}", success, given.size))
            reached += success
            progress("watch", index + 1, len(problems), f"{reached} reached")
    return reached


class Watched:
    """Asks a planner, and keeps what it considered and what the page looked like meanwhile."""

    def __init__(self, world_model: WorldModel, planner: ReadyPlanner, seed: int) -> None:
        self.blocks: list[Block] = []
        self.last = 0.0, b""  # what was seen last
        self._world_model, self._planner, self._seed = world_model, planner, seed

    def on_frame(self, ms: float, png: bytes) -> None:
        """Keep a frame; it is one of the last touch until another page is shown."""
        self.last = ms, png
        if self.blocks:
            self.blocks[-1].frames.append(self.last)

    def ask(self, state: FloatArray, goal: FloatArray, number: int) -> PlanResult:
        """A plan from the latents `[1, N, D]` of page and goal, after so many touches."""
        costs: list[SeenCost] = []

        def make_cost(*given: Any) -> SeenCost:  # noqa: ANN401
            costs.append(SeenCost(*given))
            return costs[-1]

        seed = problem_seed(self._seed, number)
        result = plan_between(self._world_model, self._planner, state, goal, seed, make_cost)
        asked = [candidates[0] for cost in costs for candidates in cost.asked]
        candidates = np.concatenate(asked) if asked else np.zeros_like(result.actions[:0])
        del self.blocks[number:]  # those of a try in which a touch was lost
        self.blocks.append(Block(result.actions[0], candidates, [self.last]))
        return result

    def film(self, goal: bytes, name: str, reached: bool, size: int) -> list[Shot]:
        """The page at rest, its touches, and what came of them; the goal is a PNG."""
        who, num = self._planner.name, len(self.blocks)
        begun, ended = self.blocks[0].frames[0][1], self.blocks[-1].frames[-1][1]
        shots = [still(begun, goal, Words(name, who), size, BEFORE_MS)]
        for number, block in enumerate(self.blocks, start=1):
            shots += shots_of(block, goal, Words(name, f"{who}, gesture {number}"), size)
        result = f"{'' if reached else 'not '}reached in {num} gesture{'s' * (num > 1)}"
        words = Words(name, result, REACHED if reached else MISSED)
        return [*shots, still(ended, goal, words, size, AFTER_MS)]


class SeenCost(LatentCost):
    """The planner's cost, which keeps the candidates `[B, K, L, 3]` that it is asked about."""

    def __init__(self, *given: Any) -> None:  # noqa: ANN401
        super().__init__(*given)
        self.asked: list[FloatArray] = []

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """Cost `[B, K]`."""
        self.asked.append(candidates)
        return super().__call__(candidates)
