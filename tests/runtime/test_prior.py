"""What the denoiser takes for likely, as a part of the choice: by closed forms and brute force."""

from dataclasses import replace

import numpy as np
import pytest
from builders.runtime import FREE, SCHEDULE

from vj2_ddim_plugin.ddim import denoising_loss
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning.deadline import Deadline
from vj2_ddim_plugin.planning.ranking import standardised
from vj2_ddim_plugin.schedule import PREDICTION_TYPES, NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel

MEAN, STD = 0.1, 0.5


class Asked:
    """A cost that says nothing of the prior, and keeps what it was asked about."""

    def __init__(self):
        self.candidates = []

    def __call__(self, candidates):
        self.candidates.append(candidates)
        return np.sin(40.0 * candidates).sum(axis=(2, 3))


def make(model=None, **settings):
    model = model or GaussianModel(FREE, SCHEDULE, MEAN, STD)
    return DDIMOptimizer(model, num_inference_steps=5, num_candidates=16, **settings)


def unlikely(candidates):
    """How far from the data's mean: up to two constants, minus their log density."""
    return np.square(candidates - MEAN).sum(axis=(2, 3))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_exact_denoisers_loss_falls_with_the_density_by_a_known_factor(prediction_type):
    schedule = NoiseSchedule(prediction_type=prediction_type)
    model, rng, timestep = GaussianModel(FREE, schedule, MEAN, STD), np.random.default_rng(0), 400
    data, noise = rng.normal(size=(2, 7, 6, 2))
    noise[:] = noise[0]
    loss = denoising_loss(
        lambda sample, at: model.denoise(sample, at, None), data, noise, [timestep], schedule
    )
    alpha = schedule.alpha_cumprod(timestep)
    # of an error in x0, in the units of what is predicted
    factor = {"sample": 1.0, "epsilon": alpha / (1 - alpha), "v_prediction": 1 / (1 - alpha)}
    lost = (1 - alpha) / (alpha * STD**2 + 1 - alpha)  # share of x0 - mean that is not recovered
    gained = np.sqrt(alpha) * STD**2 / (alpha * STD**2 + 1 - alpha) * np.sqrt(1 - alpha)
    error = lost**2 * np.square(data - MEAN) + gained**2 * np.square(noise)
    expected = factor[prediction_type] * error.mean(axis=(1, 2))
    np.testing.assert_allclose(loss, expected, rtol=1e-10)


@pytest.mark.parametrize("weight", [0.3, 1.0, 100.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_plan_is_the_best_of_cost_and_density_together(batch, weight):
    asked = Asked()
    result = make(prior_weight=weight).optimize(
        PlanningProblem({}, cost=asked, batch_size=batch, seed=22)
    )
    (candidates,) = asked.candidates
    cost, far = asked(candidates), unlikely(candidates)
    together = sum(
        share * (each - each.mean(axis=1, keepdims=True)) / each.std(axis=1, keepdims=True)
        for share, each in ((1.0, cost), (weight, far))
    )
    rows, best = np.arange(batch), together.argmin(axis=1)
    assert (best != cost.argmin(axis=1)).all()  # else the case shows nothing
    np.testing.assert_array_equal(result.actions, candidates[rows, best])
    np.testing.assert_allclose(result.cost, cost[rows, best])
    assert result.num_cost_evaluations == batch * 16
    assert result.num_denoiser_evaluations == batch * 16 * (5 + 6)
    if weight == 100.0:
        np.testing.assert_array_equal(best, far.argmin(axis=1))


def test_guidance_is_of_the_samples_alone_and_a_plan_does_not_depend_on_its_batch():
    model = GaussianModel(FREE, SCHEDULE, MEAN, STD, conditional=True)
    optimizer = make(model, prior_weight=2.0, guidance_scale=3.0)
    means = np.array([[0.0], [0.2], [-0.3]], np.float32)
    asked, problem = Asked(), {"seed": 5}
    together = optimizer.optimize(PlanningProblem({"mean": means}, cost=asked, **problem))
    assert together.num_denoiser_evaluations == 3 * 16 * (2 * 5 + 6)
    for row, mean in enumerate(means):
        alone = optimizer.optimize(PlanningProblem({"mean": mean[None]}, cost=asked, **problem))
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])
    (candidates, *_) = asked.candidates
    far = np.square(candidates - MEAN - means[:, :, None, None]).sum(axis=(2, 3))
    merit = standardised(asked(candidates)) + 2.0 * standardised(far)
    np.testing.assert_array_equal(together.actions, candidates[range(3), merit.argmin(axis=1)])


def test_beside_the_worst_cost_of_the_cheapest_it_chooses_among_those():
    def plan(**settings):
        problem = PlanningProblem({}, cost=(asked := Asked()), batch_size=1, seed=3)
        return make(num_robust=4, **settings).optimize(problem), asked.candidates[0]

    (robust, candidates), (both, same) = plan(), plan(prior_weight=100.0)
    np.testing.assert_array_equal(candidates, same)
    cheapest = np.argsort(Asked()(candidates)[0], kind="stable")[:4]
    likeliest = cheapest[unlikely(candidates)[0, cheapest].argmin()]
    np.testing.assert_array_equal(both.actions[0], candidates[0, likeliest])
    assert not np.array_equal(robust.actions, both.actions)


def test_where_there_is_no_cost_or_no_time_nothing_is_asked(monkeypatch):
    plain, weighed = make(), make(prior_weight=1.0)
    nothing = PlanningProblem({}, batch_size=1, seed=3)
    same = [each.optimize(nothing) for each in (plain, weighed)]
    np.testing.assert_array_equal(same[0].actions, same[1].actions)
    assert same[0].num_denoiser_evaluations == same[1].num_denoiser_evaluations

    def allows(self, *operations):
        return operations[0] != ("denoise", 16, 6)

    monkeypatch.setattr(Deadline, "allows", allows)
    hurried = PlanningProblem({}, cost=Asked(), batch_size=1, seed=3, deadline_s=60)
    same = [each.optimize(hurried) for each in (plain, weighed)]
    np.testing.assert_array_equal(same[0].actions, same[1].actions)


def test_candidates_that_break_the_constraints_are_never_the_plan():
    scores = standardised(np.array([[1.0, np.inf, 3.0], [2.0, 2.0, np.inf]]))
    np.testing.assert_array_equal(scores, [[-1.0, np.inf, 1.0], [0.0, 0.0, np.inf]])


@pytest.mark.parametrize("weight", [-0.1, np.nan, 101.0])
def test_settings_out_of_range_are_refused(weight):
    with pytest.raises(ConfigError, match="prior_weight must be"):
        make(prior_weight=weight)


def test_settings_without_it_are_written_as_before():
    settings = make().settings
    assert "prior_weight" not in settings.to_dict()
    assert replace(settings, prior_weight=0.3).to_dict()["prior_weight"] == 0.3
