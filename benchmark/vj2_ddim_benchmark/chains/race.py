"""One chain under one rule for all planners: look, stop or plan, touch, look again.

The host sees the picture of the screen and that of the final goal, and nothing else. It stops when
their latents are close enough or its gestures have run out. Only then is the screen's true state
asked for, so a planner cannot be saved by a judge who looks on: who stops wrongly, or goes on and
spoils what was right, has failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vj2_ddim_benchmark.chains.records import ChainRecord
from vj2_ddim_benchmark.chains.stopping import picture_distance
from vj2_ddim_benchmark.chains.strokes import to_stroke
from vj2_ddim_benchmark.planners.host import MakeCost, plan
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.run import problem_seed
from vj2_ddim_benchmark.world.chains import Chains
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.cost import LatentCost
from vj2_ddim_plugin.interface import PlanResult

__all__ = ["SPARE_GESTURES", "ChainRace"]

SPARE_GESTURES = 2  # beyond the chain's length


@dataclass(frozen=True)
class ChainRace:
    """What is raced on.

    Attributes:
        world_model: What the host looks through to stop, for all planners; also what encodes and
            makes the cost for those that bring no world model.
        chains: What to solve.
        stop_distance: The latent distance at which the host stops, see `stopping.py`.
        seed: Seed of the planners' randomness.
        make_cost: The cost, from a world model and the two latents.
    """

    world_model: Any
    chains: Chains
    stop_distance: float
    seed: int = 0
    make_cost: MakeCost = LatentCost

    def attempt(
        self, competitor: Competitor, problem: int, budget_ms: float | None = None
    ) -> ChainRecord:
        """Go through one chain, each plan timed, then judge it.

        Args:
            competitor: Who plans.
            problem: Which chain.
            budget_ms: Deadline of each plan, or None.
        """
        screen, goal = self.chains.start.select(problem), self.chains.goal.select(problem)
        length = int(self.chains.length[problem])
        results: list[PlanResult] = []
        states: list[list[int]] = []
        distances = [self._distance(screen, goal)]
        while distances[-1] > self.stop_distance and len(results) < length + SPARE_GESTURES:
            seed = problem_seed(problem_seed(self.seed, problem), len(results))
            results.append(self._plan(competitor, screen, goal, budget_ms, seed))
            screen = screen.execute(results[-1].actions)
            states.append(screen.state[0].tolist())
            distances.append(self._distance(screen, goal))
        return ChainRecord(
            planner=competitor.name,
            problem=problem,
            length=length,
            success=bool(screen.matches(goal.state)[0]),
            stopped=distances[-1] <= self.stop_distance,
            state_distance=float(screen.state_distance(goal.state)[0]),
            budget_ms=budget_ms,
            wall_ms=[1e3 * result.wall_time_s["total"] for result in results],
            cost_evaluations=sum(result.num_cost_evaluations for result in results),
            denoiser_evaluations=sum(result.num_denoiser_evaluations for result in results),
            latent_distances=distances,
            strokes=[to_stroke(result.actions[0]) for result in results],
            states=states,
        )

    def _distance(self, screen: TouchScreen, goal: TouchScreen) -> float:
        return float(picture_distance(self.world_model, screen.render(), goal.render())[0])

    def _plan(
        self,
        competitor: Competitor,
        screen: TouchScreen,
        goal: TouchScreen,
        budget_ms: float | None,
        seed: int,
    ) -> PlanResult:
        own = competitor.world_model
        return plan(
            competitor.optimizer,
            self.world_model if own is None else own,
            screen.render(),
            goal.render(),
            with_cost=competitor.with_cost,
            deadline_s=None if budget_ms is None else budget_ms / 1e3,
            seed=seed,
            make_cost=self.make_cost,
        )
