"""Settings of planners, tried one after another: a recorded sweep a planner."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.planners.description import (
    Planner,
    PlannerAssets,
    SearchSpace,
    TunedSettings,
)
from vj2_ddim_plugin.cli.console import Progress, say, silent
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.interface import ActionOptimizer

SPLIT = "validation"  # that settings are chosen on


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


Score = Callable[[ActionOptimizer], tuple[float, float]]
"""The share of problems that a planner solves, and the mean cost of its plans."""


def tune_planners(
    folder: Path, planners: Sequence[Planner], assets: PlannerAssets, score: Score,
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


def tell(sweeps: Mapping[str, Sweep]) -> None:
    """Say what won, and what won at the edge of its range."""
    for name, found in sweeps.items():
        best = max(trial.success for trial in found.trials)
        edge = f"; at the edge of its range: {', '.join(found.at_edge)}" if found.at_edge else ""
        say(f"{name}: {dict(found.winner)}, success {best:.1%}{edge}")
