"""The race: every planner on the same problems, one plan at a time, taking turns.

A planner sees two pictures. It never sees the screen's state; success is judged after its clock has
stopped. Before the race each makes its first plan, timed apart (`cold.json`), and one more under
each budget to warm up, on problems of another split. Who plans when is decided in `gather.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.planners.host import Frames, MakeCost, plan, planning_problem
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world_model.cost import LatentCost
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanResult

__all__ = ["Progress", "Race", "most_generous", "problem_seed"]

Progress = Callable[[str, int, int], None]


def problem_seed(seed: int, problem: int) -> int:
    """The seed every planner gets for a problem."""
    return int(np.random.SeedSequence([seed, problem]).generate_state(1)[0])


@dataclass(frozen=True)
class Race:
    """What is raced on.

    Attributes:
        world_model: Encodes pictures and makes the cost, for all planners that bring none.
        problems: What to solve.
        seed: Seed of the planners' randomness, see `problem_seed`.
        make_cost: The cost, from the world model and the two latents.
    """

    world_model: Any
    problems: Problems
    seed: int = 0
    make_cost: MakeCost = LatentCost

    def frames(self, problem: int) -> tuple[Frames, Frames]:
        """The two pictures of a problem, uint8 `[1, H, W, 3]` each: all that planners see."""
        start, goal = self.problems.start, self.problems.goal
        return start.select(problem).render(), goal.select(problem).render()

    def plan(
        self, competitor: Competitor, problem: int, budget_ms: float | None = None
    ) -> PlanResult:
        """One plan; the same every time if it has no deadline, since the problem has its seed."""
        return self._plan(competitor, competitor.optimizer, problem, budget_ms)

    def attempt(
        self, competitor: Competitor, problem: int, budget_ms: float | None = None
    ) -> Record:
        """One plan, timed, then judged."""
        start, goal = self.problems.start.select(problem), self.problems.goal.select(problem)
        result = self.plan(competitor, problem, budget_ms)
        raw = self._before_projection(competitor, result, problem, budget_ms)
        return Record(
            planner=competitor.name,
            problem=problem,
            kind=str(self.problems.kind[problem]),
            success=bool(start.execute(result.actions).matches(goal.state)[0]),
            success_before_projection=(
                None if raw is None else bool(start.execute(raw).matches(goal.state)[0])
            ),
            final_cost=self._cost(problem, result.actions),
            wall_ms=1e3 * result.wall_time_s["total"],
            cost_evaluations=result.num_cost_evaluations,
            denoiser_evaluations=result.num_denoiser_evaluations,
            budget_ms=budget_ms,
            stopped_because=result.stopped_because,
            projection_distance=float(result.projection_distance[0]),
            provider=result.provider,
        )

    def warm_up(
        self, competitors: list[Competitor], budgets: list[float | None]
    ) -> dict[str, dict[str, float]]:
        """A first plan of each, then one under each budget, on screens of the training split.

        Returns:
            By planner: `build_ms`, and `first_plan_ms` of the fresh optimizer.
        """
        num, size = 1 + len(budgets), self.problems.start.size
        problems = one_gesture_problems(num, split="train", seed=self.seed, size=size)
        start, goal = problems.start.render(), problems.goal.render()
        self._use_shared_parts(start, goal, problems.actions)
        cold = {}
        for each in competitors:
            frames = [(start[[i]], goal[[i]]) for i in range(num)]
            limits = [most_generous(budgets), *budgets]
            first_plan, *_ = (
                self._plan_pictures(each, each.optimizer, *frames[i], limit, seed=i)
                for i, limit in enumerate(limits)
            )
            first_plan_ms = 1e3 * first_plan.wall_time_s["total"]
            cold[each.name] = {"build_ms": each.build_ms, "first_plan_ms": first_plan_ms}
        return cold

    def _plan(
        self,
        competitor: Competitor,
        optimizer: ActionOptimizer,
        problem: int,
        budget_ms: float | None,
    ) -> PlanResult:
        """A plan of the competitor or of its twin."""
        seed = problem_seed(self.seed, problem)
        return self._plan_pictures(competitor, optimizer, *self.frames(problem), budget_ms, seed)

    def _plan_pictures(
        self,
        competitor: Competitor,
        optimizer: ActionOptimizer,
        start: Frames,
        goal: Frames,
        budget_ms: float | None,
        seed: int,
    ) -> PlanResult:
        own = competitor.world_model
        return plan(
            optimizer,
            self.world_model if own is None else own,
            start,
            goal,
            with_cost=competitor.with_cost,
            deadline_s=None if budget_ms is None else budget_ms / 1e3,
            seed=seed,
            make_cost=self.make_cost,
        )

    def _before_projection(
        self, competitor: Competitor, result: PlanResult, problem: int, budget_ms: float | None
    ) -> FloatArray | None:
        """The plan without projection, `[1, L, A]`, from the result or from the twin."""
        actions: FloatArray | None = getattr(result, "unprojected_actions", None)
        if actions is None and competitor.unprojected is not None:
            actions = self._plan(competitor, competitor.unprojected, problem, budget_ms).actions
        return actions

    def _cost(self, problem: int, actions: FloatArray) -> float:
        """The cost of a plan `[1, L, A]`, for planners that were given it and for the others."""
        frames = self.frames(problem)
        context = planning_problem(self.world_model, *frames, with_cost=False).context
        cost = self.make_cost(self.world_model, context["state"], context["goal"])
        return float(cost(actions[:, None])[0, 0])

    def _use_shared_parts(self, start: Frames, goal: Frames, actions: FloatArray) -> None:
        """The first use of the world model and of torch.optim is slow; nobody pays for it."""
        shared = planning_problem(self.world_model, start, goal, make_cost=self.make_cost)
        if shared.cost is not None:
            shared.cost(actions[:, None])
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).zero_grad()


def most_generous(budgets: list[float | None]) -> float | None:
    """No deadline if that is among them, or else the longest."""
    longest = [budget for budget in budgets if budget is not None]
    return max(longest) if longest and len(longest) == len(budgets) else None
