"""Planners ready to run: built with tuned settings, building timed, goals blurred if asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.problem import MakeCost
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanningProblem, PlanResult

__all__ = ["NoisyGoal", "ReadyPlanner", "make_ready", "noisy_goal"]

NOISE_STREAM = 1  # apart from the planner's own randomness, which has the same seed


@dataclass(frozen=True)
class ReadyPlanner:
    """What a description was built into."""

    name: str
    optimizer: ActionOptimizer
    with_cost: bool = True  # whether it is given the cost
    unprojected: ActionOptimizer | None = None  # a twin that does not project its plans
    build_ms: float = 0.0
    world_model: Any = None  # what it encodes with and plans through; None for the race's


def make_ready(
    planner: Planner,
    assets: PlannerAssets,
    settings: TunedSettings,
    world_models: Mapping[Any, Any],
    make_cost: MakeCost,
) -> ReadyPlanner:
    """Build a planner; `world_models` are those of the files, under None the race's own.

    Raises ConfigError where it lacks an asset or refuses its settings.
    """
    begun = time.perf_counter()
    optimizer = planner.build(assets, settings)
    build_ms = 1e3 * (time.perf_counter() - begun)
    twin = planner.build_unprojected(assets, settings)
    if planner.goal_noise:
        model = world_models[planner.world_model]
        optimizer = NoisyGoal(optimizer, planner.goal_noise, model, make_cost)
        twin = None if twin is None else NoisyGoal(twin, planner.goal_noise, model, make_cost)
    own = None if planner.world_model is None else world_models[planner.world_model]
    return ReadyPlanner(planner.name, optimizer, planner.with_cost, twin, build_ms, own)


def noisy_goal(goal: FloatArray, std: float, seed: int) -> FloatArray:
    """Gaussian noise on latents `[1, N, D]`, in units of their std, the same for every planner."""
    noise = np.random.default_rng([seed, NOISE_STREAM]).standard_normal(goal.shape)
    noisy: FloatArray = (goal + std * goal.std() * noise).astype(goal.dtype)
    return noisy


@dataclass(frozen=True)
class NoisyGoal:
    """An `ActionOptimizer` whose context and cost both hold the noisy goal."""

    optimizer: ActionOptimizer
    std: float
    world_model: Any  # what the cost is made from
    make_cost: MakeCost

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan for the noisy goal; a problem without a seed raises a ContextError."""
        if problem.seed is None:
            raise ContextError("noise on the goal needs the problem's seed; found None")
        state, goal = problem.context["state"], problem.context["goal"]
        seen = noisy_goal(goal, self.std, problem.seed)
        cost = None if problem.cost is None else self.make_cost(self.world_model, state, seen)
        context = {**problem.context, "goal": seen}
        return self.optimizer.optimize(replace(problem, context=context, cost=cost))
