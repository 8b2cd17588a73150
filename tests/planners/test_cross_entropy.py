"""CEM, gesture CEM and iCEM by hand and against known optima; and what they search over."""

import numpy as np
import pytest
from builders.planners import free_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_benchmark.planners.cross_entropy import (
    CEM,
    COVARIANCES,
    ICEM,
    CorrelatedGaussian,
    Gaussian,
    GestureCEM,
    coloured_noise,
)
from vj2_ddim_benchmark.planners.parameter_spaces import (
    ActionKnots,
    GestureParameters,
    natural_space,
)
from vj2_ddim_benchmark.planners.population import PopulationOptimizer, elites_of
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import is_valid, project
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import QuadraticCost

SPEC, FREE = ActionSpec(), free_spec()
MANY = {"num_samples": 100, "num_elites": 20, "num_iterations": 40}


def plan(how, cost, batch=1, spec=FREE):
    return PopulationOptimizer(spec, how).optimize(PlanningProblem(cost=cost, batch_size=batch))


def test_elites_are_the_lowest_in_order_and_the_earlier_of_equals():
    parameters = np.arange(10.0).reshape(2, 5, 1, 1)
    cost = np.array([[3.0, 1.0, np.inf, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    elites, elite_cost = elites_of(parameters, cost, 3)
    np.testing.assert_array_equal(elites[..., 0, 0], [[4, 1, 3], [9, 8, 7]])
    np.testing.assert_array_equal(elite_cost, [[0, 1, 1], [1, 2, 3]])


class TestGaussian:
    def test_a_refit_by_hand(self):
        """Elites 1 and 5: mean 3, std 2. A quarter of the old mean 7 and the old std 1 is kept."""
        gaussian = Gaussian(np.full((1, 1, 1), 7.0), std=1.0, min_std=0.01)
        gaussian.refit(np.array([1.0, 5.0]).reshape(1, 2, 1, 1), kept=0.25)
        np.testing.assert_allclose(gaussian.mean, 0.25 * 7 + 0.75 * 3)
        np.testing.assert_allclose(gaussian.std, 0.25 * 1 + 0.75 * 2)
        noise = np.array([[[-2.0]], [[0.0]]])
        np.testing.assert_allclose(gaussian.sample(noise)[0, :, 0, 0], [4.0 - 2 * 1.75, 4.0])

    def test_the_std_never_falls_below_its_floor(self):
        gaussian = Gaussian(np.zeros((1, 1, 1)), std=1.0, min_std=0.3)
        gaussian.refit(np.full((1, 2, 1, 1), 4.0), kept=0.0)
        np.testing.assert_allclose((gaussian.mean, gaussian.std), [[[[4.0]]], [[[0.3]]]])

    def test_each_problem_is_refitted_to_its_own_elites(self):
        elites = np.array([[[1.0], [3.0]], [[10.0], [20.0]]])[..., None]
        gaussian = Gaussian(np.zeros((2, 1, 1)), std=1.0, min_std=0.0)
        gaussian.refit(elites, kept=0.0)
        np.testing.assert_allclose(gaussian.mean[:, 0, 0], [2.0, 15.0])
        np.testing.assert_allclose(gaussian.std[:, 0, 0], [1.0, 5.0])

    def test_a_full_covariance_is_refitted_as_numpy_says(self):
        elites = np.random.default_rng(0).normal(size=(2, 9, 3, 1))
        gaussian = CorrelatedGaussian(np.ones((2, 3, 1)), std=2.0, min_std=0.0)
        gaussian.refit(elites, kept=0.25)
        for row in range(2):
            found = np.cov(elites[row, ..., 0].T, bias=True)
            expected = 0.25 * 4 * np.eye(3) + 0.75 * found
            np.testing.assert_allclose(gaussian.covariance[row], expected)
            mean = 0.25 + 0.75 * elites[row].mean(axis=0)
            np.testing.assert_allclose(gaussian.mean[row], mean)

    def test_a_full_covariance_is_sampled_and_keeps_its_floor(self):
        """Two elites on a diagonal, (1, 1), (3, 3): covariance all 1. A third never moves."""
        gaussian = CorrelatedGaussian(np.zeros((1, 3, 1)), std=1.0, min_std=0.5)
        gaussian.refit(np.array([[1.0, 1.0, 0.0], [3.0, 3.0, 0.0]]).reshape(1, 2, 3, 1), kept=0.0)
        noise = np.random.default_rng(1).standard_normal((20_000, 3, 1))
        samples = gaussian.sample(noise)[0, ..., 0]
        np.testing.assert_allclose(samples.mean(axis=0), [2.0, 2.0, 0.0], atol=0.04)
        expected = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.25]]
        np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.04)


