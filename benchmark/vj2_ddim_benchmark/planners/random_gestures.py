"""Predictive sampling: random real gestures, ranked. It shows what ranking alone buys."""

from __future__ import annotations

import time

import numpy as np

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.starts import DrawGestures, any_gestures, draw_sequences
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.planning.checks import checked_batch, checked_cost, padded_warm_start

__all__ = ["RandomGesturesOptimizer", "random_gestures"]


class RandomGesturesOptimizer:
    """An `ActionOptimizer` that draws K gestures and returns the one of lowest cost.

    Every problem of a batch gets the same gestures, drawn from the seed alone.

    Args:
        action_spec: What a sequence is.
        num_candidates: Gestures K.
        draw_gestures: Source of the gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        *,
        num_candidates: int = 16,
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        if num_candidates < 1 or seed < 0:
            raise ConfigError(
                f"num_candidates must be at least 1 and seed at least 0; found {num_candidates} "
                f"and {seed}"
            )
        self.action_spec, self.num_candidates = action_spec, num_candidates
        self.draw_gestures, self.seed = draw_gestures, seed

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan in one round; `init_action`, when given, is one candidate more.

        Raises:
            ContextError: There is no cost, or the cost or `init_action` does not fit.
        """
        begun = time.perf_counter()
        if problem.cost is None:
            raise ContextError("ranking random gestures needs a cost; this problem has none")
        batch = checked_batch(problem, problem.context)
        rng = np.random.default_rng(self.seed if problem.seed is None else problem.seed)
        drawn = draw_sequences(self.num_candidates, self.action_spec, self.draw_gestures, rng)
        warm = padded_warm_start(problem.init_action, self.action_spec, batch)
        candidates = np.concatenate([warm, np.tile(drawn, (batch, 1, 1, 1))], axis=1)
        cost = checked_cost(problem.cost, candidates)
        rows, chosen = np.arange(batch), cost.argmin(axis=1)
        return PlanResult(
            actions=candidates[rows, chosen],
            cost=cost[rows, chosen],
            history=cost[rows, chosen][None],
            num_cost_evaluations=cost.size,
            num_denoiser_evaluations=0,
            wall_time_s={"total": time.perf_counter() - begun},
            provider="numpy",
            stopped_because="finished",
            projection_distance=np.zeros(batch),
        )


def make_random_gestures(assets: PlannerAssets, settings: TunedSettings) -> RandomGesturesOptimizer:
    """What the registry builds."""
    return RandomGesturesOptimizer(assets.action_spec, seed=assets.seed, **settings)


def random_gestures(num_candidates: int) -> Planner:
    """The registry's row."""
    name = f"random-gestures-{num_candidates}"
    return Planner(name, make_random_gestures, fixed={"num_candidates": num_candidates})
