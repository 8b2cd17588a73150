"""MPPI: its weights against their closed form, its step by hand, its optimum where it is known."""

import numpy as np
import pytest

from vj2_ddim_benchmark.planners.mppi import MPPIOptimizer, path_integral_weights
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost

FREE = ActionSpec(
    action_block=4,
    channels=("x", "y"),
    action_low=(-10.0, 0.0),
    action_high=(10.0, 4.0),
    press_channel=None,
    representation="raw",
)


def test_weights_are_a_softmax_of_the_negative_cost():
    """Costs t ln 1, t ln 2, t ln 4 above any number weigh as 4 : 2 : 1."""
    temperature = 0.3
    cost = 7.0 + temperature * np.log([[1.0, 2.0, 4.0], [4.0, 1.0, 2.0]])
    expected = np.array([[4.0, 2.0, 1.0], [1.0, 4.0, 2.0]]) / 7.0
    np.testing.assert_allclose(path_integral_weights(cost, temperature), expected)


def test_weights_survive_huge_and_infinite_costs():
    cost = np.array([[1e9, 1e9 + 1.0, np.inf], [-1e300, np.inf, 0.0]])
    weights = path_integral_weights(cost, 1.0)
    e = np.exp(-1.0)
    np.testing.assert_allclose(weights, [[1 / (1 + e), e / (1 + e), 0.0], [1.0, 0.0, 0.0]])


def test_the_temperature_goes_from_the_best_to_the_mean():
    cost = np.array([[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(path_integral_weights(cost, 1e-3), [[1.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(path_integral_weights(cost, 1e9), np.full((1, 3), 1 / 3))


def test_a_step_by_hand():
    proposal = MPPIOptimizer(FREE, temperature=2.0).proposal(np.zeros((2, 1, 1)))
    parameters = np.array([[0.0, 3.0, 6.0], [1.0, 2.0, 3.0]]).reshape(2, 3, 1, 1)
    proposal.tell(parameters, np.array([[0.0, 2 * np.log(2.0), np.inf], [np.inf] * 3]))
    # weights 2/3, 1/3, 0; and nothing is learnt where nothing is known
    np.testing.assert_allclose(proposal.mean[:, 0, 0], [1.0, 0.0])


def test_the_mean_is_the_first_of_each_population_and_the_others_spread_around_it():
    planner = MPPIOptimizer(FREE, num_samples=5000, noise_std=0.2)
    mean = np.array([0.5, -0.25]).reshape(2, 1, 1) * np.ones((2, 4, 2))
    drawn = planner.proposal(mean).ask(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(drawn[:, 0], mean)
    noise = drawn - mean[:, None]
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-12)  # the same for all problems
    np.testing.assert_allclose(noise[0].std(axis=0), 0.2, rtol=0.05)
    np.testing.assert_allclose(noise[0].mean(axis=0), 0.0, atol=0.015)


def test_the_optimum_of_a_quadratic_is_reached():
    """The best sample is off by less than the noise: 0.02 of half ranges of 10 and 2, so 0.2.

    The gap shrinks by `1 / (1 + noise_std^2 * curvature / temperature)` a round: by 1 / 1.2 for the
    flatter channel (curvature 1), which leaves nothing of it after 120 rounds.
    """
    wanted = np.random.default_rng(0).uniform([-5, 1], [5, 3], (3, 1, 4, 2))
    planner = MPPIOptimizer(
        FREE, num_samples=200, num_iterations=120, noise_std=0.02, temperature=0.002
    )
    cost = QuadraticCost(wanted)
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=3))
    np.testing.assert_allclose(result.actions, wanted[:, 0], atol=0.2)
    assert (result.cost < 1e-3 * result.history[0]).all()


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"noise_std": 0.0}, {"temperature": float("nan")}, {"num_knots": 1}],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MPPIOptimizer(FREE, **wrong)
