"""stable-worldmodel's `WorldModelPolicy` with our solver: what its policy tests ask of a solver."""

import numpy as np
import pytest
import torch
from builders.hosts import QuadraticModel, make_env, make_info, plan_config
from stable_worldmodel.policy import WorldModelPolicy

HORIZON, BLOCK = 5, 2


class Doubling:
    """The host's scaler protocol: the environment's actions are half the normalized ones."""

    def transform(self, values):
        return values * 2

    def inverse_transform(self, values):
        return values / 2


@pytest.fixture
def make_policy(make_solver):
    """A policy of `num_envs` environments, and its solver, whose calls are noted."""

    def make(num_envs=2, process=None, action_block=BLOCK, **settings):
        horizon = 10 // action_block
        solver = make_solver(QuadraticModel(), horizon, action_block, num_envs)
        config = plan_config(horizon, action_block, **{"receding_horizon": 2, **settings})
        policy = WorldModelPolicy(solver, config, process=process)
        policy.set_env(make_env(num_envs))
        solver.asked = []
        solve = solver.solve

        def noting(info_dict, init_action=None):
            outputs = solve(info_dict, init_action)
            solver.asked.append((info_dict, init_action, outputs["actions"]))
            return outputs

        solver.solve = noting
        return policy, solver

    return make


def info_of(num_envs, action_block=BLOCK, **extra):
    """As the World gives it: numpy, before the policy's transforms."""
    info = make_info(num_envs, 10 // action_block, 2 * action_block)
    info = {key: value.numpy() if torch.is_tensor(value) else value for key, value in info.items()}
    return {**info, **extra}


def test_an_action_for_every_environment(make_policy):
    """It configures the solver."""
    policy, solver = make_policy(num_envs=3)
    assert (solver.n_envs, solver.horizon, solver.action_dim) == (3, HORIZON, 2 * BLOCK)
    assert len(policy._action_buffer) == 3
    action = policy.get_action(info_of(3))
    assert action.shape == (3, 2)
    assert action.dtype == np.float32
    plan = solver.asked[0][2]
    np.testing.assert_allclose(action, plan[:, 0, :2])


def test_a_plan_is_carried_out_before_the_next(make_policy):
    """Two blocks of two actions: four environment steps from each plan, in order."""
    policy, solver = make_policy()
    actions = np.stack([policy.get_action(info_of(2)) for _ in range(5)], axis=1)
    assert len(solver.asked) == 2
    first, second = (plan.reshape(2, 10, 2) for _, _, plan in solver.asked)
    np.testing.assert_allclose(actions[:, :4], first[:, :4])
    np.testing.assert_allclose(actions[:, 4], second[:, 0])


def test_actions_leave_in_the_environments_units(make_policy):
    policy, solver = make_policy(process={"action": Doubling()})
    np.testing.assert_allclose(policy.get_action(info_of(2)), solver.asked[0][2][:, 0, :2] / 2)


@pytest.mark.parametrize(
    ("settings", "steps", "continued"),
    [
        ({"warm_start": True}, 5, True),
        ({"warm_start": False}, 5, False),
        ({"receding_horizon": HORIZON}, 11, False),  # a plan carried out whole leaves no rest
    ],
)
def test_the_rest_of_a_plan_begins_the_next(make_policy, settings, steps, continued):
    policy, solver = make_policy(**settings)
    for _ in range(steps):
        policy.get_action(info_of(2))
    (_, first, plan), (_, second, _) = solver.asked
    assert first is None
    if continued:
        torch.testing.assert_close(second, plan[:, 2:])
    else:
        assert second is None


def test_only_those_without_a_plan_are_planned_for(make_policy):
    policy, solver = make_policy(num_envs=3)
    policy.get_action(info_of(3))
    policy._action_buffer[1].clear()
    untouched = policy._next_init[[0, 2]].clone()
    policy.get_action(info_of(3))
    info, start, plan = solver.asked[1]
    assert (len(info["pixels"]), len(start), len(plan)) == (1, 1, 1)
    assert [len(each) for each in policy._action_buffer] == [2, 3, 2]
    torch.testing.assert_close(policy._next_init[[0, 2]], untouched)


def test_a_reset_forgets_the_plan(make_policy):
    """`_needs_flush`: that environment is planned for anew, with a warm start of zeros."""
    policy, solver = make_policy()
    policy.get_action(info_of(2))
    policy.get_action(info_of(2, _needs_flush=np.array([True, False])))
    _, start, plan = solver.asked[1]
    assert len(plan) == 1
    torch.testing.assert_close(start, torch.zeros(1, HORIZON - 2, 2 * BLOCK))


def test_the_dead_are_not_planned_for(make_policy):
    policy, solver = make_policy()
    action = policy.get_action(info_of(2, terminated=np.array([True, False])))
    assert len(solver.asked[0][2]) == 1
    assert np.isnan(action[0]).all()
    assert np.isfinite(action[1]).all()


def test_with_a_block_of_one(make_policy):
    policy, solver = make_policy(action_block=1)
    actions = [policy.get_action(info_of(2, action_block=1)) for _ in range(3)]
    assert len(solver.asked) == 2
    np.testing.assert_allclose(actions[1], solver.asked[0][2][:, 1])