class TestOptima:
    @pytest.mark.parametrize(
        "how", [CEM(**MANY, std=1.0, min_std=0.0), ICEM(**MANY, std=1.0, noise_beta=0.5)]
    )
    def test_the_optimum_of_a_quadratic_is_reached(self, how):
        """With 8 numbers and no floor, std shrinks geometrically; 40 rounds are far past 1e-3."""
        wanted = np.random.default_rng(0).uniform([-9, 0.5], [9, 3.5], (3, 1, 4, 2))
        result = plan(how, QuadraticCost(wanted), 3)
        np.testing.assert_allclose(result.actions, wanted[:, 0], atol=1e-3)

    def test_an_optimum_outside_the_bounds_is_met_at_the_bound(self):
        cost = QuadraticCost(np.tile([50.0, -3.0], (4, 1)))
        result = plan(CEM(**MANY, std=1.0, min_std=0.0), cost)
        np.testing.assert_allclose(result.actions[0], np.tile([10.0, 0.0], (4, 1)), atol=0.02)

    def test_knots_are_fewer_numbers_for_smoother_actions(self):
        """Between 2 knots every sequence is a line: so is the plan, whatever is wanted."""
        wanted = np.array([0.0, 8.0, -8.0, 3.0])[:, None] * [1.0, 0.1] + [0.0, 2.0]
        (found,) = plan(CEM(**MANY, num_knots=2, min_std=0.0), QuadraticCost(wanted)).actions
        line = [np.polyval(np.polyfit(range(4), wanted[:, c], 1), range(4)) for c in (0, 1)]
        np.testing.assert_allclose(found, np.transpose(line), atol=1e-3)

    @pytest.mark.parametrize("covariance", COVARIANCES)
    @pytest.mark.parametrize("start", ["gestures", "middle"])
    def test_gesture_cem_reaches_the_optimum_of_a_quadratic(self, start, covariance):
        """A floor of 0.01 leaves samples within a few hundredths; times are whole steps of 0.008.

        The optima are well within the first population: CEM closes in faster than it walks.
        """
        wanted = np.array([[-0.3, 0.2, 0.4, -0.3, -0.1, 0.2], [0.3, 0.3, 0.0, 0.0, -0.4, -0.2]])
        how = GestureCEM(**GESTURES, start=start, covariance=covariance)
        result = plan(how, ParameterCost(wanted[:, None]), 2, SPEC)
        found = GestureParameters(SPEC).encode(result.actions)[..., 0]
        np.testing.assert_allclose(found, wanted, atol=0.03)

    def test_a_tap_is_found_from_its_actions(self):
        """The cost of the actions: where and when it is touched outweighs how straight."""
        wanted = drag(0.6, 0.3, 0.6, 0.3, 90, 40)[0]
        how = GestureCEM(num_samples=100, num_elites=20, num_iterations=25, smoothing=0.3)
        result = plan(how, QuadraticCost(wanted), spec=SPEC)
        touch = result.actions[0][result.actions[0, :, 2] > 0]
        np.testing.assert_allclose(touch[:, :2].mean(axis=0), [0.6, 0.3], atol=0.03)
        assert np.sum(result.actions[0, :, 2] != wanted[:, 2]) <= 2  # a step at either end
        assert result.cost[0] < 0.01 * result.history[0, 0]

    def test_a_full_covariance_follows_a_valley(self):
        """Start and displacement trade off against each other: the valley runs along (1, -1)."""
        weights = np.diag([0.1, 1.0, 0.1, 1.0, 1.0, 1.0])
        weights[np.ix_([0, 2], [0, 2])] += 30.0
        cost = ParameterCost([-0.6, 0.0, 0.9, 0.0, -0.4, 0.0], weights)
        full, diagonal = (
            plan(GestureCEM(**GESTURES, covariance=covariance), cost, spec=SPEC).cost[0]
            for covariance in ("full", "diagonal")
        )
        assert full < 0.3 * diagonal


