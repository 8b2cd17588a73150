"""Planners are built from their descriptions, twins included; a blurred goal is blurred for all."""

from types import SimpleNamespace

import numpy as np
import pytest

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets
from vj2_ddim_benchmark.race import tasks
from vj2_ddim_benchmark.race.tasks import NoisyGoal, make_ready, noisy_goal
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.spec import ActionSpec

ASSETS = PlannerAssets(ActionSpec(), seed=5)


def build(planner, settings, world_models=None):
    return make_ready(planner, ASSETS, settings, world_models or {}, "the cost")


class Built:
    """Remembers what it was built from."""

    def __init__(self, assets, settings):
        self.assets, self.settings = assets, settings


def test_each_planner_gets_the_assets_and_its_own_settings():
    first = build(Planner("a", Built, {"lr": (0.1,)}), {"lr": 0.1})
    second = build(Planner("b", Built, with_cost=False), {})
    assert (first.name, second.name) == ("a", "b")
    assert (first.optimizer.settings, second.optimizer.settings) == ({"lr": 0.1}, {})
    assert first.optimizer.assets is second.optimizer.assets is ASSETS
    assert (first.with_cost, second.with_cost) == (True, False)
    assert first.unprojected is None
    assert first.world_model is second.world_model is None


def test_a_twin_is_built_alike_and_only_the_planner_is_timed(monkeypatch):
    clock = SimpleNamespace(now=10.0)
    monkeypatch.setattr(tasks, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def make(assets, settings):
        clock.now += 0.25 if settings["project"] else 100.0
        return Built(assets, settings)

    planner = Planner("a", make, fixed={"project": True}, unprojected={"project": False})
    for _ in range(2):
        found = build(planner, {"steps": 2})
        assert found.optimizer.settings == {"steps": 2, "project": True}
        assert found.unprojected.settings == {"steps": 2, "project": False}
        assert found.build_ms == 250.0


def test_a_planner_that_cannot_be_built_says_why():
    planner = Planner("a", lambda assets, settings: Built(assets.path("bundle"), settings))
    with pytest.raises(ConfigError, match="bundle=None; give bundle"):
        build(planner, {})


def test_a_blurred_planner_and_its_twin_see_noise_through_their_own_world_model():
    planner = Planner("a", Built, unprojected={"project": False}, goal_noise=0.5)
    found = build(planner, {}, {None: "the race's", "file": "other"})
    other = build(planner.variant("b", world_model="file"), {}, {None: "race's", "file": "other"})
    assert (found.world_model, other.world_model) == (None, "other")
    for each, model in ((found, "the race's"), (other, "other")):
        for noisy in (each.optimizer, each.unprojected):
            assert (noisy.std, noisy.world_model, noisy.make_cost) == (0.5, model, "the cost")
        assert each.unprojected.optimizer.settings == {"project": False}


def test_the_noise_is_of_the_goal_and_of_the_problem_alone():
    goal = 3.0 + 2.0 * np.random.default_rng(0).standard_normal((1, 64, 32)).astype(np.float32)
    noise = noisy_goal(goal, 0.5, seed=7) - goal
    np.testing.assert_allclose(noise.std(), 0.5 * goal.std(), rtol=0.05)
    np.testing.assert_allclose(noise.mean(), 0.0, atol=0.1)
    np.testing.assert_array_equal(noisy_goal(goal, 0.5, seed=7) - goal, noise)
    np.testing.assert_allclose(noisy_goal(goal, 0.1, seed=7) - goal, noise / 5, atol=1e-5)
    assert np.abs(noisy_goal(goal, 0.5, seed=8) - goal - noise).max() > 0.1
    assert noise.dtype == np.float32


def test_context_and_cost_both_hold_the_noisy_goal():
    class Asks:
        def optimize(self, problem):
            self.problem = problem
            return problem.seed

    def make_cost(world_model, state, goal):
        return lambda candidates: (world_model, state, goal)

    state, goal = np.zeros((1, 2, 3)), np.arange(6.0).reshape(1, 2, 3)
    problem = PlanningProblem({"state": state, "goal": goal}, lambda c: c, None, 0.5, seed=4)
    asks = Asks()
    planner = NoisyGoal(asks, 0.2, "the model", make_cost)
    assert planner.optimize(problem) == 4
    seen = noisy_goal(goal, 0.2, 4)
    np.testing.assert_array_equal(asks.problem.context["goal"], seen)
    np.testing.assert_array_equal(asks.problem.context["state"], state)
    assert asks.problem.deadline_s == 0.5
    model, of_state, of_goal = asks.problem.cost(None)
    assert model == "the model"
    np.testing.assert_array_equal(of_state, state)
    np.testing.assert_array_equal(of_goal, seen)
    planner.optimize(PlanningProblem(problem.context, None, seed=4))
    assert asks.problem.cost is None  # a planner that ranks nothing is given nothing
    with pytest.raises(ContextError, match="seed"):
        planner.optimize(PlanningProblem(problem.context))
