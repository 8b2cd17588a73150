"""The planners that sample: their loop and its clock; MPPI and predictive sampling by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from builders.planners import POPULATIONS, SPEC, Watching, free_spec, goals, population

from vj2_ddim_benchmark.planners import ranking
from vj2_ddim_benchmark.planners.parameter_spaces import GestureParameters
from vj2_ddim_benchmark.planners.population import (
    MPPI,
    PopulationOptimizer,
    PredictiveSampling,
    RandomGestures,
    RandomGesturesOptimizer,
    path_integral_weights,
)
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.planning import deadline
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import QuadraticCost

every_planner = pytest.mark.parametrize("name", POPULATIONS)


@every_planner
def test_the_history_is_the_best_so_far_and_falls(name):
    cost = Watching(QuadraticCost(goals(3)))
    result = population(name, num_iterations=6).optimize(PlanningProblem(cost=cost, batch_size=3))
    rounds = np.stack([cost.cost(asked).min(axis=1) for asked in cost.asked])
    np.testing.assert_array_equal(result.history, np.minimum.accumulate(rounds))
    assert (result.history[-1] < result.history[0]).all()  # later rounds found better ones


@every_planner
def test_the_first_population_is_drawn_around_the_warm_start(name):
    warm = random_policy(1, np.random.default_rng(5))
    narrow = {"std": 0.02} if hasattr(POPULATIONS[name](), "std") else {"noise_std": 0.02}
    cost = Watching(QuadraticCost(goals(1)))
    planner = population(name, num_iterations=1, num_samples=20, **narrow)
    planner.optimize(PlanningProblem(cost=cost, init_action=warm))
    (asked,) = cost.asked
    np.testing.assert_array_equal(asked[0, 0], warm[0])

    def middle_of_touch(actions):
        pressed = actions[..., 2] > 0
        return np.stack([a[p, :2].mean(axis=0) for a, p in zip(actions, pressed, strict=True)])

    away = middle_of_touch(asked[0]) - middle_of_touch(warm)
    assert np.abs(away).max() < 0.15  # others would be anywhere on the screen
    assert np.abs(away[1:]).max() > 0.0


class Clock:
    """Time passes only while the cost is computed: a second for 16 rows."""

    def __init__(self, monkeypatch, cost):
        self.now, self.cost, self.rows = 100.0, cost, []
        for module in (ranking, deadline):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self, candidates):
        self.now += candidates.shape[1] / 16
        self.rows.append(candidates.shape[1])
        return self.cost(candidates)


@every_planner
def test_the_deadline_ends_the_search_and_the_best_so_far_is_returned(name, monkeypatch):
    cost = Clock(monkeypatch, QuadraticCost(goals(1)))
    planner = population(name, num_samples=40, num_iterations=50)
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=1, deadline_s=1.5))
    assert cost.rows == [16, 4, 2, 1]  # a second, and what is expected to fit into the other half
    assert cost.now <= 101.5  # in time
    assert result.num_cost_evaluations == 23
    assert result.stopped_because == "deadline"
    assert result.history.shape == (1, 1)
    np.testing.assert_array_equal(result.cost, cost.cost(result.actions[:, None])[:, 0])
    assert gestures.is_valid(result.actions, SPEC).all()


@every_planner
def test_a_deadline_that_has_passed_still_considers_the_warm_start(name, monkeypatch):
    wanted = goals(2)
    cost = Clock(monkeypatch, QuadraticCost(wanted))
    problem = PlanningProblem(cost=cost, init_action=wanted[:, 0], deadline_s=0.0)
    result = population(name).optimize(problem)
    np.testing.assert_array_equal(result.actions, wanted[:, 0])
    assert cost.rows == [1]  # of each problem, the fewest there can be


@every_planner
def test_a_refusal_names_the_planner(name):
    planner = population(name)
    with pytest.raises(ContextError, match=f"^{planner.settings.planner} needs a cost"):
        planner.optimize(PlanningProblem(batch_size=1))


@every_planner
def test_a_later_round_without_any_finite_cost_is_survived(name):
    plain, rounds = QuadraticCost(goals(1)), []

    def breaks_once(candidates):
        rounds.append(None)
        return plain(candidates) * (np.nan if len(rounds) == 2 else 1.0)

    result = population(name).optimize(PlanningProblem(cost=breaks_once, batch_size=1))
    assert len(rounds) == 4
    assert np.isfinite(result.cost).all()
    np.testing.assert_array_equal(result.history[0], result.history[1])


@every_planner
def test_the_first_population_can_be_real_gestures(name):
    cost = Watching(QuadraticCost(goals(2)))
    planner = population(name, start="gestures", num_iterations=1)
    planner.optimize(PlanningProblem(cost=cost, batch_size=2, seed=3))
    drawn = random_policy(12, np.random.default_rng(3))
    (asked,) = cost.asked
    np.testing.assert_allclose(asked, np.tile(drawn, (2, 1, 1, 1)), atol=1e-6)


TOUCH, FREE = ActionSpec(), free_spec()
SMALL = free_spec(2, (-1.0, -1.0), (1.0, 1.0))


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
    proposal = MPPI(temperature=2.0).proposal(np.zeros((2, 1, 1)))
    parameters = np.array([[0.0, 3.0, 6.0], [1.0, 2.0, 3.0]]).reshape(2, 3, 1, 1)
    proposal.tell(parameters, np.array([[0.0, 2 * np.log(2.0), np.inf], [np.inf] * 3]))
    # weights 2/3, 1/3, 0; and nothing is learnt where nothing is known
    np.testing.assert_allclose(proposal.mean[:, 0, 0], [1.0, 0.0])


def test_the_mean_is_the_first_of_each_population_and_the_others_spread_around_it():
    how = MPPI(num_samples=5000, noise_std=0.2)
    mean = np.array([0.5, -0.25]).reshape(2, 1, 1) * np.ones((2, 4, 2))
    drawn = how.proposal(mean).ask(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(drawn[:, 0], mean)
    noise = drawn - mean[:, None]
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-12)  # the same for all problems
    np.testing.assert_allclose(noise[0].std(axis=0), 0.2, rtol=0.05)
    np.testing.assert_allclose(noise[0].mean(axis=0), 0.0, atol=0.015)


def test_mppi_reaches_the_optimum_of_a_quadratic():
    """The best sample is off by less than the noise: 0.02 of half ranges of 10 and 2, so 0.2.

    The gap shrinks by `1 / (1 + noise_std^2 * curvature / temperature)` a round: by 1 / 1.2 for the
    flatter channel (curvature 1), which leaves nothing of it after 120 rounds.
    """
    wanted = np.random.default_rng(0).uniform([-5, 1], [5, 3], (3, 1, 4, 2))
    how = MPPI(num_samples=200, num_iterations=120, noise_std=0.02, temperature=0.002)
    cost = QuadraticCost(wanted)
    result = PopulationOptimizer(FREE, how).optimize(PlanningProblem(cost=cost, batch_size=3))
    np.testing.assert_allclose(result.actions, wanted[:, 0], atol=0.2)
    assert (result.cost < 1e-3 * result.history[0]).all()


def test_one_round_is_random_gestures_ranked():
    problem = PlanningProblem(
        cost=QuadraticCost(random_policy(2, np.random.default_rng(1))[:, None]),
        batch_size=2,
        seed=4,
    )
    spec = ActionSpec(max_press_steps=200, path_knots=3)  # what the touch screen's gestures need
    how = PredictiveSampling(num_samples=20, num_iterations=1)
    one = PopulationOptimizer(spec, how).optimize(problem)
    ranked = RandomGesturesOptimizer(spec, RandomGestures(num_candidates=20)).optimize(problem)
    np.testing.assert_allclose(one.actions, ranked.actions, atol=1e-6)
    np.testing.assert_allclose(one.cost, ranked.cost, atol=1e-6)


def test_neighbours_spread_around_the_best_and_it_is_never_lost():
    how = PredictiveSampling(num_samples=4000, noise_std=0.3)
    proposal = how.proposal(np.zeros((1, 2, 2)))
    known = np.arange(12.0).reshape(1, 3, 2, 2)
    proposal.tell(known, np.array([[2.0, 1.0, 3.0]]))
    proposal.tell(known + 100.0, np.array([[1.5, 4.0, np.inf]]))  # none is better
    drawn = proposal.ask(np.random.default_rng(0), 2)
    np.testing.assert_allclose(drawn.mean(axis=1), known[:, 1], atol=0.025)  # 5 standard errors
    np.testing.assert_allclose(drawn.std(axis=1), 0.3, rtol=0.06)
    proposal.tell(known + 100.0, np.array([[9.0, 9.0, 0.5]]))
    np.testing.assert_array_equal(proposal.best, known[:, 2] + 100.0)


def test_predictive_sampling_reaches_the_optimum_of_a_quadratic():
    """Among 200 neighbours in 4 dimensions, spread 0.03, one improves on any point much more than
    0.03 away."""
    wanted = np.random.default_rng(2).uniform(-0.8, 0.8, (3, 1, 2, 2))
    how = PredictiveSampling(num_samples=200, num_iterations=60, noise_std=0.03, start="middle")
    result = PopulationOptimizer(SMALL, how).optimize(
        PlanningProblem(cost=QuadraticCost(wanted), batch_size=3)
    )
    np.testing.assert_allclose(result.actions, wanted[:, 0], atol=0.03)


def test_touches_are_perturbed_as_gestures():
    """Each neighbour of a gesture is a gesture; the nearest to the wanted six numbers is found.

    Of 40 neighbours in 6 dimensions, spread 0.05, one improves on any point much more than 0.1
    away.
    """
    space = GestureParameters(TOUCH)
    wanted = np.array([[-0.6, 0.4, 1.2, -0.6, -0.6, -0.2], [0.3, 0.3, 0.0, 0.0, 0.2, 0.4]])

    def cost(candidates):
        assert is_valid(candidates, TOUCH).all()
        return np.square(space.encode(candidates)[..., 0] - wanted[:, None]).sum(axis=-1)

    how = PredictiveSampling(num_samples=40, num_iterations=30, noise_std=0.05)
    planner = PopulationOptimizer(TOUCH, how)
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=2))
    np.testing.assert_allclose(space.encode(result.actions)[..., 0], wanted, atol=0.1)
