"""Random real gestures: where a search may begin, and what ranking alone buys."""

import time
from dataclasses import dataclass

import numpy as np

from vj2_ddim_benchmark.planners.ranking import required_cost
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning import checks
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec


def draw_sequences(num: int, spec: ActionSpec, rng: np.random.Generator) -> FloatArray:
    """Sequences `[num, L, A]` of one tap or drag a block, half of each, anywhere on the screen."""
    blocks = random_policy(num * spec.horizon, rng)
    return blocks.reshape(num, spec.length, spec.num_channels)


@dataclass(frozen=True)
class RandomGestures(Settings):
    """How random gestures are planned with."""

    num_candidates: int = setting(16, "Gestures that are ranked.", low=1)
    seed: int = setting(0, "Used where a problem brings none.", low=0)


class RandomGesturesOptimizer:
    """An `ActionOptimizer` that returns the cheapest of gestures drawn from the seed alone."""

    def __init__(self, action_spec: ActionSpec, settings: RandomGestures) -> None:
        self.action_spec, self.settings = action_spec, settings

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan in one round; `init_action`, when given, is one candidate more."""
        begun = time.perf_counter()
        judge = required_cost(problem, "ranking random gestures")
        batch = checks.checked_batch(problem, problem.context)
        rng = np.random.default_rng(checks.checked_seed(problem, self.settings.seed))
        drawn = draw_sequences(self.settings.num_candidates, self.action_spec, rng)
        warm = checks.padded_warm_start(problem.init_action, self.action_spec, batch)
        candidates = np.concatenate([warm, np.tile(drawn, (batch, 1, 1, 1))], axis=1)
        cost = checks.checked_cost(judge, candidates)
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
