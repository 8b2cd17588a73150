"""iCEM: the colour of its noise against the formula, its elites and populations against hand."""

import numpy as np
import pytest

from vj2_ddim_benchmark.planners.coloured_noise import coloured_noise
from vj2_ddim_benchmark.planners.icem import ICEMOptimizer, population_size
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


@pytest.mark.parametrize("num_steps", [250, 63])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_power_falls_as_f_to_the_minus_beta(beta, num_steps):
    """The mean of 4,000 periodograms has a standard error of 1.6 % at each frequency."""
    noise = coloured_noise(beta, num_steps, (4000,), np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise))).mean(axis=0)[1:]
    expected = np.fft.rfftfreq(num_steps)[1:] ** -beta
    scale = (power / expected).mean()
    np.testing.assert_allclose(power / expected / scale, 1.0, atol=0.1)


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_noise_is_standardised_at_every_step(beta):
    noise = coloured_noise(beta, 20, (200, 100), np.random.default_rng(1)).reshape(-1, 20)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.035)  # 5 standard errors
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.025)


def test_white_noise_is_uncorrelated_and_brownian_noise_is_smooth():
    white, smooth = (
        coloured_noise(beta, 50, (20_000,), np.random.default_rng(2)) for beta in (0.0, 2.0)
    )

    def lag_one(noise):
        return (noise[:, 20] * noise[:, 21]).mean()

    assert abs(lag_one(white)) < 0.035
    assert lag_one(smooth) > 0.9


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_short_series_are_standardised_too(num_steps):
    noise = coloured_noise(1.0, num_steps, (40_000,), np.random.default_rng(3))
    assert noise.shape == (40_000, num_steps)
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.025)


def test_populations_shrink_to_twice_the_elites():
    sizes = [population_size(40, 2.0, i, 3) for i in range(5)]
    assert sizes == [40, 20, 10, 6, 6]
    assert [population_size(4, 2.0, i, 3) for i in range(3)] == [4, 4, 4]
    assert [population_size(40, 1.0, i, 3) for i in range(3)] == [40, 40, 40]


def test_as_many_candidates_are_ranked_as_the_decay_says():
    planner = ICEMOptimizer(FREE, num_samples=40, num_elites=3, num_iterations=5, decay=2.0)
    result = planner.optimize(PlanningProblem(cost=QuadraticCost(np.zeros((4, 2))), batch_size=2))
    assert result.num_cost_evaluations == 2 * (40 + 20 + 10 + 6 + 6)


def told(keep_share):
    """A proposal of two elites that was told of costs 1, 2, 3 and then of 0, 8, 9."""
    planner = ICEMOptimizer(FREE, num_samples=3, num_elites=2, smoothing=0.0, keep_share=keep_share)
    proposal = planner.proposal(np.zeros((1, 1, 1)))
    proposal.tell(np.array([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1), np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(proposal.gaussian.mean, 15.0)
    proposal.tell(np.array([0.0, 80.0, 90.0]).reshape(1, 3, 1, 1), np.array([[0.0, 8.0, 9.0]]))
    return proposal.gaussian


def test_kept_elites_compete_in_the_next_round():
    gaussian = told(keep_share=0.5)  # 10, of cost 1, is kept: the elites are 0 and 10
    np.testing.assert_allclose((gaussian.mean, gaussian.std), [[[[5.0]]], [[[5.0]]]])
    gaussian = told(keep_share=0.0)  # nothing is kept: the elites are 0 and 80
    np.testing.assert_allclose((gaussian.mean, gaussian.std), [[[[40.0]]], [[[40.0]]]])


def test_the_mean_is_tried_in_the_last_round_alone():
    planner = ICEMOptimizer(FREE, num_iterations=3)
    proposal = planner.proposal(np.full((1, 4, 2), 0.25))
    tried = [
        (proposal.ask(np.random.default_rng(0), iteration)[0] == 0.25).all(axis=(1, 2)).sum()
        for iteration in range(3)
    ]
    assert tried == [0, 0, 1]


def test_the_optimum_of_a_quadratic_is_reached():
    """With 8 numbers and no floor, std shrinks geometrically; 40 rounds are far past 1e-3."""
    wanted = np.random.default_rng(0).uniform([-9, 0.5], [9, 3.5], (3, 1, 4, 2))
    planner = ICEMOptimizer(
        FREE, num_samples=100, num_elites=20, num_iterations=40, std=1.0, noise_beta=0.5
    )
    result = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=3))
    np.testing.assert_allclose(result.actions, wanted[:, 0], atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_elites": 49},
        {"noise_beta": -1.0},
        {"decay": 0.9},
        {"keep_share": 1.1},
        {"keep_share": float("nan")},
        {"std": 0.0},
        {"smoothing": 1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ICEMOptimizer(FREE, **wrong)
