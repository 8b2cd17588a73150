"""DDIM-started planners: never worse than DDIM, honest accounts of both, and a real gain."""

import time

import numpy as np
import pytest
from builders.planners import Watching, free_spec, sampler, started
from builders.planners import goals as touch_targets

from vj2_ddim_benchmark.planners.cross_entropy import (
    COVARIANCES,
    CandidateCEM,
    CandidateCEMSettings,
)
from vj2_ddim_benchmark.planners.ddim_started import StartedOptimizer
from vj2_ddim_benchmark.planners.parameter_spaces import GestureParameters
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import QuadraticCost

FREE = free_spec(4, (-1.0, -1.0), (1.0, 1.0))


def problem(cost, batch=1, **fields):
    return PlanningProblem(cost=cost, batch_size=batch, **fields)


def watched(targets):
    return Watching(QuadraticCost(targets))


HOWS = ("cem", "adam")


class WorseHalf:
    """A second planner whose answers and accounts are known."""

    def __init__(self, gain=(1.0, 1.0), stopped="finished"):
        self.gain, self.stopped = np.asarray(gain), stopped

    def __call__(self, asked, first, candidates, cost, /):
        self.asked, self.candidates, self.costs = asked, candidates, cost
        phases, moved = {"cost": 1.0, "think": 2.0, "total": 3.0}, np.full(2, 9.0)
        found = np.zeros_like(first.actions), first.cost + self.gain, np.zeros((3, 2))
        return PlanResult(*found, 7, 2, phases, "hand", self.stopped, moved)


def test_each_problem_gets_the_better_plan_and_the_accounts_are_sums():
    asked = problem(watched(touch_targets(2)), 2, seed=3)
    alone, second = sampler().optimize(asked), WorseHalf(gain=(1.0, -1.0))
    both = StartedOptimizer(sampler(), second).optimize(asked)
    np.testing.assert_array_equal(both.actions, [alone.actions[0], np.zeros((250, 3))])
    np.testing.assert_allclose(both.cost, alone.cost + np.array([0.0, -1.0]))
    np.testing.assert_array_equal(both.projection_distance, [alone.projection_distance[0], 9.0])
    np.testing.assert_allclose(both.history, [*alone.history, both.cost])
    assert both.num_cost_evaluations == 2 * 8 + 7
    assert both.num_denoiser_evaluations == 2 * 8 * 3 + 2
    assert both.wall_time_s["think"] == 2.0
    assert 1.0 < both.wall_time_s["cost"] < 2.0
    assert 0 < both.wall_time_s["denoise"] < both.wall_time_s["total"] < 1.0  # the whole call's own
    assert (both.provider, both.stopped_because) == (alone.provider, "finished")
    assert not np.isnan(second.costs).any()


def test_the_second_planner_sees_all_candidates_and_finding_nothing_leaves_ddims_plan():
    asked = problem(watched(touch_targets(2)), 2, seed=3)
    alone, second = sampler().optimize(asked), WorseHalf()
    both = StartedOptimizer(sampler(), second).optimize(asked)
    np.testing.assert_array_equal(both.actions, alone.actions)
    np.testing.assert_allclose(both.cost, alone.cost)
    np.testing.assert_array_equal(both.projection_distance, alone.projection_distance)
    assert second.candidates.shape == (2, 8, 250, 3)
    np.testing.assert_allclose(second.costs, asked.cost(second.candidates))
    best = second.candidates[np.arange(2), second.costs.argmin(axis=1)]
    np.testing.assert_array_equal(best, alone.actions)
    assert second.asked.cost is asked.cost
    assert both.actions.dtype == alone.actions.dtype


