"""One planning call from the inside: what a round re-noises, where it stops, what it reports."""

import numpy as np
import pytest
from builders.runtime import FREE, SCHEDULE, TARGET, TOUCH

from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost


class Watched(GaussianModel):
    """Remembers the timesteps it was asked about."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def denoise(self, sample, timestep, condition):
        self.seen.append(timestep)
        return super().denoise(sample, timestep, condition)


def make_optimizer(model, **settings):
    return DDIMOptimizer(model, **{"num_inference_steps": 4, "num_candidates": 8, **settings})


def recorded(rounds):
    """A quadratic cost that keeps the candidates of each round."""

    def cost(candidates):
        rounds.append(candidates)
        return QuadraticCost(TARGET)(candidates)

    return cost


def test_a_plan_cut_short_is_the_predicted_data_not_the_noisy_sample():
    model = GaussianModel(FREE, SCHEDULE, mean=0.25, std=0.0)
    problem = PlanningProblem(cost=QuadraticCost(TARGET), deadline_s=0.0)
    result = make_optimizer(model, project=False).optimize(problem)
    assert result.stopped_because == "deadline"
    np.testing.assert_allclose(result.actions, 0.25, atol=1e-6)


def test_a_refinement_stays_near_the_best_quarter():
    rounds = []
    model = GaussianModel(FREE, SCHEDULE, std=0.5)
    make_optimizer(model, num_refinements=1, refinement_strength=0.01).optimize(
        PlanningProblem(cost=recorded(rounds))
    )
    sampled, refined = rounds[0][0], rounds[1][0]
    order = np.argsort(QuadraticCost(TARGET)(sampled[None])[0])
    distance = np.abs(refined[:, None] - sampled[None]).mean(axis=(2, 3))
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 0.1
    assert set(nearest) == set(order[:2])


def test_the_elites_of_each_problem_are_its_own():
    rounds = []
    model = GaussianModel(FREE, SCHEDULE, std=0.5, conditional=True)
    target = np.stack([np.full((1, 6, 2), -0.5), np.full((1, 6, 2), 0.5)])

    def cost(candidates):
        rounds.append(candidates)
        return QuadraticCost(target)(candidates)

    make_optimizer(model, num_refinements=1, refinement_strength=0.01).optimize(
        PlanningProblem({"mean": np.array([[0.3], [-0.3]])}, cost)
    )
    for row, (sampled, refined) in enumerate(zip(*rounds, strict=True)):
        order = np.argsort(QuadraticCost(target[row])(sampled[None])[0])
        distance = np.abs(refined[:, None] - sampled[None]).mean(axis=(2, 3))
        assert distance.min(axis=1).max() < 0.1
        assert set(distance.argmin(axis=1)) == set(order[:2])


def test_a_warm_start_that_is_no_gesture_can_still_be_refined():
    model = GaussianModel(TOUCH, SCHEDULE, std=0.3)
    lifted = np.zeros((1, 10, 3), np.float32)

    def cost(candidates):
        return np.abs(candidates).sum(axis=(2, 3))

    result = make_optimizer(model, num_refinements=2).optimize(
        PlanningProblem(cost=cost, init_action=lifted)
    )
    np.testing.assert_array_equal(result.actions, lifted)
    np.testing.assert_array_equal(result.projection_distance, [0.0])


def test_samples_are_clipped_to_the_bounds_of_what_is_diffused():
    model = GaussianModel(FREE, SCHEDULE, mean=3.0, std=0.1)
    result = make_optimizer(model, project=False).optimize(PlanningProblem())
    assert result.actions.max() == 1.0
    assert result.actions.min() > 0.9


def test_the_projection_distance_is_that_of_the_returned_plan():
    kept = []
    held = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6, representation="held")
    model = GaussianModel(held, SCHEDULE, std=0.5)

    def cost(candidates):
        kept.append(candidates)
        return np.abs(candidates - 0.5).mean(axis=(2, 3))

    settings = {"num_candidates": 8, "seed": 5}
    raw = make_optimizer(model, project=False, **settings)
    projected = make_optimizer(model, **settings)
    raw.optimize(PlanningProblem(cost=cost))
    result = projected.optimize(PlanningProblem(cost=cost))
    before, after = kept
    moved = np.abs(after - before).max(axis=(2, 3))[0]
    best = np.flatnonzero((after[0] == result.actions[0]).all(axis=(1, 2)))[0]
    assert len(set(moved.round(6))) > 1
    assert result.projection_distance[0] == pytest.approx(moved[best], abs=1e-6)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_both_rounds_follow_the_spacing_that_was_asked_for(spacing):
    model = Watched(FREE, SCHEDULE, std=0.5)
    make_optimizer(
        model,
        num_inference_steps=7,
        num_refinements=1,
        refinement_strength=0.5,
        timestep_spacing=spacing,
    ).optimize(PlanningProblem(cost=QuadraticCost(TARGET)))
    whole = SCHEDULE.timesteps(7, spacing=spacing)
    middle = SCHEDULE.timesteps(4, spacing=spacing, start_timestep=50)
    assert model.seen == [timestep for timestep, _ in [*whole, *middle]]


def test_eta_adds_noise_that_is_drawn_from_the_seed():
    model = GaussianModel(FREE, SCHEDULE, std=0.5)

    def plan(eta, seed=1):
        return make_optimizer(model, eta=eta).optimize(PlanningProblem(seed=seed)).actions

    assert np.abs(plan(0.0) - plan(1.0)).max() > 0.01
    np.testing.assert_array_equal(plan(1.0), plan(1.0))
    assert np.abs(plan(1.0) - plan(1.0, seed=2)).max() > 0.01


def test_eta_noise_is_the_same_for_every_row_of_a_batch():
    model = GaussianModel(FREE, SCHEDULE, std=0.5, conditional=True)
    optimizer = make_optimizer(model, eta=1.0)
    shifts = np.array([[0.1], [-0.2], [0.1]])
    together = optimizer.optimize(PlanningProblem({"mean": shifts}))
    alone = optimizer.optimize(PlanningProblem({"mean": shifts[1:2]}))
    np.testing.assert_array_equal(together.actions[0], together.actions[2])
    np.testing.assert_array_equal(together.actions[1], alone.actions[0])


def test_two_presses_are_no_valid_gesture_even_where_any_path_is():
    spec = ActionSpec(
        action_block=10, min_press_steps=2, max_press_steps=9, path_knots=None, representation="raw"
    )
    actions = np.zeros((10, 3))
    actions[1:4] = actions[6:8] = 0.5, 0.5, 1.0
    assert not is_valid(actions, spec)
    actions[6:8] = 0.0
    assert is_valid(actions, spec)
