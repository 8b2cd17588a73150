"""Gradient descent against closed forms: the incumbent must be as strong as it claims to be."""

import numpy as np
import pytest
import torch
from builders.planners import SPEC, free_spec

from vj2_ddim_benchmark.planners.gradient_descent import (
    STARTS,
    GradientDescent,
    GradientDescentOptimizer,
    centre_press,
    descend,
    starts,
)
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.interface import PlanningProblem

FREE = free_spec(4, (-10.0, -10.0), (10.0, 10.0))
BOUNDS = torch.tensor(-10.0), torch.tensor(10.0)


class Quadratic:
    """Squared distance to one target `[L, A]` a problem, in numpy and in torch."""

    def __init__(self, targets):
        self.targets = np.asarray(targets, float)
        self.asked = []

    def __call__(self, candidates):
        self.asked.append(candidates.copy())
        return ((candidates - self.targets[:, None]) ** 2).sum(axis=(2, 3))

    def torch_cost(self, actions):
        target = torch.as_tensor(self.targets, dtype=actions.dtype)[:, None]
        return (actions - target).square().sum(dim=(2, 3))


def problem(cost, **settings):
    return PlanningProblem(cost=cost, batch_size=len(cost.targets), **settings)


def optimizer(spec=FREE, **settings):
    how = GradientDescent(**{"lr": 0.1, **settings})
    return GradientDescentOptimizer(spec, how, lambda p: p.cost.torch_cost)


def iterates_of(cost, start, **settings):
    iterates = []
    descend(cost.torch_cost, start, BOUNDS, **settings, watch=iterates.append)
    return iterates


def targets(num, spec=FREE, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 0.9, (num, spec.length, spec.num_channels))


@pytest.mark.parametrize("lr", [0.01, 0.2, 0.7])
def test_sgd_follows_the_closed_form(lr):
    cost, start = Quadratic(targets(2)), torch.randn(2, 3, 4, 2, dtype=torch.float64)
    iterates = iterates_of(cost, start, method="sgd", lr=lr, num_iterations=7)
    optimum = torch.as_tensor(cost.targets)[:, None]
    assert len(iterates) == 8
    for k, iterate in enumerate(iterates):
        expected = optimum + (1 - 2 * lr) ** k * (start - optimum)
        torch.testing.assert_close(iterate, expected, rtol=1e-12, atol=1e-12)


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate():
    cost, start = Quadratic(targets(1)), torch.zeros(1, 1, 4, 2, dtype=torch.float64)
    iterates = iterates_of(cost, start, method="adam", lr=0.03, num_iterations=1)
    torch.testing.assert_close(iterates[1], torch.full_like(start, 0.03), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("method", "lr"), [("sgd", 0.3), ("adam", 0.1)])
def test_the_optimum_of_a_quadratic_is_reached(method, lr):
    cost = Quadratic(targets(3))
    how = {"method": method, "lr": lr, "num_iterations": 400, "start": "zeros"}
    result = optimizer(**how).optimize(problem(cost))
    np.testing.assert_allclose(result.actions, cost.targets, atol=1e-4)


def test_history_is_the_lowest_cost_so_far_and_overshooting_is_not_returned():
    cost = Quadratic(targets(1))
    # (1 - 2 * 1.2)^2 > 1: every step is worse than the one before
    result = optimizer(lr=1.2, num_iterations=3, start="zeros").optimize(problem(cost))
    np.testing.assert_array_equal(result.actions, np.zeros((1, 4, 2)))
    np.testing.assert_allclose(result.history, np.full((4, 1), (cost.targets**2).sum()), rtol=1e-6)


def test_evaluations_are_counted():
    cost = Quadratic(targets(3, SPEC))
    result = optimizer(SPEC, num_iterations=6, num_restarts=5).optimize(problem(cost))
    descending, judging = 3 * 5 * (6 + 1), 3 * 5 * 2
    assert result.num_cost_evaluations == descending + judging
    assert sum(asked[..., 0, 0].size for asked in cost.asked) == judging
    assert result.num_denoiser_evaluations == 0
    assert result.history.shape == (7, 3)


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("start", STARTS)
def test_the_cost_is_that_of_the_returned_actions(start, project):
    cost = Quadratic(targets(2, SPEC))
    how = {"lr": 0.2, "start": start, "num_restarts": 3, "project": project}
    result = optimizer(SPEC, **how).optimize(problem(cost))
    np.testing.assert_allclose(result.cost, cost(result.actions[:, None])[:, 0])
    assert gestures.is_valid(result.actions, SPEC).all() == project
    raw = result.unprojected_actions
    np.testing.assert_allclose(result.history[-1], cost(raw[:, None])[:, 0], rtol=1e-5)
    if not project:
        np.testing.assert_array_equal(result.projection_distance, 0.0)
        np.testing.assert_array_equal(result.actions, raw)


def test_the_plan_is_never_worse_than_a_valid_warm_start():
    cost = Quadratic(targets(2, SPEC))
    warm = random_policy(2, np.random.default_rng(5))
    for lr in (1e-6, 0.1, 100.0):
        result = optimizer(SPEC, lr=lr).optimize(problem(cost, init_action=warm))
        assert (result.cost <= cost(warm[:, None])[:, 0]).all()
    still = optimizer(SPEC, num_iterations=0).optimize(problem(cost, init_action=warm))
    np.testing.assert_array_equal(still.actions, warm)


def test_iterates_stay_in_bounds():
    cost = Quadratic(np.full((1, 250, 3), 50.0))
    iterates = optimizer(SPEC, lr=10.0, num_iterations=3, num_restarts=2).iterates(problem(cost))
    assert iterates.shape == (4, 1, 2, 250, 3)
    assert ((iterates >= 0) & (iterates <= 1)).all()
    assert (iterates[-1] == 1).all()


def test_a_deadline_returns_the_best_so_far():
    cost = Quadratic(targets(1))
    late = optimizer(num_iterations=10**9).optimize(problem(cost, deadline_s=0.05))
    assert late.stopped_because == "deadline"
    assert late.cost[0] <= (cost.targets**2).sum()
    at_once = optimizer(num_iterations=5, start="zeros").optimize(problem(cost, deadline_s=0.0))
    np.testing.assert_array_equal(at_once.actions, 0.0)
    assert len(at_once.history) == 1


def test_nan_is_never_the_best():
    def torch_cost(actions):
        return Quadratic(targets(1)).torch_cost(actions) * torch.where(
            actions.abs().amax(dim=(2, 3)) > 0, torch.nan, 1.0
        )

    start = torch.zeros(1, 1, 4, 2)
    found = descend(torch_cost, start, BOUNDS, method="sgd", lr=0.1, num_iterations=3)
    torch.testing.assert_close(found.best, start)
    assert torch.isfinite(found.best_cost).all()


def test_starts():
    rng = np.random.default_rng(0)
    for kind in STARTS:
        drawn = starts(kind, 4, SPEC, rng)
        assert drawn.shape == (4, 250, 3)
        assert gestures.is_valid(drawn[1:], SPEC).all()
    assert not starts("zeros", 1, SPEC, rng).any()
    centre = centre_press(SPEC)
    assert gestures.is_valid(centre, SPEC)
    np.testing.assert_array_equal(np.unique(centre[centre[:, 2] > 0], axis=0), [[0.5, 0.5, 1.0]])
    np.testing.assert_array_equal(centre_press(FREE), np.zeros((4, 2)))
