"""The two tasks, a goal of one gesture and a chain of gestures, under one rule for all planners.

A planner sees two pictures. It never sees the screen's state; success is judged after its clock has
stopped. On a chain the host sees the picture of the screen and that of the final goal, and nothing
else: it stops when their latents are close enough or its gestures have run out. Only then is the
true state asked for, so that a planner cannot be saved by a judge who looks on: who stops wrongly,
or goes on and spoils what was right, has failed.

Before a race each planner makes its first plan, timed apart, and one more under each budget to warm
up, on problems of another split. Who plans when is decided in `gather.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.planners.problem import Frames, MakeCost, plan, planning_problem
from vj2_ddim_benchmark.race.ready import ReadyPlanner
from vj2_ddim_benchmark.race.records import ChainRecord, Record, to_stroke
from vj2_ddim_benchmark.world.problems import Chains, Problems, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.model import LatentCost, latent_distance
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanResult

__all__ = [
    "SPARE_GESTURES",
    "ChainRace",
    "Race",
    "most_generous",
    "picture_distance",
    "problem_seed",
    "stop_distance_of",
]

SPARE_GESTURES = 2  # beyond the chain's length
STOP_PAIRS = 600  # pairs of screens that one gesture tells apart
STOP_SHARE = 0.5  # of the smallest distance among them


@dataclass(frozen=True)
class Race:
    """One-gesture problems, the world model that all plan through, and the planners' seed."""

    world_model: Any
    problems: Problems
    seed: int = 0
    make_cost: MakeCost = LatentCost

    def frames(self, problem: int) -> tuple[Frames, Frames]:
        """The two pictures of a problem, uint8 `[1, H, W, 3]` each: all that planners see."""
        start, goal = self.problems.start, self.problems.goal
        return start.select(problem).render(), goal.select(problem).render()

    def plan(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None
    ) -> PlanResult:
        """One plan; the same every time if it has no deadline, since the problem has its seed."""
        return self._plan(planner, planner.optimizer, problem, budget_ms)

    def attempt(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None
    ) -> Record:
        """One plan, timed, then judged."""
        start, goal = self.problems.start.select(problem), self.problems.goal.select(problem)
        result = self.plan(planner, problem, budget_ms)
        raw = self._before_projection(planner, result, problem, budget_ms)
        return Record(
            planner=planner.name,
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
        self, planners: Sequence[ReadyPlanner], budgets: Sequence[float | None]
    ) -> dict[str, dict[str, float]]:
        """A first plan of each, then one under each budget; the times of the first, by planner."""
        return _warm_up(self, self.problems.start.size, planners, budgets)

    def _plan(
        self,
        planner: ReadyPlanner,
        optimizer: ActionOptimizer,
        problem: int,
        budget_ms: float | None,
    ) -> PlanResult:
        """A plan of the planner or of its twin."""
        seed = problem_seed(self.seed, problem)
        return _plan(self, planner, optimizer, self.frames(problem), budget_ms, seed)

    def _before_projection(
        self, planner: ReadyPlanner, result: PlanResult, problem: int, budget_ms: float | None
    ) -> FloatArray | None:
        """The plan without projection, `[1, L, A]`, from the result or from the twin."""
        actions: FloatArray | None = getattr(result, "unprojected_actions", None)
        if actions is None and planner.unprojected is not None:
            actions = self._plan(planner, planner.unprojected, problem, budget_ms).actions
        return actions

    def _cost(self, problem: int, actions: FloatArray) -> float:
        """The cost of a plan `[1, L, A]`, for planners that were given it and for the others."""
        frames = self.frames(problem)
        context = planning_problem(self.world_model, *frames, with_cost=False).context
        cost = self.make_cost(self.world_model, context["state"], context["goal"])
        return float(cost(actions[:, None])[0, 0])