@pytest.mark.parametrize("how", HOWS)
def test_evaluations_are_those_that_were_asked_for(how):
    cost = watched(touch_targets(2))
    result = started(how).optimize(problem(cost, 2))
    by_hand = {"cem": 2 * (8 + 4 * 16), "adam": 2 * (8 + 6 + 2)}
    assert result.num_cost_evaluations == by_hand[how]
    assert result.num_denoiser_evaluations == 2 * 8 * 3
    phases = dict(result.wall_time_s)
    assert sum(phases.values()) - phases["total"] <= phases["total"]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_cem_reaches_the_optimum_from_ddims_candidates(covariance):
    straight = ActionSpec()
    space, wanted = GestureParameters(straight), np.array([0.3, -0.2, 0.4, 0.5, -0.4, 0.1])

    def cost(candidates):
        return ((space.encode(candidates)[..., 0] - wanted) ** 2).sum(axis=-1)

    asked = problem(cost, seed=1)
    how = CandidateCEMSettings(
        num_samples=32, num_iterations=20, num_elites=8, smoothing=0.3, min_std=0.1,
        covariance=covariance,
    )  # fmt: skip
    found = StartedOptimizer(sampler(), CandidateCEM(straight, how)).optimize(asked)
    assert sampler().optimize(asked).cost[0] > 0.2
    assert found.cost[0] < 0.02  # samples are never closer together than the floor of 0.1


def test_adam_reaches_the_optimum_from_ddims_plan():
    target = np.random.default_rng(0).uniform(-0.9, 0.9, (4, 2))
    found = started("adam", FREE, num_iterations=300, lr=0.02).optimize(problem(watched(target)))
    np.testing.assert_allclose(found.actions[0], target, atol=1e-3)


def populations(places, costs, **settings):
    """What is drawn around candidates on a line, when all of it costs 5."""
    drawn = []

    def cost(candidates):
        drawn.append(candidates)
        return np.full(candidates.shape[:2], 5.0)

    candidates = np.tile(np.array(places)[None, :, None, None], (1, 1, 4, 2)).astype(np.float32)
    improve = CandidateCEM(FREE, CandidateCEMSettings(num_elites=2, **settings))
    first = sampler(FREE).optimize(problem(QuadraticCost(np.zeros((4, 2)))))
    improve(problem(cost), first, candidates, np.array([costs]))
    return drawn


def test_the_first_gaussian_is_that_of_the_elites():
    """The two best are 0 and 0.4: mean 0.2, standard deviation 0.2."""
    places, costs = [0.8, 0.0, -0.8, 0.4], [3.0, 1.0, np.inf, 2.0]
    (population,) = populations(places, costs, num_samples=4000, num_iterations=1)
    np.testing.assert_allclose(population.mean(axis=(0, 1)), 0.2, atol=0.02)
    np.testing.assert_allclose(population.std(axis=(0, 1)), 0.2, atol=0.02)


def test_elites_are_carried_into_the_next_population():
    """Everything drawn is worse than the candidates, so the Gaussian never moves away from them."""
    how = {"num_samples": 200, "num_iterations": 6, "smoothing": 0.0, "min_std": 0.01}
    drawn = populations([0.5, 0.5, -0.9], [1.0, 1.0, 9.0], **how)
    assert len(drawn) == 6
    for population in drawn:
        np.testing.assert_allclose(population.mean(axis=1), 0.5, atol=0.01)


@pytest.mark.parametrize("how", HOWS)
def test_a_deadline_is_kept(how):
    class Slow(Watching):
        def torch_cost(self, actions):
            time.sleep(0.005)
            return super().torch_cost(actions)

        def __call__(self, candidates):
            time.sleep(0.0003 * candidates.shape[1])
            return super().__call__(candidates)

    planner = started(how, num_iterations=10**6)
    cost = Slow(QuadraticCost(touch_targets(1)))
    unhurried = sampler().optimize(problem(cost, seed=0))
    result = planner.optimize(problem(cost, seed=0, deadline_s=0.3))
    assert result.stopped_because == "deadline"
    assert result.num_cost_evaluations > 8
    assert result.cost[0] <= unhurried.cost[0]
    assert result.wall_time_s["total"] < 5.0


def test_the_second_gets_what_the_first_leaves_and_its_deadline_counts():
    second = WorseHalf(stopped="deadline")
    asked = problem(watched(touch_targets(2)), 2, deadline_s=50.0)
    result = StartedOptimizer(sampler(), second).optimize(asked)
    assert 0 < second.asked.deadline_s < 50.0
    assert result.stopped_because == "deadline"
    unasked, asked = WorseHalf(), problem(watched(touch_targets(2)), 2, deadline_s=0.0)
    result = StartedOptimizer(sampler(), unasked).optimize(asked)  # DDIM's plan is the answer
    assert not hasattr(unasked, "asked")
    assert result.stopped_because == "deadline"
    assert result.actions.shape == (2, 250, 3)
