"""Regression and the Gaussian prior: plans from what a model predicts, redrawn by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.amortised import SPEC, make_context, make_model, save, taps
from builders.planners import Watching, amortised

from vj2_ddim_benchmark.amortised.base import Sampling
from vj2_ddim_benchmark.planners import amortised as module
from vj2_ddim_benchmark.planners.amortised import AmortisedOptimizer
from vj2_ddim_benchmark.planners.description import PlannerAssets
from vj2_ddim_benchmark.planners.registry import WITH_RIVALS, planners_of
from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanConstraints, PlanningProblem
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import QuadraticCost

CONTEXT = make_context(4)
TARGETS = taps([[0.3, 0.6], [0.8, 0.1], [0.5, 0.5], [0.1, 0.9]])[:, None]
KINDS = ("regression", "gaussian")


def solve(planner, **fields):
    cost = Watching(QuadraticCost(TARGETS))
    return planner.optimize(PlanningProblem(CONTEXT, cost, **fields)), cost


def predicted_mean(model):
    """The network asked directly, `[B, M, C]`, kept within the bounds of the array."""
    with torch.no_grad():
        mean, _ = model(*(torch.from_numpy(CONTEXT[name]) for name in ("state", "goal")))
    return np.clip(mean.numpy(), *gestures.diffused_bounds(SPEC)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_cost_the_plan_is_the_mean_decoded_and_projected(kind):
    planner = amortised(kind)
    with torch.no_grad():  # presses that are too short, in places
        planner.model.head[-2].bias[5] -= 0.5
    result = planner.optimize(PlanningProblem(CONTEXT))
    drawn = gestures.decode(predicted_mean(planner.model), SPEC)
    np.testing.assert_allclose(result.unprojected_actions, drawn, atol=1e-5)
    np.testing.assert_allclose(result.actions, gestures.project(drawn, SPEC), atol=1e-5)
    assert gestures.is_valid(result.actions, SPEC).all()
    moved = np.abs(result.actions - result.unprojected_actions).max(axis=(1, 2))
    np.testing.assert_array_equal(result.projection_distance, moved)
    assert moved.max() > 0  # projection had something to do


def test_the_accounts_of_a_plan_that_asks_no_cost():
    result = amortised("regression").optimize(PlanningProblem(CONTEXT, deadline_s=60.0))
    assert np.isnan(result.cost).all()
    assert result.cost.shape == (4,)
    assert result.history.shape == (0, 4)
    assert (result.num_cost_evaluations, result.num_denoiser_evaluations) == (0, 0)
    assert (result.provider, result.stopped_because) == ("torch-cpu", "finished")
    assert 0 < result.wall_time_s["predict"] <= result.wall_time_s["total"]
    late = amortised("regression").optimize(PlanningProblem(CONTEXT, deadline_s=0.0))
    assert late.stopped_because == "deadline"
    assert gestures.is_valid(late.actions, SPEC).all()
    cost = QuadraticCost(TARGETS)  # with one it is that of the same plan
    ranked = amortised("regression").optimize(PlanningProblem(CONTEXT, cost))
    np.testing.assert_array_equal(ranked.actions, result.actions)
    np.testing.assert_array_equal(ranked.cost, cost(result.actions[:, None])[:, 0])
    assert (ranked.num_cost_evaluations, ranked.provider) == (4, "torch-cpu")


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (PlanningProblem({"state": CONTEXT["state"]}), r"context has \['state'\]"),
        (PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"][:, :3]}), "context 'goal' has shape"),
        (PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"][:2]}), "batch sizes disagree"),
        (PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"] * np.nan}), "NaN"),
        (PlanningProblem({}), r"context has \[\]"),
        (PlanningProblem(CONTEXT, constraints=PlanConstraints()), "{} keeps neither"),
        (PlanningProblem(CONTEXT, frozen_action=np.zeros((4, 2, 3))), "{} keeps neither"),
    ],
)
@pytest.mark.parametrize("cost", [None, QuadraticCost(np.zeros((20, 3)))])
@pytest.mark.parametrize(
    ("kind", "name"), [("regression", "regression"), ("gaussian", "Gaussian prior")]
)
def test_what_does_not_fit_is_refused(problem, message, cost, kind, name):
    with pytest.raises(ContextError, match=message.format(name)):
        amortised(kind).optimize(replace(problem, cost=cost))


def test_the_gaussian_prior_ranks_its_candidates():
    result, seen = solve(amortised("gaussian", num_candidates=16))
    assert seen.all.shape[:2] == (4, 16)
    assert (QuadraticCost(TARGETS)(seen.all).argmin(axis=1) > 0).any()  # not always the mean
    np.testing.assert_array_equal(result.history, result.cost[None])
    assert (result.num_cost_evaluations, result.provider) == (64, "torch-cpu")
    assert result.wall_time_s["predict"] + result.wall_time_s["cost"] > 0
    result, _ = solve(amortised("gaussian", num_candidates=16), init_action=TARGETS[:, 0])
    assert result.num_cost_evaluations == 4 * 17


def test_candidates_are_the_mean_and_then_samples_of_the_predicted_gaussian(monkeypatch):
    """Of the starting points: read off the plans, before time rounds and projection moves them."""
    model = make_model("gaussian")
    with torch.no_grad():  # far within the bounds, so that nothing is clipped
        model.head[-2].weight *= 0.05
        model.head[-2].bias[6:] = -2.0
        mean, log_std = model(*(torch.from_numpy(CONTEXT[name]) for name in ("state", "goal")))
    drawn = []

    def decode(diffused, spec):
        drawn.append(diffused)
        return gestures.decode(diffused, spec)

    monkeypatch.setattr(module, "decode", decode)
    planner = AmortisedOptimizer(SPEC, model, Sampling(num_candidates=4001, std_scale=0.5))
    planner.optimize(PlanningProblem(CONTEXT, QuadraticCost(TARGETS)))
    (candidates,) = drawn
    np.testing.assert_allclose(candidates[:, 0], mean, atol=1e-6)
    std = 0.5 * log_std.exp().numpy()
    standing = (candidates[:, 1:] - mean.numpy()[:, None]) / std[:, None]
    np.testing.assert_allclose(standing.mean(axis=1), 0, atol=0.08)  # 5 standard errors
    np.testing.assert_allclose(standing.std(axis=1), 1, atol=0.06)
    np.testing.assert_allclose(standing[0], standing[1], atol=1e-3)  # one noise for all problems


def test_without_spread_every_candidate_is_the_mean_whatever_the_seed():
    _, seen = solve(amortised("gaussian", num_candidates=4, std_scale=0.0))
    np.testing.assert_array_equal(seen.all, np.repeat(seen.all[:, :1], 4, axis=1))
    mean = amortised("gaussian").optimize(PlanningProblem(CONTEXT)).actions
    np.testing.assert_array_equal(seen.all[:, 0], mean)
    (_, seen), (_, other) = (
        solve(amortised("gaussian", num_candidates=16, seed=seed)) for seed in (1, 2)
    )
    np.testing.assert_array_equal(seen.all[:, 0], other.all[:, 0])
    assert (seen.all[:, 1:] != other.all[:, 1:]).any()


@pytest.mark.parametrize(
    ("name", "kind", "tuned", "settings"),
    [
        ("regression", "regression", {}, {}),
        ("gaussian-prior-16", "gaussian", {"std_scale": 0.5},
         {"num_candidates": 16, "std_scale": 0.5, "seed": 3}),
        ("regression-16", "regression", {"std_scale": 0.1},
         {"num_candidates": 16, "std_scale": 0.1, "seed": 3}),
        ("mixture-1", "mixture", {"std_scale": 0.5, "greedy": False},
         {"std_scale": 0.5, "greedy": False, "seed": 3}),
        ("flow-16", "flow", {"guidance_scale": 1.5, "std_scale": 0.5},
         {"num_candidates": 16, "guidance_scale": 1.5, "std_scale": 0.5, "seed": 3}),
    ],
)  # fmt: skip
def test_they_are_built_from_their_files(tmp_path, name, kind, tuned, settings):
    (planner,) = planners_of([name], rows=WITH_RIVALS)
    path = save(make_model(kind, seed=4), tmp_path / "model.pt")
    built = planner.build(PlannerAssets(SPEC, seed=3, amortised={kind: path}), tuned)
    by_hand = AmortisedOptimizer(SPEC, make_model(kind, seed=4), Sampling(**settings))
    with pytest.raises(ConfigError, match=r"plans 20 actions.*needs 250"):
        planner.build(PlannerAssets(ActionSpec(), seed=3, amortised={kind: path}), tuned)
    found, expected = (solve(each)[0] for each in (built, by_hand))
    np.testing.assert_allclose(found.actions, expected.actions, atol=2e-3)  # half precision
    other = save(make_model({"regression": "gaussian"}.get(kind, "regression")), path)
    with pytest.raises(CheckpointError, match=f"expected {kind!r}"):
        planner.build(PlannerAssets(SPEC, amortised={kind: other}), tuned)
