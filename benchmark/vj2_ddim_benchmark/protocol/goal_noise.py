"""A planner that sees its goal through noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vj2_ddim_benchmark.planners.host import MakeCost
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanningProblem, PlanResult

__all__ = ["NoisyGoal", "noisy_goal"]

NOISE_STREAM = 1  # apart from the planner's own randomness, which has the same seed


def noisy_goal(goal: FloatArray, std: float, seed: int) -> FloatArray:
    """Gaussian noise on latents `[1, N, D]`, the same for every planner of a problem.

    Args:
        goal: The latents.
        std: Of the noise, in units of the latents' own std.
        seed: The problem's.

    Returns:
        The noisy latents, of the goal's shape and precision.
    """
    noise = np.random.default_rng([seed, NOISE_STREAM]).standard_normal(goal.shape)
    noisy: FloatArray = (goal + std * goal.std() * noise).astype(goal.dtype)
    return noisy


@dataclass(frozen=True)
class NoisyGoal:
    """An `ActionOptimizer` whose context and cost both hold the noisy goal.

    Attributes:
        optimizer: What plans.
        std: Of the noise, in units of the latents' own std.
        world_model: What the cost is made from.
        make_cost: The cost, from the world model and the two latents.
    """

    optimizer: ActionOptimizer
    std: float
    world_model: Any
    make_cost: MakeCost

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan for the noisy goal.

        Raises:
            ContextError: The problem brings no seed.
        """
        if problem.seed is None:
            raise ContextError("noise on the goal needs the problem's seed; found None")
        state, goal = problem.context["state"], problem.context["goal"]
        seen = noisy_goal(goal, self.std, problem.seed)
        cost = None if problem.cost is None else self.make_cost(self.world_model, state, seen)
        context = {**problem.context, "goal": seen}
        return self.optimizer.optimize(replace(problem, context=context, cost=cost))
