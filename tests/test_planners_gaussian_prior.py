"""The ranked Gaussian prior: its candidates redrawn by hand, its choice by brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.amortised import SPEC, make_context, make_model, make_predictor, taps

from vj2_ddim_benchmark.amortised.file import save_amortised
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.gaussian_prior import GaussianPriorOptimizer, gaussian_prior
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost

CONTEXT = make_context(4)
TARGETS = taps([[0.3, 0.6], [0.8, 0.1], [0.5, 0.5], [0.1, 0.9]])[:, None]


def make_planner(num_candidates=16, std_scale=1.0, seed=0):
    return GaussianPriorOptimizer(
        SPEC,
        make_predictor("gaussian"),
        num_candidates=num_candidates,
        std_scale=std_scale,
        seed=seed,
    )


class Seen:
    """A cost that remembers what it was asked."""

    def __init__(self, cost):
        self.cost, self.candidates = cost, []

    def __call__(self, candidates):
        self.candidates.append(candidates)
        return self.cost(candidates)

    @property
    def all(self):
        return np.concatenate(self.candidates, axis=1)


def solve(planner, rows=slice(None), **fields):
    seen = Seen(QuadraticCost(TARGETS[rows]))
    context = {name: array[rows] for name, array in CONTEXT.items()}
    return planner.optimize(PlanningProblem(context, seen, **fields)), seen


def test_the_cheapest_candidate_is_the_plan():
    result, seen = solve(make_planner())
    assert seen.all.shape[:2] == (4, 16)
    costs = QuadraticCost(TARGETS)(seen.all)
    chosen = costs.argmin(axis=1)
    assert (chosen > 0).any()  # the mean is not always best
    np.testing.assert_array_equal(result.actions, seen.all[np.arange(4), chosen])
    np.testing.assert_array_equal(result.cost, costs.min(axis=1))
    assert SPEC.is_valid(seen.all).all()  # what is ranked is what is done


def test_the_accounts():
    result, _ = solve(make_planner())
    np.testing.assert_array_equal(
        result.cost, QuadraticCost(TARGETS)(result.actions[:, None])[:, 0]
    )
    np.testing.assert_array_equal(result.history, result.cost[None])
    assert (result.num_cost_evaluations, result.num_denoiser_evaluations) == (64, 0)
    assert (result.provider, result.stopped_because) == ("torch-cpu", "finished")
    phases = result.wall_time_s
    assert 0 < phases["predict"] + phases["cost"] <= phases["total"]
    np.testing.assert_allclose(SPEC.project(result.unprojected_actions), result.actions, atol=1e-6)
    moved = np.abs(result.actions - result.unprojected_actions).max(axis=(1, 2))
    np.testing.assert_array_equal(result.projection_distance, moved)
    assert isinstance(make_planner(), ActionOptimizer)


def test_candidates_are_the_mean_and_then_samples_of_the_predicted_gaussian():
    """Of the starting points: read off the plans, before time rounds and projection moves them."""
    model = make_model("gaussian")
    with torch.no_grad():  # far within the bounds, so that nothing is clipped
        model.head[-2].weight *= 0.05
        model.head[-2].bias[6:] = -2.0
        mean, log_std = model(*(torch.from_numpy(CONTEXT[name]) for name in ("state", "goal")))
    predictor = make_predictor("gaussian")
    predictor.model.load_state_dict(model.state_dict())
    drawn = []
    decode = SPEC.__class__.decode

    class Recording(SPEC.__class__):
        def decode(self, diffused):
            drawn.append(diffused)
            return decode(self, diffused)

    predictor.action_spec = Recording(**SPEC.to_dict())
    planner = GaussianPriorOptimizer(SPEC, predictor, num_candidates=4001, std_scale=0.5)
    planner.optimize(PlanningProblem(CONTEXT, QuadraticCost(TARGETS)))
    (candidates,) = drawn
    np.testing.assert_allclose(candidates[:, 0], mean, atol=1e-6)
    std = 0.5 * log_std.exp().numpy()
    standing = (candidates[:, 1:] - mean.numpy()[:, None]) / std[:, None]
    np.testing.assert_allclose(standing.mean(axis=1), 0, atol=0.08)  # 5 standard errors
    np.testing.assert_allclose(standing.std(axis=1), 1, atol=0.06)
    np.testing.assert_allclose(standing[0], standing[1], atol=1e-3)  # one noise for all problems


def test_without_spread_every_candidate_is_the_mean():
    _, seen = solve(make_planner(4, std_scale=0.0))
    np.testing.assert_array_equal(seen.all, np.repeat(seen.all[:, :1], 4, axis=1))
    mean = make_planner().optimize(PlanningProblem(CONTEXT)).actions
    np.testing.assert_array_equal(seen.all[:, 0], mean)


def test_without_a_cost_the_mean_is_the_plan():
    result = make_planner().optimize(PlanningProblem(CONTEXT))
    assert np.isnan(result.cost).all()
    assert result.num_cost_evaluations == 0
    ranked, _ = solve(make_planner(1))
    np.testing.assert_array_equal(result.actions, ranked.actions)


def test_a_plan_does_not_depend_on_its_batch():
    planner = make_planner()
    together, _ = solve(planner)
    for row in range(4):
        alone, _ = solve(planner, slice(row, row + 1))
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])
        assert alone.cost[0] == together.cost[row]


def test_the_same_seed_gives_the_same_plan():
    (first, seen), (again, _) = solve(make_planner(seed=1)), solve(make_planner(seed=1))
    np.testing.assert_array_equal(first.actions, again.actions)
    own, _ = solve(make_planner(seed=7), seed=1)  # the problem's own seed comes first
    np.testing.assert_array_equal(first.actions, own.actions)
    _, other = solve(make_planner(seed=2))
    np.testing.assert_array_equal(seen.all[:, 0], other.all[:, 0])
    assert (seen.all[:, 1:] != other.all[:, 1:]).any()


def test_a_warm_start_is_one_candidate_more():
    result, seen = solve(make_planner(), init_action=TARGETS[:, 0])
    np.testing.assert_array_equal(seen.all[:, 0], TARGETS[:, 0])
    assert result.num_cost_evaluations == 4 * 17
    np.testing.assert_array_equal(result.actions, TARGETS[:, 0])


def test_a_deadline_that_has_passed_leaves_the_first_candidates():
    result, seen = solve(make_planner(64), deadline_s=0.0)
    assert result.stopped_because == "deadline"
    assert seen.all.shape[1] < 64
    costs = QuadraticCost(TARGETS)(seen.all)
    np.testing.assert_array_equal(result.cost, costs.min(axis=1))
    assert result.num_cost_evaluations == costs.size


@pytest.mark.parametrize("cost", [None, QuadraticCost(TARGETS)])
def test_what_it_cannot_keep_is_refused(cost):
    with pytest.raises(ContextError, match="the Gaussian prior keeps neither"):
        make_planner().optimize(PlanningProblem(CONTEXT, cost, constraints=PlanConstraints()))
    with pytest.raises(ContextError, match=r"context has \[\]"):
        make_planner().optimize(PlanningProblem({}, cost))


@pytest.mark.parametrize(
    "settings", [{"num_candidates": 0}, {"std_scale": -0.1}, {"std_scale": np.nan}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make_planner(**settings)


def test_it_is_built_from_its_file(tmp_path):
    path = tmp_path / "gaussian.pt"
    model = make_model("gaussian")
    save_amortised(model, path, data_fingerprint="", training={}, provenance={})
    entry = gaussian_prior(16)
    assert (entry.name, entry.with_cost) == ("gaussian-prior-16", True)
    assert 1.0 in entry.search_space["std_scale"]
    built = entry.build(BuildAssets(SPEC, gaussian=path, seed=3), {"std_scale": 0.5})
    found, _ = solve(built)
    expected, _ = solve(make_planner(16, 0.5, seed=3))
    np.testing.assert_allclose(
        found.actions, expected.actions, atol=2e-3
    )  # a file is in half precision


def test_without_its_file_it_says_what_is_missing():
    with pytest.raises(ConfigError, match="give gaussian"):
        gaussian_prior(4).build(BuildAssets(SPEC, regression=Path("model.pt")), {"std_scale": 1.0})
