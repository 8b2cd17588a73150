"""`vj2-ddim benchmark tune`: settings tried on validation screens, a recorded sweep a planner."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.description import PlannerAssets
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.planners.sweep import SPLIT, tell, tune_planners
from vj2_ddim_benchmark.race.tasks import MakeCost, plan
from vj2_ddim_benchmark.settings import TuneSettings
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import progress_bars
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.interface import ActionOptimizer


@dataclass(frozen=True)
class PlanScore:
    """The share of problems that a planner solves, and the mean cost."""

    world_model: Any
    problems: Problems
    seed: int = 0
    make_cost: MakeCost = LatentCost

    def __call__(self, optimizer: ActionOptimizer) -> tuple[float, float]:
        """Plan for all problems."""
        start, goal = self.problems.start.render(), self.problems.goal.render()
        actions, costs = [], []
        for row in range(len(self.problems)):
            asked = {"seed": self.seed + row, "make_cost": self.make_cost}
            result = plan(optimizer, self.world_model, start[[row]], goal[[row]], **asked)
            actions.append(result.actions)
            costs.append(result.cost)
        end = self.problems.start.execute(np.concatenate(actions))
        solved = end.matches(self.problems.goal.state)
        return float(solved.mean()), float(np.concatenate(costs).mean())


def tune(settings: TuneSettings, out: Path) -> None:
    """Tune the planners that have settings to tune on validation screens, and record the sweep."""
    use_threads(settings.threads)
    chosen = [p for p in planners_of(settings.planners, quick=settings.quick) if p.search_space]
    shipped = shipped_assets()
    world_model = settings.world_model or shipped.world_model
    model = WorldModel.load(world_model)
    problems = one_gesture_problems(
        settings.num_problems, split=SPLIT, seed=settings.seed, size=model.config.screen_size
    )
    provenance = {
        "split": SPLIT,
        "seed": settings.seed,
        "num_problems": settings.num_problems,
        "world_model_sha256": sha256_of(world_model),
        "date": time.strftime("%Y-%m-%d"),
        **environment(),
    }
    spec = read_bundle(shipped.bundle).action_spec
    amortised = {"regression": shipped.regression, "gaussian": shipped.gaussian}
    parts = shipped.student, amortised
    assets = PlannerAssets(spec, shipped.bundle, settings.threads, settings.seed, None, *parts)
    score = PlanScore(model, problems, settings.seed)
    with progress_bars() as progress:
        sweeps = tune_planners(out, chosen, assets, score, provenance, progress)
    tell(sweeps)
