"""Tuning the registry's planners on validation screens, each by its own recorded sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.planners.entry import BuildAssets, Entry, Settings
from vj2_ddim_benchmark.planners.host import MakeCost, plan
from vj2_ddim_benchmark.protocol.tuning import Sweep, sweep, write_sweep
from vj2_ddim_benchmark.world.problems import Problems
from vj2_ddim_benchmark.world_model.cost import LatentCost
from vj2_ddim_plugin.interface import ActionOptimizer

__all__ = ["Judge", "tune_planners"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Judge:
    """Says how good a planner is on a set of problems.

    Attributes:
        world_model: Encodes pictures and makes the cost.
        problems: What to solve.
        seed: Seed of the first batch; the next ones count on.
        batch_size: Problems planned for at once; a batch shares its random starts, so that one at a
            time, as in the race, is the fairest to planners that start from random gestures.
        make_cost: The cost, from the world model and the two latents.
    """

    world_model: Any
    problems: Problems
    seed: int = 0
    batch_size: int = 1
    make_cost: MakeCost = LatentCost

    def __call__(self, optimizer: ActionOptimizer) -> tuple[float, float]:
        """Plan for all problems; the share that is solved, and the mean cost of the plans."""
        start, goal = self.problems.start.render(), self.problems.goal.render()
        actions, costs = [], []
        for batch, first in enumerate(range(0, len(self.problems), self.batch_size)):
            rows = slice(first, first + self.batch_size)
            result = plan(
                optimizer,
                self.world_model,
                start[rows],
                goal[rows],
                seed=self.seed + batch,
                make_cost=self.make_cost,
            )
            actions.append(result.actions)
            costs.append(result.cost)
        end = self.problems.start.execute(np.concatenate(actions))
        solved = end.matches(self.problems.goal.state)
        return float(solved.mean()), float(np.concatenate(costs).mean())


def tune_planners(
    folder: Path,
    entries: Sequence[Entry],
    assets: BuildAssets,
    judge: Judge,
    provenance: dict[str, Any],
    progress: Progress | None = None,
) -> dict[str, Sweep]:
    """Sweep every entry that has something to tune, and write one file each.

    Args:
        folder: Where the files go.
        entries: Lines of the registry; those without a search space are skipped.
        assets: What planners are built from.
        judge: Judges each setting.
        provenance: Written into each file.
        progress: Called with the planner's name, the settings tried and their number.

    Returns:
        The sweeps by name.
    """
    report = progress or (lambda phase, done, total: None)
    sweeps = {}
    for entry in entries:
        if not entry.search_space:
            continue
        total, tried = prod(len(values) for values in entry.search_space.values()), 0

        def evaluate(
            settings: Settings, entry: Entry = entry, total: int = total
        ) -> tuple[float, float]:
            nonlocal tried
            scores = judge(entry.build(assets, settings))
            tried += 1
            report(f"tune {entry.name}", tried, total)
            return scores

        sweeps[entry.name] = sweep(entry.search_space, evaluate)
        write_sweep(folder, entry.name, sweeps[entry.name], provenance)
    return sweeps
