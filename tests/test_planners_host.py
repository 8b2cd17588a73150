"""The host planner, the random gestures, and the registry."""

import numpy as np
import pytest
import torch

from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.host import latent_torch_cost, plan, planning_problem
from vj2_ddim_benchmark.planners.random_gestures import RandomGesturesOptimizer
from vj2_ddim_benchmark.planners.registry import REGISTRY, entries_of
from vj2_ddim_benchmark.planners.starts import any_gestures
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.cost import LatentCost
from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.testing import QuadraticCost

SPEC = ActionSpec(max_press_steps=200, path_knots=3)  # what the touch screen's gestures need


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
    result = plan(
        echo,
        Encoder(),
        start,
        goal,
        init_action=warm,
        deadline_s=5.0,
        seed=4,
        make_cost=make_cost,
    )
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


def test_a_planner_can_be_denied_the_cost():
    problem = planning_problem(Encoder(), *frames(), with_cost=False)
    assert problem.cost is None


def test_frames_must_pair_up():
    start, goal = frames()
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
    model = WorldModel.create(WorldModelConfig(), encoder).eval()
    torch.nn.init.normal_(model.predictor.write.weight)
    problem = planning_problem(model, pictures[:2], pictures[2:4])
    assert isinstance(problem.cost, LatentCost)
    candidates = (
        REGISTRY[-1].build(BuildAssets(SPEC), {}).draw_gestures(6, np.random.default_rng(0))
    )
    candidates = candidates.reshape(2, 3, 250, 3)
    actions = torch.tensor(candidates, requires_grad=True)
    value = latent_torch_cost(problem)(actions)
    np.testing.assert_allclose(value.detach().numpy(), problem.cost(candidates), rtol=1e-4)
    (gradient,) = torch.autograd.grad(value.sum(), actions)
    assert (gradient.abs().amax(dim=(2, 3)) > 0).all()


def test_random_gestures_returns_the_cheapest_of_its_draws():
    cost = QuadraticCost(np.full((250, 3), 0.5))
    planner = RandomGesturesOptimizer(SPEC, num_candidates=20)
    result = planner.optimize(PlanningProblem(cost=cost, batch_size=2, seed=3))
    drawn = planner.draw_gestures(20, np.random.default_rng(3))
    costs = cost(drawn[None])[0]
    np.testing.assert_array_equal(result.actions, np.repeat(drawn[[costs.argmin()]], 2, axis=0))
    np.testing.assert_allclose(result.cost, costs.min())
    assert result.num_cost_evaluations == 40
    assert SPEC.is_valid(result.actions).all()


def test_random_gestures_keeps_a_warm_start_that_is_best():
    target = RandomGesturesOptimizer(SPEC).draw_gestures(1, np.random.default_rng(9))
    result = RandomGesturesOptimizer(SPEC).optimize(
        PlanningProblem(cost=QuadraticCost(target[0]), init_action=target)
    )
    np.testing.assert_array_equal(result.actions, target)


def test_random_gestures_of_a_problem_do_not_depend_on_its_batch():
    wanted = any_gestures(3, np.random.default_rng(1))[:, None]
    planner = RandomGesturesOptimizer(SPEC, num_candidates=20)
    together = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=3, seed=3))
    for row in range(3):
        alone = QuadraticCost(wanted[row : row + 1])
        result = planner.optimize(PlanningProblem(cost=alone, batch_size=1, seed=3))
        np.testing.assert_array_equal(result.actions[0], together.actions[row])
        np.testing.assert_allclose(result.cost[0], together.cost[row])
    assert np.abs(together.actions[0] - together.actions[1]).max() > 0  # each its own argmin


def test_names_are_unique():
    names = [entry.name for entry in REGISTRY]
    assert len(set(names)) == len(names)


WITHOUT_FILES = ("ddim", "gaussian", "retrieval")  # what these are built from is not at hand here


@pytest.mark.parametrize(
    "entry",
    [e for e in REGISTRY if e.search_space and not e.name.startswith(WITHOUT_FILES)],
    ids=lambda e: e.name,
)
def test_every_setting_of_a_search_space_builds(entry):
    for name, values in entry.search_space.items():
        first = {key: options[0] for key, options in entry.search_space.items()}
        for value in values:
            built = entry.build(BuildAssets(SPEC), {**first, name: value})
            assert getattr(built, name) == value


def test_entries_are_chosen_by_name_in_the_order_of_the_registry():
    chosen = entries_of(["random-gestures-16", "ddim-1"])
    assert [entry.name for entry in chosen] == ["ddim-1", "random-gestures-16"]
    assert entries_of(latents=True) == REGISTRY
    assert entries_of() == tuple(entry for entry in REGISTRY if "latents" not in entry.needs)
    quick = entries_of(quick=True)
    assert 0 < len(quick) < len(REGISTRY)
    assert all(entry.in_quick for entry in quick)
    with pytest.raises(ConfigError, match="'cem' is unknown"):
        entries_of(["cem"])


def test_ddim_without_a_bundle_says_what_to_pass():
    with pytest.raises(ConfigError, match="bundle=None; give bundle"):
        entries_of(["ddim-16"])[0].build(BuildAssets(SPEC), {})
