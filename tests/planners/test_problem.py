"""From two pictures to a problem and its plan; the random gestures, ranked."""

import numpy as np
import pytest
import torch
from builders.planners import SPEC

from vj2_ddim_benchmark.planners.gradient_descent import latent_torch_cost
from vj2_ddim_benchmark.planners.population import RandomGestures, RandomGesturesOptimizer
from vj2_ddim_benchmark.race.tasks import plan, planning_problem
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_benchmark.world_model.networks import PatchEncoder
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.testing import QuadraticCost


class Encoder:
    """A world model that can only see: the picture's mean color, as one token."""

    def encode(self, frames):
        return frames.mean(axis=(1, 2))[:, None].astype(np.float32)


class Echo:
    """An optimizer that keeps the problem and returns nothing of interest."""

    def optimize(self, problem):
        self.problem = problem
        batch = len(problem.context["state"])
        zeros = np.zeros(batch)
        return PlanResult(
            np.zeros((batch, 250, 3)), zeros, zeros[None], 0, 0, {"total": 0.0}, "echo", "finished",
            zeros,
        )  # fmt: skip


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
