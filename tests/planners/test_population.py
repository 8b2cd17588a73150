"""The loop of the planners that sample: its rounds, its first population, its clock."""

from types import SimpleNamespace

import numpy as np
import pytest
from builders.planners import POPULATIONS, SPEC, Watching, goals, population

from vj2_ddim_benchmark.planners import ranking
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.planning import deadline
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
