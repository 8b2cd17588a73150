"""The two tasks, a goal of one gesture and a chain of gestures, under one rule for all planners.

A planner sees two pictures, never the screen's state. On a chain the host sees the screen's and the
final goal's, and stops when their latents are close or its gestures have run out. Only then is the
true state asked for, so that no planner is saved by a judge who looks on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.problem import Frames, MakeCost, plan, planning_problem
from vj2_ddim_benchmark.race.records import ChainRecord, Record, to_stroke
from vj2_ddim_benchmark.world.problems import Chains, Problems, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.model import LatentCost, latent_distance
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanningProblem, PlanResult

NOISE_STREAM = 1  # apart from the planner's own randomness, which has the same seed
SPARE_GESTURES = 2  # beyond the chain's length
STOP_PAIRS = 600  # pairs of screens that one gesture tells apart
STOP_SHARE = 0.5  # of the smallest distance among them


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
    """Build a planner; `world_models` are those of the files, under None the race's own."""
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
        self,
        planner: ReadyPlanner,
        problem: int,
        budget_ms: float | None = None,
        twin: ActionOptimizer | None = None,
    ) -> PlanResult:
        """One plan of a planner or its twin; without a deadline the same every time."""
        seed = problem_seed(self.seed, problem)
        return _plan(self, planner, twin, self.frames(problem), budget_ms, seed)

    def attempt(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None
    ) -> Record:
        """One plan, timed, then judged."""
        start, goal = self.problems.start.select(problem), self.problems.goal.select(problem)
        result = self.plan(planner, problem, budget_ms)
        raw: FloatArray | None = getattr(result, "unprojected_actions", None)
        if raw is None and planner.unprojected is not None:
            raw = self.plan(planner, problem, budget_ms, planner.unprojected).actions
        before = None if raw is None else bool(start.execute(raw).matches(goal.state)[0])
        seen = planning_problem(self.world_model, *self.frames(problem), with_cost=False).context
        cost = self.make_cost(self.world_model, seen["state"], seen["goal"])
        return Record(
            planner=planner.name,
            problem=problem,
            kind=str(self.problems.kind[problem]),
            success=bool(start.execute(result.actions).matches(goal.state)[0]),
            success_before_projection=before,
            final_cost=float(cost(result.actions[:, None])[0, 0]),
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
            results.append(_plan(self, planner, None, frames, budget_ms, seed))
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
    size: int = 64,
    num_pairs: int = STOP_PAIRS,
) -> float:
    """Half the least latent distance one gesture makes: nearer pictures are taken for the same."""
    pairs = one_gesture_problems(num_pairs, split="train", seed=0, size=size)
    apart = picture_distance(world_model, pairs.start.render(), pairs.goal.render())
    return STOP_SHARE * float(apart.min())


def _plan(
    race: Race | ChainRace,
    planner: ReadyPlanner,
    twin: ActionOptimizer | None,
    frames: tuple[Frames, Frames],
    budget_ms: float | None,
    seed: int,
) -> PlanResult:
    return plan(
        twin or planner.optimizer,
        race.world_model if planner.world_model is None else planner.world_model,
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
    # The first use of the world model and of torch.optim is slow; nobody pays for it.
    shared = planning_problem(race.world_model, start, goal, make_cost=race.make_cost)
    if shared.cost is not None:
        shared.cost(problems.actions[:, None])
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).zero_grad()
    cold = {}
    for each in planners:
        limits = [most_generous(budgets), *budgets]
        first_plan, *_ = (
            _plan(race, each, None, (start[[i]], goal[[i]]), limit, seed=i)
            for i, limit in enumerate(limits)
        )
        first_plan_ms = 1e3 * first_plan.wall_time_s["total"]
        cold[each.name] = {"build_ms": each.build_ms, "first_plan_ms": first_plan_ms}
    return cold
