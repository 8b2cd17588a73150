"""The two tasks, a goal of one gesture and a chain of gestures, under one rule for all planners.

A planner sees two pictures, never the state. On a chain the host stops when the latents of screen
and goal are close, or its gestures run out; only then is the true state asked for.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.race.records import ChainRecord, Record, to_stroke
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.problems import (
    Chains,
    Goals,
    Problems,
    TrueCost,
    one_gesture_problems,
)
from vj2_ddim_benchmark.world_model.model import LatentCost, latent_distance
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    FloatArray,
    PlanningProblem,
    PlanResult,
)

NOISE_STREAM = 1  # apart from the planner's own randomness, which has the same seed
SPARE_GESTURES = 2  # beyond the chain's length
STOP_PAIRS = 600  # pairs of screens that one gesture tells apart
STOP_SHARE = 0.5  # of the smallest distance among them

Budgets = Sequence[float | None]
Cold = Mapping[str, Mapping[str, float]]
"""By planner: `build_ms`, and `first_plan_ms` of a fresh optimizer."""

MakeCost = Callable[[Any, FloatArray, FloatArray], CostFn]
"""The cost of B problems from a world model and the latents of their states and goals."""

P = TypeVar("P", Problems, Chains)


def planning_problem(
    world_model: Any, start_frames: Images, goal_frames: Images, *,  # noqa: ANN401
    with_cost: bool = True, init_action: FloatArray | None = None,
    deadline_s: float | None = None, seed: int | None = None, make_cost: MakeCost = LatentCost,
) -> PlanningProblem:  # fmt: skip
    """Encode B pairs of pictures, uint8 `[B, H, W, 3]`, into the problem an optimizer is given."""
    if start_frames.shape != goal_frames.shape or start_frames.ndim != 4:
        shapes = f"{list(start_frames.shape)} and {list(goal_frames.shape)}"
        raise ContextError(f"start and goal frames must both be [B, H, W, 3]; found {shapes}")
    begun = time.perf_counter()
    state, goal = np.split(world_model.encode(np.concatenate([start_frames, goal_frames])), 2)
    cost = make_cost(world_model, state, goal) if with_cost else None
    if deadline_s is not None:
        deadline_s = max(0.0, deadline_s - (time.perf_counter() - begun))
    context = {"state": state, "goal": goal}
    return PlanningProblem(context, cost, init_action, deadline_s, seed)


def plan(
    optimizer: ActionOptimizer, world_model: Any,  # noqa: ANN401
    start_frames: Images, goal_frames: Images, **asked: Any,  # noqa: ANN401
) -> PlanResult:  # fmt: skip
    """Ask any optimizer for a plan; `asked` are the keywords of `planning_problem`."""
    begun = time.perf_counter()
    problem = planning_problem(world_model, start_frames, goal_frames, **asked)
    encoded = time.perf_counter()
    result = optimizer.optimize(problem)
    total = time.perf_counter() - begun
    phases = {**result.wall_time_s, "encode": encoded - begun, "total": total}
    return replace(result, wall_time_s=phases)


@dataclass(frozen=True)
class ReadyPlanner:
    """What a description was built into."""

    name: str
    optimizer: ActionOptimizer
    with_cost: bool = True  # whether it is given the cost
    unprojected: ActionOptimizer | None = None  # a twin that does not project its plans
    build_ms: float = 0.0
    world_model: Any = None  # what it encodes with and plans through; None for the race's
    true_dynamics: bool = False  # whether it plans through the screen itself instead


def make_ready(
    planner: Planner, assets: PlannerAssets, settings: TunedSettings,
    world_models: Mapping[Any, Any], make_cost: MakeCost,
) -> ReadyPlanner:  # fmt: skip
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
    parts = optimizer, planner.with_cost, twin, build_ms, own, planner.true_dynamics
    return ReadyPlanner(planner.name, *parts)


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
class Contest(Generic[P]):
    """Problems, the world model that all plan through (and the host looks through), and a seed."""

    world_model: Any
    problems: P
    seed: int = 0
    make_cost: MakeCost = LatentCost

    def ask(
        self, planner: ReadyPlanner, goals: Goals, budget_ms: float | None, seed: int,
        twin: ActionOptimizer | None = None,
    ) -> PlanResult:  # fmt: skip
        """One plan for one goal, of which it sees the pictures, of a planner or of its twin."""
        return plan(
            twin or planner.optimizer,
            self.world_model if planner.world_model is None else planner.world_model,
            *pictures_of(goals),
            with_cost=planner.with_cost,
            deadline_s=None if budget_ms is None else budget_ms / 1e3,
            seed=seed,
            make_cost=(lambda *_: TrueCost(goals)) if planner.true_dynamics else self.make_cost,
        )

    def warm_up(self, planners: Sequence[ReadyPlanner], budgets: Budgets) -> Cold:
        """A first plan of each, then one under each budget; the times of the first, by planner."""
        num, size = 1 + len(budgets), self.problems.start.size
        problems = one_gesture_problems(num, split="train", seed=self.seed, size=size)
        start, goal = problems.start.render(), problems.goal.render()
        # The first use of the world model and of torch.optim is slow; nobody pays for it.
        shared = planning_problem(self.world_model, start, goal, make_cost=self.make_cost)
        if shared.cost is not None:
            shared.cost(problems.actions[:, None])
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).zero_grad()
        cold = {}
        for each in planners:
            limits = [most_generous(budgets), *budgets]
            plans = [self.ask(each, problems.select(i), at, i) for i, at in enumerate(limits)]
            first_plan_ms = 1e3 * plans[0].wall_time_s["total"]
            cold[each.name] = {"build_ms": each.build_ms, "first_plan_ms": first_plan_ms}
        return cold


class Race(Contest[Problems]):
    """One-gesture problems."""

    def plan(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None,
        twin: ActionOptimizer | None = None,
    ) -> PlanResult:  # fmt: skip
        """One plan of a planner or its twin; without a deadline the same every time."""
        seed = problem_seed(self.seed, problem)
        return self.ask(planner, self.problems.select(problem), budget_ms, seed, twin)

    def attempt(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None
    ) -> Record:
        """One plan, timed, then judged."""
        goals = self.problems.select(problem)
        start, goal = goals.start, goals.goal
        result = self.plan(planner, problem, budget_ms)
        raw: FloatArray | None = getattr(result, "unprojected_actions", None)
        if raw is None and planner.unprojected is not None:
            raw = self.plan(planner, problem, budget_ms, planner.unprojected).actions
        before = None if raw is None else bool(start.execute(raw).matches(goal.state)[0])
        seen = planning_problem(self.world_model, *pictures_of(goals), with_cost=False).context
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


@dataclass(frozen=True)
class ChainRace(Contest[Chains]):
    """Chains, and the latent distance between screen and goal to stop at."""

    stop_distance: float = 0.0

    def attempt(
        self, planner: ReadyPlanner, problem: int, budget_ms: float | None = None
    ) -> ChainRecord:
        """Go through one chain, each plan timed and under the budget, then judge it."""
        screen, goal = self.problems.start.select(problem), self.problems.goal.select(problem)
        length, wanted = int(self.problems.length[problem]), goal.render()
        results: list[PlanResult] = []
        states: list[list[int]] = []

        def distance() -> float:
            return float(picture_distance(self.world_model, screen.render(), wanted)[0])

        distances = [distance()]
        while distances[-1] > self.stop_distance and len(results) < length + SPARE_GESTURES:
            seed = problem_seed(problem_seed(self.seed, problem), len(results))
            results.append(self.ask(planner, Goals(screen, goal), budget_ms, seed))
            screen = screen.execute(results[-1].actions)
            states.append(screen.state[0].tolist())
            distances.append(distance())
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


def pictures_of(goals: Goals) -> tuple[Images, Images]:
    """The pictures uint8 `[n, H, W, 3]` of screens and of their goals: all that planners see."""
    return goals.start.render(), goals.goal.render()


def problem_seed(seed: int, problem: int) -> int:
    """The seed every planner gets for a problem."""
    return int(np.random.SeedSequence([seed, problem]).generate_state(1)[0])


def most_generous(budgets: Budgets) -> float | None:
    """No deadline if that is among them, or else the longest."""
    longest = [budget for budget in budgets if budget is not None]
    return max(longest) if longest and len(longest) == len(budgets) else None


def picture_distance(world_model: Any, frames: Images, goals: Images) -> FloatArray:  # noqa: ANN401
    """Latent distance of pictures uint8 `[n, H, W, 3]` from others, as `[n]`."""
    state, goal = np.split(world_model.encode(np.concatenate([frames, goals])), 2)
    return distance_of(world_model, state, goal)


def distance_of(world_model: Any, state: FloatArray, goal: FloatArray) -> FloatArray:  # noqa: ANN401
    """Latents `[n, N, D]` from others, as `[n]`."""
    kind = world_model.config.cost_kind
    distance = latent_distance(torch.as_tensor(state), torch.as_tensor(goal), kind)
    return np.asarray(distance.numpy())


def stop_distance_of(world_model: Any, size: int = 64, num_pairs: int = STOP_PAIRS) -> float:  # noqa: ANN401
    """Half the least latent distance one gesture makes: nearer pictures are taken for the same."""
    pairs = one_gesture_problems(num_pairs, split="train", seed=0, size=size)
    apart = picture_distance(world_model, pairs.start.render(), pairs.goal.render())
    return STOP_SHARE * float(apart.min())
