"""Our baselines against the host's solvers of the same name, on the same quadratic cost.

Gradient descent has no randomness and must agree to rounding. The sampling planners draw from
different generators, so what must agree is how fast the cost of their populations falls, on average
over problems. The host's first candidate, its mean, is no sample and not counted.
"""

import numpy as np
import pytest
import torch
from builders.hosts import QuadraticModel, box, make_info, plan_config
from stable_worldmodel.solver import CEMSolver, GradientSolver, ICEMSolver, MPPISolver

from vj2_ddim_benchmark.planners import cross_entropy
from vj2_ddim_benchmark.planners.cross_entropy import CEM, ICEM, coloured_noise
from vj2_ddim_benchmark.planners.gradient_descent import GradientDescent, GradientDescentOptimizer
from vj2_ddim_benchmark.planners.population import MPPI, PopulationOptimizer
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.spec import ActionSpec

HORIZON, CHANNELS, PROBLEMS, REACH = 40, 2, 24, 100.0
SAMPLES, ELITES, ROUNDS = 256, 64, 6
TOLERANCE = 0.1  # of a logarithm
SPEC = ActionSpec(
    action_block=HORIZON,
    channels=("a", "b"),
    action_low=(-REACH, -REACH),
    action_high=(REACH, REACH),
    press_channel=None,
    representation="raw",
)


class SharedModel(QuadraticModel):
    """The host's own solvers give `get_cost` the same dict again; all costs are kept."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def get_cost(self, info, candidates):
        value = self.cost(info["target"], candidates)
        self.asked.append(value.detach())
        return value


def info():
    return make_info(PROBLEMS, HORIZON, CHANNELS, seed=3)


def configured(solver, reach=REACH):
    space = box(PROBLEMS, CHANNELS)
    space.low[:], space.high[:] = -reach, reach
    solver.configure(action_space=space, n_envs=PROBLEMS, config=plan_config(HORIZON, 1))
    return solver


def curve(costs):
    """Mean logarithm of the populations' mean costs, one a round: of `[B, K]` each."""
    return np.array([np.log(np.mean(round_costs, axis=1)).mean() for round_costs in costs])


def their_curve(make, **settings):
    """Of a host's solver: all problems in one batch, each with noise of its own."""
    model = SharedModel()
    settings = {"batch_size": PROBLEMS, "num_samples": SAMPLES, "n_steps": ROUNDS, **settings}
    configured(make(model, seed=0, **settings)).solve(info())
    return curve([costs.numpy()[:, 1:] for costs in model.asked])


def our_curve(kind, **settings):
    """Of our planner: problem by problem with a seed of its own, since a batch shares its noise."""
    target = info()["target"].numpy()
    how = kind(num_samples=SAMPLES, num_iterations=ROUNDS, **settings)
    planner = PopulationOptimizer(SPEC, how)
    asked = []
    for row in range(PROBLEMS):

        def cost(candidates, row=row):
            asked.append(np.square(candidates - target[row]).sum(axis=(-1, -2))[0])
            return asked[-1][None]

        planner.optimize(PlanningProblem(cost=cost, batch_size=1, seed=row))
    by_problem = np.reshape(asked, (PROBLEMS, ROUNDS, SAMPLES))
    return curve(by_problem[..., 1:].swapaxes(0, 1))


@pytest.mark.parametrize(
    ("method", "optimizer", "lr"), [("sgd", torch.optim.SGD, 0.1), ("adam", torch.optim.Adam, 0.02)]
)
def test_gradient_descent(method, optimizer, lr):
    """The same iterates: start at zeros, the same torch optimizer, eight steps."""
    solver = GradientSolver(
        QuadraticModel(), n_steps=8, optimizer_cls=optimizer, optimizer_kwargs={"lr": lr}
    )
    solver.model.get_cost = lambda given, candidates: solver.model.cost(given["target"], candidates)
    theirs = configured(solver).solve(info())
    target = info()["target"]

    def torch_cost_of(problem):
        return lambda candidates: (candidates - target[:, None]).square().sum(dim=(-1, -2))

    how = GradientDescent(lr=lr, method=method, num_iterations=8)
    ours = GradientDescentOptimizer(SPEC, how, torch_cost_of)
    cost = torch_cost_of(None)
    problem = PlanningProblem(
        cost=lambda candidates: cost(torch.from_numpy(candidates)).numpy(), batch_size=PROBLEMS
    )
    plan = ours.optimize(problem)
    np.testing.assert_allclose(plan.actions, theirs["actions"].numpy(), atol=1e-6)
    np.testing.assert_allclose(plan.history[:-1].sum(axis=1), theirs["cost"][0], rtol=1e-5)


def test_cem():
    theirs = their_curve(CEMSolver, topk=ELITES, var_scale=1.0)
    ours = our_curve(CEM, num_elites=ELITES, std=1 / REACH, smoothing=0.0, min_std=0.0)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("noise_beta", [0.0, 1.0])
def test_icem(monkeypatch, noise_beta):
    """The refit and the noise, without what the two do differently on purpose.

    The host scales each series of noise to its own standard deviation, as ours does here. It ranks
    its mean in every round, so that its kept elites are mostly earlier means, ours (as in the
    paper) in the last; so none are kept here.
    """

    def scaled(*args):
        noise = coloured_noise(*args)
        return noise / noise.std(axis=-1, ddof=1, keepdims=True)

    monkeypatch.setattr(cross_entropy, "coloured_noise", scaled)
    theirs = their_curve(ICEMSolver, topk=ELITES, noise_beta=noise_beta, alpha=0.1, n_elite_keep=0)
    ours = our_curve(
        ICEM, num_elites=ELITES, std=1 / REACH, smoothing=0.1,
        noise_beta=noise_beta, decay=1.0, keep_share=0.0,
    )  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_mppi(temperature):
    theirs = their_curve(MPPISolver, topk=None, temperature=temperature, var_scale=0.5)
    ours = our_curve(MPPI, temperature=temperature, noise_std=0.5 / REACH)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