GESTURES = {"num_samples": 80, "num_elites": 20, "num_iterations": 20, "smoothing": 0.3}


class ParameterCost:
    """A quadratic in the parameters of gestures: `sum(weights * (parameters - wanted)^2)`."""

    def __init__(self, wanted, weights=None):
        self.wanted, self.space = np.asarray(wanted), GestureParameters(SPEC)
        self.weights = np.eye(6) if weights is None else weights

    def __call__(self, candidates):
        apart = self.space.encode(candidates)[..., 0] - self.wanted
        return np.einsum("...i,ij,...j->...", apart, self.weights, apart)


class TestColouredNoise:
    @pytest.mark.parametrize("num_steps", [250, 63])
    @pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
    def test_power_falls_as_f_to_the_minus_beta(self, beta, num_steps):
        """The mean of 4,000 periodograms has a standard error of 1.6 % at each frequency."""
        noise = coloured_noise(beta, num_steps, (4000,), np.random.default_rng(0))
        power = np.square(np.abs(np.fft.rfft(noise))).mean(axis=0)[1:]
        expected = np.fft.rfftfreq(num_steps)[1:] ** -beta
        scale = (power / expected).mean()
        np.testing.assert_allclose(power / expected / scale, 1.0, atol=0.1)

    @pytest.mark.parametrize(
        ("beta", "num_steps", "shape"),
        [(0.0, 20, (200, 100)), (2.0, 20, (200, 100)), (1.0, 1, (40_000,)), (1.0, 2, (40_000,)),
         (1.0, 3, (40_000,))],
    )  # fmt: skip
    def test_it_is_standardised_at_every_step_of_any_length(self, beta, num_steps, shape):
        noise = coloured_noise(beta, num_steps, shape, np.random.default_rng(1))
        assert noise.shape == (*shape, num_steps)
        noise = noise.reshape(-1, num_steps)
        np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.035)  # 5 standard errors
        np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.025)

    def test_white_noise_is_uncorrelated_and_brownian_noise_is_smooth(self):
        white, smooth = (
            coloured_noise(beta, 50, (20_000,), np.random.default_rng(2)) for beta in (0.0, 2.0)
        )
        assert abs((white[:, 20] * white[:, 21]).mean()) < 0.035
        assert (smooth[:, 20] * smooth[:, 21]).mean() > 0.9


