"""`vj2-ddim benchmark browser tune`: planners' settings, tried on validation pages."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from vj2_ddim_benchmark.browser.episode import assets_of, hashes_of, pictures, reaches
from vj2_ddim_benchmark.browser.oracle import Problem, draw_problem
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.registry import WITH_RIVALS, planners_of
from vj2_ddim_benchmark.planners.sweep import SPLIT, Sweep, tune_planners
from vj2_ddim_benchmark.race.tasks import plan
from vj2_ddim_benchmark.settings import NO_FILES, BrowserFiles, BrowserTuneSettings
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.interface import ActionOptimizer

PURPOSE = 12  # keeps the randomness apart from that of data with the same seed


class PageScore:
    """The share of pages on which a planner's plans reach the goal, and their mean cost."""

    def __init__(
        self, session: Session, world_model: WorldModel, problems: Sequence[Problem], seed: int
    ) -> None:
        self.session, self.world_model, self.problems = session, world_model, problems
        self.seed = seed
        self.seen = [pictures(session, problem) for problem in problems]  # once for all settings

    def __call__(self, optimizer: ActionOptimizer) -> tuple[float, float]:
        """Plan for all problems, and touch."""
        reached, costs = [], []
        for row, (goal, start) in enumerate(self.seen):
            asked = {"seed": self.seed + row}
            result = plan(optimizer, self.world_model, start[None], goal[None], **asked)
            reached.append(reaches(self.session, self.problems[row], result.actions[0]))
            costs.append(float(result.cost[0]))
        return float(np.mean(reached)), float(np.mean(costs))


def tune_on_pages(
    bundle: Path, world_model: Path, settings: BrowserTuneSettings, out: Path,
    progress: Progress = silent, files: BrowserFiles = NO_FILES,
) -> dict[str, Sweep]:  # fmt: skip
    """Try all settings of planners that have some to tune, and write a sweep of each.

    Args:
        bundle: A denoiser of pages.
        world_model: What all encode with and plan through.
        settings: Who, on how many pages.
        out: The folder of the sweeps.
        progress: Told phase, done, in all.
        files: What else planners need.

    Returns:
        What was tried and what won, by planner.

    Raises:
        BrowserError: A browser failed again and again.
        ConfigError: Browser or kit are missing, or a planner cannot be built.
    """
    use_threads(settings.threads)
    model = WorldModel.load(world_model)
    rng = seeded(SPLIT, settings.seed, PURPOSE, num_problems=settings.num_problems)
    problems = [draw_problem(SPLIT, rng) for _ in range(settings.num_problems)]
    provenance = {
        "split": SPLIT, "settings": settings.to_dict(), "date": time.strftime("%Y-%m-%d"),
        **hashes_of(bundle, world_model, files), **environment(),
    }  # fmt: skip
    assets = assets_of(bundle, settings.threads, settings.seed, files)
    planners = planners_of(settings.planners, rows=WITH_RIVALS)
    with closing(Session(model.config.screen_size)) as session:
        score = PageScore(session, model, problems, settings.seed)
        return tune_planners(out, planners, assets, score, provenance, progress)
