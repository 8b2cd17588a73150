"""From a description to a planner, and from pictures to a problem and its plan; blurred goals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.planners import SPEC
from builders.race import answer

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets
from vj2_ddim_benchmark.planners.gradient_descent import latent_torch_cost
from vj2_ddim_benchmark.planners.population import RandomGestures, RandomGesturesOptimizer
from vj2_ddim_benchmark.race import tasks
from vj2_ddim_benchmark.race.tasks import NoisyGoal, make_ready, noisy_goal, plan, planning_problem
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoders import PatchEncoder
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import QuadraticCost

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


class Encoder:
    """A world model that can only see: the picture's mean color, as one token."""

    def encode(self, frames):
        return frames.mean(axis=(1, 2))[:, None].astype(np.float32)


class Echo:
    """An optimizer that keeps the problem and returns nothing of interest."""

    def optimize(self, problem):
        self.problem = problem
        batch = len(problem.context["state"])
        return answer(np.zeros((batch, 250, 3)), batch)


def make_cost(world_model, state, goal):
    return lambda candidates: (
        np.abs(goal - state).sum(axis=(1, 2))[:, None] + 0 * candidates[..., 0, 0]
    )


def frames(num=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, num, 8, 8, 3), dtype=np.uint8)


def test_the_optimizer_gets_latents_a_cost_and_the_settings():
    start, goal = frames()
    echo, warm = Echo(), np.ones((3, 250, 3))
    asked = {"init_action": warm, "deadline_s": 5.0, "seed": 4, "make_cost": make_cost}
    result = plan(echo, Encoder(), start, goal, **asked)
    context = echo.problem.context
    assert set(context) == {"state", "goal"}
    np.testing.assert_allclose(context["state"][:, 0], start.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(context["goal"][:, 0], goal.mean(axis=(1, 2)), rtol=1e-6)
    expected = np.abs(context["goal"] - context["state"]).sum(axis=(1, 2))
    np.testing.assert_allclose(echo.problem.cost(warm[:, None])[:, 0], expected)
    assert echo.problem.seed == 4
    assert echo.problem.init_action is warm
    assert 4.0 < echo.problem.deadline_s <= 5.0
    assert result.wall_time_s["total"] >= result.wall_time_s["encode"] > 0.0


def test_a_planner_can_be_denied_the_cost_and_frames_must_pair_up():
    start, goal = frames()
    assert planning_problem(Encoder(), start, goal, with_cost=False).cost is None
    with pytest.raises(ContextError, match="frames"):
        plan(Echo(), Encoder(), start, goal[:1])


def test_only_a_latent_cost_has_a_gradient():
    with pytest.raises(ContextError, match="LatentCost"):
        latent_torch_cost(PlanningProblem(cost=QuadraticCost(np.zeros((250, 3)))))


def test_the_torch_side_is_the_cost_and_has_a_gradient():
    screens = TouchScreen.generate(40, split="train", seed=0)
    pictures = screens.render()
    encoder = PatchEncoder.fit(pictures, patch_size=8, token_dim=32)
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(), encoder).eval()
    torch.nn.init.normal_(model.predictor.write.weight)
    problem = planning_problem(model, pictures[:2], pictures[2:4])
    assert isinstance(problem.cost, LatentCost)
    candidates = random_policy(6, np.random.default_rng(0)).reshape(2, 3, 250, 3)
    actions = torch.tensor(candidates, requires_grad=True)
    value = latent_torch_cost(problem)(actions)
    np.testing.assert_allclose(value.detach().numpy(), problem.cost(candidates), rtol=1e-4)
    (gradient,) = torch.autograd.grad(value.sum(), actions)
    assert (gradient.abs().amax(dim=(2, 3)) > 0).all()


def test_random_gestures_returns_the_cheapest_of_its_draws():
    cost = QuadraticCost(np.full((250, 3), 0.5))
    planner = RandomGesturesOptimizer(SPEC, RandomGestures(num_candidates=20))
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=2, seed=3))
    drawn = random_policy(20, np.random.default_rng(3))
    costs = cost(drawn[None])[0]
    np.testing.assert_array_equal(result.actions, np.repeat(drawn[[costs.argmin()]], 2, axis=0))
    np.testing.assert_allclose(result.cost, costs.min())
    assert result.num_cost_evaluations == 40
