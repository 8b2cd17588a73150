"""The planner's objective: the distance of what is predicted from the goal."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.world_model import TOY, random_model

from vj2_ddim_benchmark.world_model.model import LatentCost
from vj2_ddim_plugin.errors import ActionError, ContextError


def tiny_model(cost_kind="mse"):
    return random_model(replace(TOY, token_dim=5, width=8, cost_kind=cost_kind))


@pytest.fixture
def problem():
    rng = np.random.default_rng(1)
    state, goal = rng.normal(size=(2, 3, 4, 5))
    return state, goal, rng.random((3, 7, 20, 3)).astype(np.float32)


@pytest.mark.parametrize("cost_kind", ["mse", "l1"])
def test_cost_is_the_distance_of_each_prediction_alone(problem, cost_kind):
    state, goal, candidates = problem
    model = tiny_model(cost_kind)
    cost = LatentCost(model, state, goal, rows_per_chunk=4)(candidates)
    assert cost.shape == (3, 7)
    for row, column in np.ndindex(3, 7):
        with torch.no_grad():
            z = torch.tensor(state[row], dtype=torch.float32)[None, None]
            predicted = model.predictor(z, torch.tensor(candidates[row, column])[None, None])
        error = predicted[0, 0].double().numpy() - goal[row]
        expected = np.mean(error**2) if cost_kind == "mse" else np.mean(np.abs(error))
        assert cost[row, column] == pytest.approx(expected, rel=1e-4)


def test_plans_of_two_blocks_are_rolled_out(problem):
    state, goal, candidates = problem
    model = tiny_model()
    first, second = candidates[:, :1], candidates[:, 1:2]
    cost = LatentCost(model, state, goal)(np.concatenate([first, second], axis=2))
    with torch.no_grad():
        z = torch.tensor(state, dtype=torch.float32)[:, None]
        z = model.predictor(model.predictor(z, torch.tensor(first)), torch.tensor(second))
    expected = ((z[:, 0].numpy() - goal) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(cost[:, 0], expected, rtol=1e-4)


def test_torch_cost_agrees_and_has_gradients_and_other_shapes_are_refused(problem):
    state, goal, candidates = problem
    cost = LatentCost(tiny_model(), state, goal)
    actions = torch.tensor(candidates, requires_grad=True)
    values = cost.torch_cost(cost.state, cost.goal, actions)
    np.testing.assert_allclose(values.detach().numpy(), cost(candidates), rtol=1e-5)
    values.sum().backward()
    assert (actions.grad.abs().amax(dim=(0, 1, 2)) > 0).all()
    with pytest.raises(ContextError, match="state and goal"):
        LatentCost(tiny_model(), state, goal[:2])
    with pytest.raises(ContextError, match="candidates"):
        cost(candidates[:2])
    with pytest.raises(ActionError, match="multiple of 20"):
        cost(candidates[:, :, :19])


def test_the_goal_that_is_predicted_costs_nothing(problem):
    state, _, candidates = problem
    model = tiny_model()
    with torch.no_grad():
        start = torch.tensor(state, dtype=torch.float32)
        goal = model.rollout(start, torch.tensor(candidates[:, 2])).numpy()
    cost = LatentCost(model, state, goal)(candidates)
    assert (cost.argmin(axis=1) == 2).all()
    np.testing.assert_allclose(cost[:, 2], 0, atol=1e-9)
