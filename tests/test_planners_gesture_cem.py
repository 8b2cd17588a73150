"""CEM over gestures, and the spaces that sampling planners search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_benchmark.planners.cem import GaussianSettings
from vj2_ddim_benchmark.planners.gesture_cem import (
    COVARIANCES,
    CorrelatedGaussian,
    GestureCEMOptimizer,
)
from vj2_ddim_benchmark.planners.parameter_spaces import (
    ActionKnots,
    GestureParameters,
    natural_space,
)
from vj2_ddim_benchmark.planners.starts import any_gestures
from vj2_ddim_benchmark.world.scripts import drag
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost

SPEC = ActionSpec()
FREE = ActionSpec(
    action_block=5,
    channels=("x", "y"),
    action_low=(-10.0, 0.0),
    action_high=(10.0, 4.0),
    press_channel=None,
    representation="raw",
)


def test_a_gesture_is_six_numbers():
    """From (0.25, 0.75) to (0.75, 0.5), pressed at step 50, released at 100 of 250."""
    space = GestureParameters(SPEC)
    actions = drag(0.25, 0.75, 0.75, 0.5, 50, 50)
    expected = [-0.5, 0.5, 1.0, -0.5, -0.6, -0.2]  # half screens, half blocks, around the middle
    np.testing.assert_allclose(space.encode(actions)[0, :, 0], expected, atol=1e-6)
    np.testing.assert_allclose(space.decode(np.array(expected)[None, :, None]), actions, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_gestures_come_back_from_their_parameters(seed):
    for spec in (SPEC, ActionSpec(representation="held"), ActionSpec(horizon=2)):
        gestures = SPEC.project(any_gestures(4 * spec.horizon, np.random.default_rng(seed)))
        actions = gestures.reshape(4, spec.length, 3)
        space = GestureParameters(spec)
        parameters = space.encode(actions)
        assert parameters.shape == (4, 6 * spec.horizon, 1) == (4, *space.shape)
        np.testing.assert_allclose(space.clip(parameters), parameters, atol=1e-6)
        np.testing.assert_allclose(space.decode(parameters), actions, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_clipped_parameters_are_valid_gestures(seed):
    """Where displacements lead off the screen, or the press is too long, short or late."""
    for spec in (SPEC, ActionSpec(horizon=2), ActionSpec(path_knots=4)):
        space = GestureParameters(spec)
        wild = 1.5 * np.random.default_rng(seed).standard_normal((6, *space.shape))
        clipped = space.clip(wild)
        actions = space.decode(clipped)
        assert spec.is_valid(actions).all()
        np.testing.assert_allclose(space.clip(clipped), clipped, atol=1e-12)


def test_clipping_by_hand():
    """Off the right edge, for too long and too late; then released before it was pressed."""
    wild = [[0.5, 0.0, 2.0, 0.5, 0.9, 2.0], [0.5, -1.5, 2.0, 0.5, 0.0, -0.3]]
    clipped = GestureParameters(SPEC).clip(np.array(wild)[..., None])[..., 0]
    expected = [[0.5, 0.0, 0.5, 0.5, 1.0 - 75 / 125, 1.0], [0.5, -1.0, 0.0, 0.0, 0.0, 5 / 125]]
    np.testing.assert_allclose(clipped, expected)


def test_knots_are_interpolated_and_fitted_in_the_bounds():
    space = ActionKnots(FREE, 3)
    knots = np.array([[0.0, -1.0], [1.0, 0.0], [-0.5, 1.0]])
    expected = [[0.0, 0.0], [5.0, 1.0], [10.0, 2.0], [2.5, 3.0], [-5.0, 4.0]]
    np.testing.assert_allclose(space.decode(knots), expected, atol=1e-6)
    np.testing.assert_allclose(space.encode(np.array(expected)), knots, atol=1e-6)
    outside = space.encode(np.full((5, 2), 99.0))
    np.testing.assert_allclose(outside, np.ones((3, 2)))


def test_without_knots_every_action_is_a_parameter():
    space = ActionKnots(FREE)
    assert space.shape == (5, 2)
    wild = np.tile([-7.0, 9.0], (5, 1))
    np.testing.assert_allclose(space.decode(space.clip(wild)), np.tile([-10.0, 4.0], (5, 1)))


def test_the_natural_space_of_touches_is_gestures():
    assert isinstance(natural_space(SPEC), GestureParameters)
    assert isinstance(natural_space(FREE), ActionKnots)
    assert isinstance(
        natural_space(ActionSpec(path_knots=None, representation="held")), ActionKnots
    )


class ParameterCost:
    """A quadratic in the parameters of gestures: `sum(weights * (parameters - wanted)^2)`."""

    def __init__(self, wanted, weights=None):
        self.wanted, self.space = np.asarray(wanted), GestureParameters(SPEC)
        self.weights = np.eye(6) if weights is None else weights

    def __call__(self, candidates):
        apart = self.space.encode(candidates)[..., 0] - self.wanted
        return np.einsum("...i,ij,...j->...", apart, self.weights, apart)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("start", ["gestures", "middle"])
def test_the_optimum_of_a_quadratic_is_reached(start, covariance):
    """A floor of 0.01 leaves samples within a few hundredths; times are whole steps of 0.008.

    The optima are well within the first population: CEM closes in faster than it walks.
    """
    wanted = np.array([[-0.3, 0.2, 0.4, -0.3, -0.1, 0.2], [0.3, 0.3, 0.0, 0.0, -0.4, -0.2]])
    planner = GestureCEMOptimizer(
        SPEC,
        num_samples=80,
        num_elites=20,
        num_iterations=20,
        smoothing=0.3,
        start=start,
        covariance=covariance,
    )
    cost = ParameterCost(wanted[:, None])
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=2))
    found = GestureParameters(SPEC).encode(result.actions)[..., 0]
    np.testing.assert_allclose(found, wanted, atol=0.03)


def test_a_tap_is_found_from_its_actions():
    """The cost of the actions themselves: where and when it is touched outweighs how straight."""
    wanted = drag(0.6, 0.3, 0.6, 0.3, 90, 40)[0]
    planner = GestureCEMOptimizer(
        SPEC, num_samples=100, num_elites=20, num_iterations=25, smoothing=0.3
    )
    result = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=1))
    touch = result.actions[0][result.actions[0, :, 2] > 0]
    np.testing.assert_allclose(touch[:, :2].mean(axis=0), [0.6, 0.3], atol=0.03)
    assert np.sum(result.actions[0, :, 2] != wanted[:, 2]) <= 2  # a step at either end
    assert result.cost[0] < 0.01 * result.history[0, 0]


def test_a_full_covariance_is_refitted_as_numpy_says():
    elites = np.random.default_rng(0).normal(size=(2, 9, 3, 1))
    gaussian = CorrelatedGaussian(np.ones((2, 3, 1)), GaussianSettings(2.0, 9, 0.25, 0.0))
    gaussian.refit(elites)
    for row in range(2):
        found = np.cov(elites[row, ..., 0].T, bias=True)
        np.testing.assert_allclose(gaussian.covariance[row], 0.25 * 4 * np.eye(3) + 0.75 * found)
        mean = 0.25 + 0.75 * elites[row].mean(axis=0)
        np.testing.assert_allclose(gaussian.mean[row], mean)


def test_a_full_covariance_is_sampled_and_keeps_its_floor():
    """Two elites on a diagonal, (1, 1) and (3, 3): covariance all 1. A third number never moves."""
    gaussian = CorrelatedGaussian(np.zeros((1, 3, 1)), GaussianSettings(1.0, 2, 0.0, 0.5))
    gaussian.refit(np.array([[1.0, 1.0, 0.0], [3.0, 3.0, 0.0]]).reshape(1, 2, 3, 1))
    noise = np.random.default_rng(1).standard_normal((20_000, 3, 1))
    samples = gaussian.sample(noise)[0, ..., 0]
    np.testing.assert_allclose(samples.mean(axis=0), [2.0, 2.0, 0.0], atol=0.04)
    expected = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.25]]
    np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.04)


def test_a_full_covariance_follows_a_valley():
    """Start and displacement trade off against each other: the valley runs along (1, -1)."""
    weights = np.diag([0.1, 1.0, 0.1, 1.0, 1.0, 1.0])
    weights[np.ix_([0, 2], [0, 2])] += 30.0
    cost = ParameterCost([-0.6, 0.0, 0.9, 0.0, -0.4, 0.0], weights)
    reached = {
        covariance: GestureCEMOptimizer(
            SPEC,
            num_samples=80,
            num_elites=20,
            num_iterations=20,
            smoothing=0.3,
            covariance=covariance,
        ).optimize(PlanningProblem(cost=cost, batch_size=1))
        for covariance in COVARIANCES
    }
    assert reached["full"].cost[0] < 0.3 * reached["diagonal"].cost[0]


def test_an_unknown_covariance_is_refused():
    with pytest.raises(ConfigError, match="'spherical' is unknown"):
        GestureCEMOptimizer(SPEC, covariance="spherical")


def test_actions_that_are_no_touches_are_refused():
    with pytest.raises(ConfigError, match="no gesture parameters"):
        GestureCEMOptimizer(FREE)
    with pytest.raises(ConfigError, match="no gesture parameters"):
        GestureCEMOptimizer(ActionSpec(path_knots=None, representation="held"))