class TestICEM:
    @pytest.mark.parametrize(
        ("num", "decay", "sizes"),
        [(40, 2.0, [40, 20, 10, 6, 6]), (4, 2.0, [4, 4, 4]), (40, 1.0, [40, 40, 40])],
    )
    def test_populations_shrink_to_twice_the_elites(self, num, decay, sizes):
        proposal = ICEM(num_samples=num, num_elites=3, decay=decay).proposal(np.zeros((1, 4, 2)))
        rng = np.random.default_rng(0)
        assert [proposal.ask(rng, i).shape[1] for i in range(len(sizes))] == sizes

    def test_as_many_candidates_are_ranked_as_the_decay_says(self):
        how = ICEM(num_samples=40, num_elites=3, num_iterations=5, decay=2.0)
        result = plan(how, QuadraticCost(np.zeros((4, 2))), 2)
        assert result.num_cost_evaluations == 2 * (40 + 20 + 10 + 6 + 6)

    @pytest.mark.parametrize(
        ("keep_share", "mean", "std"),
        [(0.5, 5.0, 5.0),  # 10, of cost 1, is kept: the elites are 0 and 10
         (0.0, 40.0, 40.0)],  # nothing is kept: the elites are 0 and 80
    )  # fmt: skip
    def test_kept_elites_compete_in_the_next_round(self, keep_share, mean, std):
        """Two elites, told of costs 1, 2, 3 and then of 0, 8, 9."""
        how = ICEM(num_samples=3, num_elites=2, smoothing=0.0, keep_share=keep_share)
        proposal = how.proposal(np.zeros((1, 1, 1)))
        proposal.tell(np.array([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1), np.array([[1.0, 2.0, 3.0]]))
        np.testing.assert_allclose(proposal.gaussian.mean, 15.0)
        proposal.tell(np.array([0.0, 80.0, 90.0]).reshape(1, 3, 1, 1), np.array([[0.0, 8.0, 9.0]]))
        gaussian = proposal.gaussian
        np.testing.assert_allclose((gaussian.mean, gaussian.std), [[[[mean]]], [[[std]]]])

    def test_the_mean_is_tried_in_the_last_round_alone(self):
        proposal = ICEM(num_iterations=3).proposal(np.full((1, 4, 2), 0.25))
        tried = [
            (proposal.ask(np.random.default_rng(0), iteration)[0] == 0.25).all(axis=(1, 2)).sum()
            for iteration in range(3)
        ]
        assert tried == [0, 0, 1]


def test_what_does_not_fit_the_actions_is_refused():
    with pytest.raises(ConfigError, match="num_knots"):
        PopulationOptimizer(FREE, CEM(num_knots=5))
    for spec in (FREE, ActionSpec(path_knots=None, representation="held")):
        with pytest.raises(ConfigError, match="no gesture parameters"):
            PopulationOptimizer(spec, GestureCEM())


FIVE = free_spec(5)


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
        gestures = project(random_policy(4 * spec.horizon, np.random.default_rng(seed)), SPEC)
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
        assert is_valid(actions, spec).all()
        np.testing.assert_allclose(space.clip(clipped), clipped, atol=1e-12)


def test_clipping_by_hand():
    """Off the right edge, for too long and too late; then released before it was pressed."""
    wild = [[0.5, 0.0, 2.0, 0.5, 0.9, 2.0], [0.5, -1.5, 2.0, 0.5, 0.0, -0.3]]
    clipped = GestureParameters(SPEC).clip(np.array(wild)[..., None])[..., 0]
    expected = [[0.5, 0.0, 0.5, 0.5, 1.0 - 75 / 125, 1.0], [0.5, -1.0, 0.0, 0.0, 0.0, 5 / 125]]
    np.testing.assert_allclose(clipped, expected)


def test_knots_are_interpolated_and_fitted_in_the_bounds():
    space = ActionKnots(FIVE, 3)
    knots = np.array([[0.0, -1.0], [1.0, 0.0], [-0.5, 1.0]])
    expected = [[0.0, 0.0], [5.0, 1.0], [10.0, 2.0], [2.5, 3.0], [-5.0, 4.0]]
    np.testing.assert_allclose(space.decode(knots), expected, atol=1e-6)
    np.testing.assert_allclose(space.encode(np.array(expected)), knots, atol=1e-6)
    outside = space.encode(np.full((5, 2), 99.0))
    np.testing.assert_allclose(outside, np.ones((3, 2)))


def test_without_knots_every_action_is_a_parameter():
    space = ActionKnots(FIVE)
    assert space.shape == (5, 2)
    wild = np.tile([-7.0, 9.0], (5, 1))
    np.testing.assert_allclose(space.decode(space.clip(wild)), np.tile([-10.0, 4.0], (5, 1)))


def test_the_natural_space_of_touches_is_gestures():
    assert isinstance(natural_space(SPEC), GestureParameters)
    for spec in (FIVE, ActionSpec(path_knots=None, representation="held")):
        assert isinstance(natural_space(spec), ActionKnots)
