"""`vj2-ddim benchmark tune`: settings tried on validation screens, a recorded sweep a planner."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.description import (
    Planner,
    PlannerAssets,
    SearchSpace,
    TunedSettings,
)
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.race.tasks import MakeCost, plan
from vj2_ddim_benchmark.settings import TuneSettings
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import Progress, progress_bars, say, silent
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import sha256_of, write_json
from vj2_ddim_plugin.interface import ActionOptimizer

SPLIT = "validation"


@dataclass(frozen=True)
class Trial:
    """One combination of settings and how it did."""

    settings: TunedSettings
    success: float  # share of problems solved
    cost: float  # mean, of the plans; it decides between equal shares


@dataclass(frozen=True)
class Sweep:
    """Everything that was tried, in order, and the settings of the best trial."""

    search_space: SearchSpace
    trials: tuple[Trial, ...]
    winner: TunedSettings
    at_edge: tuple[str, ...]  # settings that won with the least or greatest of their numbers

    def write(self, folder: Path, planner: str, provenance: dict[str, Any]) -> Path:
        """Write it and how it was made (seeds, problems, versions); returns the file."""
        path = folder / f"{planner}.json"
        write_json(path, {"planner": planner, **asdict(self), "provenance": provenance})
        return path


def sweep(
    search_space: SearchSpace, evaluate: Callable[[TunedSettings], tuple[float, float]]
) -> Sweep:
    """Try all: the highest share solved wins, then the lowest cost, then the first."""
    empty = [name for name, values in search_space.items() if not values]
    if empty:
        raise ConfigError(f"the search space has no values for {empty[0]!r}; give at least one")
    trials = []
    for values in itertools.product(*search_space.values()):
        settings = dict(zip(search_space, values, strict=True))
        trials.append(Trial(settings, *evaluate(settings)))
    best = min(trials, key=lambda trial: (-trial.success, trial.cost))
    at_edge = tuple(
        name
        for name, values in search_space.items()
        if len(values) > 1
        and all(isinstance(value, int | float) for value in values)
        and best.settings[name] in (min(values), max(values))
    )
    return Sweep(search_space, tuple(trials), best.settings, at_edge)


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


def tune_planners(
    folder: Path, planners: Sequence[Planner], assets: PlannerAssets, score: PlanScore,
    provenance: dict[str, Any], progress: Progress = silent,
) -> dict[str, Sweep]:  # fmt: skip
    """Sweep every planner that has something to tune, and write one file each; all by name."""
    sweeps = {}
    for planner in planners:
        if not planner.search_space:
            continue
        total, tried = prod(len(values) for values in planner.search_space.values()), 0

        def evaluate(
            settings: TunedSettings, planner: Planner = planner, total: int = total
        ) -> tuple[float, float]:
            nonlocal tried
            scores = score(planner.build(assets, settings))
            tried += 1
            progress(f"tune {planner.name}", tried, total)
            return scores

        sweeps[planner.name] = sweep(planner.search_space, evaluate)
        sweeps[planner.name].write(folder, planner.name, provenance)
    return sweeps


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
    parts = shipped.regression, shipped.gaussian, shipped.student
    assets = PlannerAssets(spec, shipped.bundle, settings.threads, settings.seed, None, *parts)
    score = PlanScore(model, problems, settings.seed)
    with progress_bars() as progress:
        sweeps = tune_planners(out, chosen, assets, score, provenance, progress)
    for name, found in sweeps.items():
        best = max(trial.success for trial in found.trials)
        edge = f"; at the edge of its range: {', '.join(found.at_edge)}" if found.at_edge else ""
        say(f"{name}: {dict(found.winner)}, success {best:.1%}{edge}")