@dataclass(frozen=True)
class ChainRace:
    """Chains, the world model that all plan through, and the latent distance to stop at."""

    world_model: Any  # what the host looks through to stop, for all planners
    chains: Chains
    stop_distance: float
    seed: int = 0
    make_cost: MakeCost = LatentCost

    def attempt(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None
    ) -> ChainRecord:
        """Go through one chain, each plan timed and under the budget, then judge it."""
        screen, goal = self.chains.start.select(problem), self.chains.goal.select(problem)
        length = int(self.chains.length[problem])
        results: list[PlanResult] = []
        states: list[list[int]] = []
        distances = [self._distance(screen, goal)]
        while distances[-1] > self.stop_distance and len(results) < length + SPARE_GESTURES:
            seed = problem_seed(problem_seed(self.seed, problem), len(results))
            frames = screen.render(), goal.render()
            results.append(_plan(self, planner, planner.optimizer, frames, budget_ms, seed))
            screen = screen.execute(results[-1].actions)
            states.append(screen.state[0].tolist())
            distances.append(self._distance(screen, goal))
        return ChainRecord(
            planner=planner.name,
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

    def warm_up(
        self, planners: Sequence[ReadyPlanner], budgets: Sequence[float | None]
    ) -> dict[str, dict[str, float]]:
        """As in a race of one-gesture problems."""
        return _warm_up(self, self.chains.start.size, planners, budgets)

    def _distance(self, screen: TouchScreen, goal: TouchScreen) -> float:
        return float(picture_distance(self.world_model, screen.render(), goal.render())[0])


def problem_seed(seed: int, problem: int) -> int:
    """The seed every planner gets for a problem."""
    return int(np.random.SeedSequence([seed, problem]).generate_state(1)[0])


def most_generous(budgets: Sequence[float | None]) -> float | None:
    """No deadline if that is among them, or else the longest."""
    longest = [budget for budget in budgets if budget is not None]
    return max(longest) if longest and len(longest) == len(budgets) else None


def picture_distance(world_model: Any, frames: Frames, goals: Frames) -> FloatArray:  # noqa: ANN401
    """Latent distance of pictures uint8 `[n, H, W, 3]` from others, as `[n]`."""
    state, goal = np.split(world_model.encode(np.concatenate([frames, goals])), 2)
    kind = world_model.config.cost_kind
    distance = latent_distance(torch.as_tensor(state), torch.as_tensor(goal), kind)
    return np.asarray(distance.numpy())


def stop_distance_of(
    world_model: Any,  # noqa: ANN401
    *,
    size: int = 64,
    seed: int = 0,
    num_pairs: int = STOP_PAIRS,
) -> float:
    """A latent distance below which the host may take two pictures for the same screen state.

    Half the smallest distance that one gesture on one widget makes, over screens of the training
    split and all kinds of widgets. Equal pictures have distance 0.
    """
    pairs = one_gesture_problems(num_pairs, split="train", seed=seed, size=size)
    apart = picture_distance(world_model, pairs.start.render(), pairs.goal.render())
    return STOP_SHARE * float(apart.min())


def _plan(
    race: Race | ChainRace,
    planner: ReadyPlanner,
    optimizer: ActionOptimizer,
    frames: tuple[Frames, Frames],
    budget_ms: float | None,
    seed: int,
) -> PlanResult:
    own = planner.world_model
    return plan(
        optimizer,
        race.world_model if own is None else own,
        *frames,
        with_cost=planner.with_cost,
        deadline_s=None if budget_ms is None else budget_ms / 1e3,
        seed=seed,
        make_cost=race.make_cost,
    )


def _warm_up(
    race: Race | ChainRace,
    size: int,
    planners: Sequence[ReadyPlanner],
    budgets: Sequence[float | None],
) -> dict[str, dict[str, float]]:
    num = 1 + len(budgets)
    problems = one_gesture_problems(num, split="train", seed=race.seed, size=size)
    start, goal = problems.start.render(), problems.goal.render()
    _use_shared_parts(race, start, goal, problems.actions)
    cold = {}
    for each in planners:
        limits = [most_generous(budgets), *budgets]
        first_plan, *_ = (
            _plan(race, each, each.optimizer, (start[[i]], goal[[i]]), limit, seed=i)
            for i, limit in enumerate(limits)
        )
        first_plan_ms = 1e3 * first_plan.wall_time_s["total"]
        cold[each.name] = {"build_ms": each.build_ms, "first_plan_ms": first_plan_ms}
    return cold


def _use_shared_parts(
    race: Race | ChainRace, start: Frames, goal: Frames, actions: FloatArray
) -> None:
    """The first use of the world model and of torch.optim is slow; nobody pays for it."""
    shared = planning_problem(race.world_model, start, goal, make_cost=race.make_cost)
    if shared.cost is not None:
        shared.cost(actions[:, None])
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).zero_grad()
