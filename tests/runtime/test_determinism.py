"""The same seed gives the same plan, whatever else is going on."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vj2_ddim_plugin.interface import PlanConstraints, PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel

SPEC = ActionSpec(action_block=12, min_press_steps=2, max_press_steps=6)
MEANS = np.linspace(-0.4, 0.4, 5, dtype=np.float32)[:, None]
SETTINGS = {"plain": {}, "everything on": {"eta": 1.0, "num_refinements": 2, "guidance_scale": 1.5}}


def make_optimizer(**settings):
    schedule = NoiseSchedule("cosine", "v_prediction", num_train_timesteps=50)
    model = GaussianModel(SPEC, schedule, 0.0, 0.6, conditional=True)
    return DDIMOptimizer(model, num_inference_steps=4, num_candidates=6, **settings)


def cost(candidates):
    return np.mean((candidates - 0.3) ** 2, axis=(2, 3))


def plan(optimizer, means=MEANS, **problem):
    return optimizer.optimize(PlanningProblem({"mean": means}, **{"cost": cost, **problem}))


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS)
def optimizer(request):
    return make_optimizer(**request.param)


def assert_same(first, second):
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.cost, second.cost)
    np.testing.assert_array_equal(first.history, second.history)


def test_the_same_seed_gives_the_same_plan_again_and_anew(optimizer):
    first = plan(optimizer, seed=7)
    assert_same(first, plan(optimizer, seed=7))
    settings = {name: getattr(optimizer.settings, name) for name in SETTINGS["everything on"]}
    assert_same(first, plan(make_optimizer(**settings, seed=99), seed=7))


def test_the_optimizers_seed_is_used_where_the_problem_brings_none():
    assert_same(plan(make_optimizer(seed=7)), plan(make_optimizer(), seed=7))


def test_another_seed_gives_another_plan(optimizer):
    first, second = (plan(optimizer, seed=seed) for seed in (7, 8))
    assert (first.actions != second.actions).any(axis=(1, 2)).all()


@pytest.mark.parametrize("costly", [True, False])
def test_a_plan_does_not_depend_on_its_batch_mates_or_their_order(optimizer, costly):
    together = plan(optimizer, cost=cost if costly else None)
    for row in range(5):
        alone = plan(optimizer, MEANS[row : row + 1], cost=cost if costly else None)
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])
        np.testing.assert_array_equal(alone.history[:, 0], together.history[:, row])
    order = np.array([3, 0, 4, 2, 1])
    shuffled = plan(optimizer, MEANS[order], cost=cost if costly else None)
    np.testing.assert_array_equal(shuffled.actions, together.actions[order])


def test_equal_problems_of_a_batch_get_equal_plans(optimizer):
    result = plan(optimizer, np.repeat(MEANS[:1], 3, axis=0))
    np.testing.assert_array_equal(result.actions[0], result.actions[1])
    np.testing.assert_array_equal(result.actions[0], result.actions[2])


def test_eight_threads_give_the_plans_that_one_gives(optimizer):
    def one(seed):
        return plan(optimizer, seed=seed)

    alone = [one(seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, range(16)))
    for first, second in zip(alone, together, strict=True):
        assert_same(first, second)
        assert first.num_denoiser_evaluations == second.num_denoiser_evaluations


def test_the_global_random_state_is_neither_read_nor_written(optimizer):
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = plan(optimizer)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert_same(first, plan(optimizer))


def test_known_beginnings_warm_starts_and_constraints_leave_a_plan_its_own(optimizer):
    """Each problem has its own; what the others bring must not matter."""
    warm = np.zeros((5, 12, 3), np.float32)
    for row in range(5):
        warm[row, row : row + 4] = (0.1 * row, 0.5, 1.0)
    fields = {"init_action": warm, "frozen_action": warm[:, :3]}
    constraints = PlanConstraints(forbidden=[(0.6, 0.0, 0.8, 1.0)])
    together = plan(optimizer, constraints=constraints, **fields)
    for row in range(5):
        own = {name: array[row : row + 1] for name, array in fields.items()}
        alone = plan(optimizer, MEANS[row : row + 1], constraints=constraints, **own)
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])


def test_what_others_have_fixed_does_not_matter(optimizer):
    fixed = np.full((5, 12, 3), np.nan, np.float32)
    fixed[0, 4] = (0.5, 0.5, 1.0)
    fixed[3, :2] = 0.0
    together = plan(optimizer, constraints=PlanConstraints(fixed=fixed))
    for row in range(5):
        constraints = PlanConstraints(fixed=fixed[row : row + 1])
        alone = plan(optimizer, MEANS[row : row + 1], constraints=constraints)
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])
