"""Predictive sampling: gestures, then neighbours of the best, which is never lost."""

import numpy as np
import pytest

from vj2_ddim_benchmark.planners.parameter_spaces import GestureParameters
from vj2_ddim_benchmark.planners.predictive_sampling import PredictiveSamplingOptimizer
from vj2_ddim_benchmark.planners.random_gestures import RandomGesturesOptimizer
from vj2_ddim_benchmark.planners.starts import any_gestures
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost

SPEC = ActionSpec()
FREE = ActionSpec(
    action_block=2,
    channels=("x", "y"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    press_channel=None,
    representation="raw",
)


def draw_free(num, rng):
    return rng.uniform(-1, 1, (num, 2, 2)).astype(np.float32)


def test_one_round_is_random_gestures_ranked():
    problem = PlanningProblem(
        cost=QuadraticCost(any_gestures(2, np.random.default_rng(1))[:, None]),
        batch_size=2,
        seed=4,
    )
    spec = ActionSpec(max_press_steps=200, path_knots=3)  # what the touch screen's gestures need
    one = PredictiveSamplingOptimizer(spec, num_samples=20, num_iterations=1).optimize(problem)
    ranked = RandomGesturesOptimizer(spec, num_candidates=20).optimize(problem)
    np.testing.assert_allclose(one.actions, ranked.actions, atol=1e-6)
    np.testing.assert_allclose(one.cost, ranked.cost, atol=1e-6)


def test_neighbours_spread_around_the_best_and_it_is_never_lost():
    planner = PredictiveSamplingOptimizer(
        FREE, num_samples=4000, noise_std=0.3, draw_gestures=draw_free
    )
    proposal = planner.proposal(np.zeros((1, 2, 2)))
    known = np.arange(12.0).reshape(1, 3, 2, 2)
    proposal.tell(known, np.array([[2.0, 1.0, 3.0]]))
    proposal.tell(known + 100.0, np.array([[1.5, 4.0, np.inf]]))  # none is better
    drawn = proposal.ask(np.random.default_rng(0), 2)
    np.testing.assert_allclose(drawn.mean(axis=1), known[:, 1], atol=0.025)  # 5 standard errors
    np.testing.assert_allclose(drawn.std(axis=1), 0.3, rtol=0.06)
    proposal.tell(known + 100.0, np.array([[9.0, 9.0, 0.5]]))
    np.testing.assert_array_equal(proposal.best, known[:, 2] + 100.0)


def test_the_optimum_of_a_quadratic_is_reached():
    """Among 200 neighbours in 4 dimensions, spread 0.03, one improves on any point much more than
    0.03 away."""
    wanted = np.random.default_rng(2).uniform(-0.8, 0.8, (3, 1, 2, 2))
    planner = PredictiveSamplingOptimizer(
        FREE, num_samples=200, num_iterations=60, noise_std=0.03, draw_gestures=draw_free
    )
    result = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=3))
    np.testing.assert_allclose(result.actions, wanted[:, 0], atol=0.03)


def test_touches_are_perturbed_as_gestures():
    """Each neighbour of a gesture is a gesture; the nearest to the wanted six numbers is found.

    Of 40 neighbours in 6 dimensions, spread 0.05, one improves on any point much more than 0.1
    away.
    """
    space = GestureParameters(SPEC)
    wanted = np.array([[-0.6, 0.4, 1.2, -0.6, -0.6, -0.2], [0.3, 0.3, 0.0, 0.0, 0.2, 0.4]])

    def cost(candidates):
        assert SPEC.is_valid(candidates).all()
        return np.square(space.encode(candidates)[..., 0] - wanted[:, None]).sum(axis=-1)

    planner = PredictiveSamplingOptimizer(SPEC, num_samples=40, num_iterations=30, noise_std=0.05)
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=2))
    np.testing.assert_allclose(space.encode(result.actions)[..., 0], wanted, atol=0.1)


@pytest.mark.parametrize("noise_std", [0.0, -1.0, float("nan")])
def test_noise_that_moves_nothing_is_refused(noise_std):
    with pytest.raises(ConfigError, match="noise_std"):
        PredictiveSamplingOptimizer(SPEC, noise_std=noise_std)
