"""CEM against hand-computed refits, and against optima that are known."""

import numpy as np
import pytest

from vj2_ddim_benchmark.planners.cem import CEMOptimizer, Gaussian, GaussianSettings, elites_of
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


def test_elites_are_the_lowest_in_order_and_the_earlier_of_equals():
    parameters = np.arange(10.0).reshape(2, 5, 1, 1)
    cost = np.array([[3.0, 1.0, np.inf, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    elites, elite_cost = elites_of(parameters, cost, 3)
    np.testing.assert_array_equal(elites[..., 0, 0], [[4, 1, 3], [9, 8, 7]])
    np.testing.assert_array_equal(elite_cost, [[0, 1, 1], [1, 2, 3]])


def test_a_refit_by_hand():
    """Elites 1 and 5: mean 3, std 2. A quarter of the old mean 7 and of the old std 1 is kept."""
    gaussian = Gaussian(np.full((1, 1, 1), 7.0), GaussianSettings(1.0, 2, 0.25, 0.01))
    gaussian.refit(np.array([1.0, 5.0]).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(gaussian.mean, 0.25 * 7 + 0.75 * 3)
    np.testing.assert_allclose(gaussian.std, 0.25 * 1 + 0.75 * 2)
    noise = np.array([[[-2.0]], [[0.0]]])
    np.testing.assert_allclose(gaussian.sample(noise)[0, :, 0, 0], [4.0 - 2 * 1.75, 4.0])


def test_the_std_never_falls_below_its_floor():
    gaussian = Gaussian(np.zeros((1, 1, 1)), GaussianSettings(1.0, 2, 0.0, 0.3))
    gaussian.refit(np.full((1, 2, 1, 1), 4.0))
    np.testing.assert_allclose((gaussian.mean, gaussian.std), [[[[4.0]]], [[[0.3]]]])


def test_each_problem_is_refitted_to_its_own_elites():
    elites = np.array([[[1.0], [3.0]], [[10.0], [20.0]]])[..., None]
    gaussian = Gaussian(np.zeros((2, 1, 1)), GaussianSettings(1.0, 2, 0.0, 0.0))
    gaussian.refit(elites)
    np.testing.assert_allclose(gaussian.mean[:, 0, 0], [2.0, 15.0])
    np.testing.assert_allclose(gaussian.std[:, 0, 0], [1.0, 5.0])


def test_the_optimum_of_a_quadratic_is_reached():
    """With 8 numbers and no floor, std shrinks geometrically; 40 rounds are far past 1e-3."""
    wanted = np.random.default_rng(0).uniform([-9, 0.5], [9, 3.5], (3, 1, 4, 2))
    planner = CEMOptimizer(
        FREE, num_samples=100, num_elites=20, num_iterations=40, std=1.0, min_std=0.0
    )
    result = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=3))
    np.testing.assert_allclose(result.actions, wanted[:, 0], atol=1e-3)


def test_an_optimum_outside_the_bounds_is_met_at_the_bound():
    wanted = np.tile([50.0, -3.0], (4, 1))
    planner = CEMOptimizer(
        FREE, num_samples=100, num_elites=20, num_iterations=40, std=1.0, min_std=0.0
    )
    result = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=1))
    np.testing.assert_allclose(result.actions[0], np.tile([10.0, 0.0], (4, 1)), atol=0.02)


def test_knots_are_fewer_numbers_for_smoother_actions():
    """Between 2 knots every sequence is a line: so is the plan, whatever is wanted."""
    wanted = np.array([0.0, 8.0, -8.0, 3.0])[:, None] * [1.0, 0.1] + [0.0, 2.0]
    planner = CEMOptimizer(
        FREE, num_knots=2, num_samples=100, num_elites=20, num_iterations=40, min_std=0.0
    )
    (plan,) = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=1)).actions
    line = np.stack([np.polyval(np.polyfit(range(4), wanted[:, c], 1), range(4)) for c in (0, 1)])
    np.testing.assert_allclose(plan, line.T, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"num_elites": 0}, "num_elites"),
        ({"num_elites": 33}, "num_elites"),
        ({"std": 0.0}, "std"),
        ({"std": float("nan")}, "std"),
        ({"smoothing": 1.0}, "smoothing"),
        ({"min_std": -0.1}, "min_std"),
        ({"num_knots": 1}, "num_knots"),
        ({"num_knots": 5}, "num_knots"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, named):
    with pytest.raises(ConfigError, match=named):
        CEMOptimizer(FREE, **wrong)
