"""Action specs, costs with a known optimum, and every planner of the benchmark made small."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from builders.amortised import SPEC as SMALL_SPEC
from builders.amortised import make_context, make_model, taps
from vj2_ddim_benchmark.amortised.base import Sampling
from vj2_ddim_benchmark.planners.amortised import AmortisedOptimizer
from vj2_ddim_benchmark.planners.cross_entropy import (
    CEM,
    ICEM,
    CandidateCEM,
    CandidateCEMSettings,
    GestureCEM,
)
from vj2_ddim_benchmark.planners.ddim_started import StartedOptimizer, WarmStarted
from vj2_ddim_benchmark.planners.gradient_descent import GradientDescent, GradientDescentOptimizer
from vj2_ddim_benchmark.planners.population import (
    MPPI,
    PopulationOptimizer,
    PredictiveSampling,
    RandomGestures,
    RandomGesturesOptimizer,
)
from vj2_ddim_benchmark.planners.prism import PrismOptimizer
from vj2_ddim_benchmark.planners.retrieval import Memory, RetrievalOptimizer
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

SPEC = ActionSpec(max_press_steps=200, path_knots=3)  # what the touch screen's gestures need
LATENTS = (4, 3)
POPULATIONS = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "predictive-sampling": PredictiveSampling,
    "gesture-cem": GestureCEM,
}


def free_spec(length=4, low=(-10.0, 0.0), high=(10.0, 4.0)):
    """Two channels that are no touch, every value within the bounds valid."""
    return ActionSpec(
        action_block=length,
        channels=("x", "y"),
        action_low=low,
        action_high=high,
        press_channel=None,
        representation="raw",
    )


def goals(num, seed=0):
    """Gestures to imitate, `[num, 1, 250, 3]`: the cost of problem b is the distance to goal b."""
    return random_policy(num, np.random.default_rng(seed))[:, None]


class Watching:
    """A cost that remembers the candidates it was asked about, with its torch side counted."""

    def __init__(self, cost):
        self.cost, self.asked, self.torch_rows = cost, [], 0

    def __call__(self, candidates):
        self.asked.append(candidates.copy())
        return self.cost(candidates)

    def torch_cost(self, actions):
        self.torch_rows += actions.shape[0] * actions.shape[1]
        target = torch.as_tensor(np.asarray(self.cost.target), dtype=actions.dtype)
        return (actions - target).square().mean(dim=(2, 3))

    @property
    def all(self):
        """`[B, K, L, A]`."""
        return np.concatenate(self.asked, axis=1)


def population(name, **settings):
    how = POPULATIONS[name](**{"num_samples": 12, "num_iterations": 4, **settings})
    return PopulationOptimizer(SPEC, how)


def sampler(spec=SPEC, **settings):
    model = GaussianModel(spec, ORIGINAL_SCHEDULE, std=0.5)
    return DDIMOptimizer(model, **{"num_candidates": 8, "num_inference_steps": 3, **settings})


def descent(spec=SPEC, **settings):
    how = GradientDescent(**{"method": "adam", "lr": 0.05, "num_iterations": 5, **settings})
    return GradientDescentOptimizer(spec, how, lambda problem: problem.cost.torch_cost)


def started(how, spec=SPEC, first=None, **settings):
    first = first or sampler(spec)
    if how == "cem":
        return StartedOptimizer(first, CandidateCEM(spec, CandidateCEMSettings(**settings)))
    return StartedOptimizer(first, WarmStarted(descent(spec, **settings)))


class Known:
    """Transitions in memory."""

    def __init__(self, num=60, seed=0):
        rng = np.random.default_rng(seed)
        self.state, self.goal = rng.normal(size=(2, num, *LATENTS)).astype(np.float32)
        self.actions, self.chunks = random_policy(num, rng), []

    def __len__(self):
        return len(self.actions)

    def gather(self, indices):
        self.chunks.append(len(indices))
        return self.state[indices], self.goal[indices], self.actions[indices]


def amortised(kind, **settings):
    return AmortisedOptimizer(SMALL_SPEC, make_model(kind), Sampling(**settings))


def prism(**settings):
    how = GestureCEM(**{"num_samples": 12, "num_iterations": 4, **settings})
    return PrismOptimizer(SMALL_SPEC, make_model("gaussian"), how)


def known_context(num):
    state, goal = np.random.default_rng(9).normal(size=(2, num, *LATENTS)).astype(np.float32)
    return {"state": state, "goal": goal}


def small_goals(num, seed=0):
    return taps(np.random.default_rng(seed).uniform(0.1, 0.9, (num, 2)))[:, None]


@dataclass(frozen=True)
class Case:
    """A planner, and what it promises."""

    make: Callable  # takes `seed` where it is `seeded`
    spec: ActionSpec = SPEC
    goals: Callable = goals  # B gestures to imitate
    context: Callable = lambda num: {}  # of B problems
    seeded: bool = True  # whether it draws random numbers
    atol: float = 0.0  # how far a plan may depend on its batch
    keeps_deadline: bool = True  # whether a deadline that has passed is noticed
    refuses: bool = True  # whether frozen actions and constraints are refused
    needs_cost: bool = True  # whether a problem without a cost is refused


ON_LATENTS = {"context": known_context, "needs_cost": False}
ON_SMALL = {
    "spec": SMALL_SPEC, "goals": small_goals, "context": make_context, "needs_cost": False,
}  # fmt: skip
CASES = {
    "ddim": Case(sampler, refuses=False, needs_cost=False),
    **{name: Case(lambda name=name, **settings: population(name, **settings))
       for name in POPULATIONS},
    "gradient-descent-sgd": Case(
        lambda **s: descent(method="sgd", lr=20.0, start="gestures", num_restarts=3, **s), atol=1e-6
    ),
    "gradient-descent-adam": Case(
        lambda **s: descent(start="gestures", num_restarts=3, **s), atol=1e-6
    ),
    "random-gestures": Case(
        lambda **s: RandomGesturesOptimizer(SPEC, RandomGestures(**s)), keeps_deadline=False
    ),
    "ddim-cem": Case(
        lambda seed=0: started("cem", first=sampler(seed=seed), seed=seed), atol=1e-6
    ),
    "ddim-adam": Case(lambda seed=0: started("adam", first=sampler(seed=seed)), atol=1e-6),
    "retrieval": Case(
        lambda: RetrievalOptimizer(SPEC, Memory.of(Known())), seeded=False, **ON_LATENTS
    ),
    "regression": Case(lambda: amortised("regression"), seeded=False, **ON_SMALL),
    "gaussian-prior": Case(
        lambda **s: amortised("gaussian", num_candidates=64, **s), **ON_SMALL
    ),
    **{kind: Case(lambda kind=kind, **s: amortised(kind, num_candidates=64, **s), **ON_SMALL)
       for kind in ("inverse-dynamics", "mixture", "mip", "flow")},
    "prism": Case(prism, **{**ON_SMALL, "needs_cost": True}),
}  # fmt: skip


def quadratic(case, num, seed=0):
    """A watched cost of `num` problems whose optimum is a valid gesture."""
    return Watching(QuadraticCost(case.goals(num, seed)))
