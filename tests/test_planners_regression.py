"""Direct regression behind the seam: the predicted mean, decoded and projected."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.amortised import SPEC, make_context, make_model, make_predictor, taps

from vj2_ddim_benchmark.amortised.file import save_amortised
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.regression import RegressionOptimizer, regression
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, ContextError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost

CONTEXT = make_context(6)


def make_planner(seed=0):
    return RegressionOptimizer(SPEC, make_predictor(seed=seed))


def predicted_mean(model):
    """The network asked directly, `[B, M, C]`, kept within the bounds of the array."""
    with torch.no_grad():
        mean, _ = model(*(torch.from_numpy(CONTEXT[name]) for name in ("state", "goal")))
    return np.clip(mean.numpy(), *SPEC.diffused_bounds).astype(np.float32)


def test_the_plan_is_the_mean_decoded_and_projected():
    planner = make_planner()
    with torch.no_grad():  # presses that are too short, in places
        planner.predictor.model.head[-2].bias[5] -= 0.5
    result = planner.optimize(PlanningProblem(CONTEXT))
    drawn = SPEC.decode(predicted_mean(planner.predictor.model))
    np.testing.assert_allclose(result.unprojected_actions, drawn, atol=1e-5)
    np.testing.assert_allclose(result.actions, SPEC.project(drawn), atol=1e-5)
    assert SPEC.is_valid(result.actions).all()
    moved = np.abs(result.actions - result.unprojected_actions).max(axis=(1, 2))
    np.testing.assert_array_equal(result.projection_distance, moved)
    assert moved.max() > 0  # projection had something to do


def test_the_accounts_of_a_plan_that_asks_no_cost():
    result = make_planner().optimize(PlanningProblem(CONTEXT, deadline_s=60.0))
    assert np.isnan(result.cost).all()
    assert result.cost.shape == (6,)
    assert result.history.shape == (0, 6)
    assert (result.num_cost_evaluations, result.num_denoiser_evaluations) == (0, 0)
    assert (result.provider, result.stopped_because) == ("torch-cpu", "finished")
    assert 0 < result.wall_time_s["predict"] <= result.wall_time_s["total"]
    assert isinstance(make_planner(), ActionOptimizer)


def test_a_deadline_that_was_not_kept_is_said():
    result = make_planner().optimize(PlanningProblem(CONTEXT, deadline_s=0.0))
    assert result.stopped_because == "deadline"
    assert SPEC.is_valid(result.actions).all()


def test_a_plan_does_not_depend_on_its_batch():
    planner = make_planner()
    together = planner.optimize(PlanningProblem(CONTEXT))
    for row in range(6):
        context = {name: array[[row]] for name, array in CONTEXT.items()}
        alone = planner.optimize(PlanningProblem(context))
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])


def test_with_a_cost_it_is_that_of_the_plan():
    cost = QuadraticCost(taps([[0.3, 0.6]])[0])
    result = make_planner().optimize(PlanningProblem(CONTEXT, cost))
    without = make_planner().optimize(PlanningProblem(CONTEXT))
    np.testing.assert_array_equal(result.actions, without.actions)
    np.testing.assert_array_equal(result.cost, cost(result.actions[:, None])[:, 0])
    assert result.num_cost_evaluations == 6
    assert result.provider == "torch-cpu"


def test_with_a_cost_a_better_warm_start_is_kept():
    wanted = taps([[0.3, 0.6]] * 6)
    problem = PlanningProblem(CONTEXT, QuadraticCost(wanted[:, None]), init_action=wanted)
    np.testing.assert_array_equal(make_planner().optimize(problem).actions, wanted)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (PlanningProblem({"state": CONTEXT["state"]}), r"context has \['state'\]"),
        (PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"][:, :3]}), "context 'goal' has shape"),
        (PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"][:3]}), "batch sizes disagree"),
        (PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"] * np.nan}), "NaN"),
        (PlanningProblem(CONTEXT, constraints=PlanConstraints()), "regression keeps neither"),
        (PlanningProblem(CONTEXT, frozen_action=np.zeros((6, 2, 3))), "regression keeps neither"),
    ],
)
@pytest.mark.parametrize("cost", [None, QuadraticCost(np.zeros((20, 3)))])
def test_what_does_not_fit_is_refused(problem, message, cost):
    with pytest.raises(ContextError, match=message):
        make_planner().optimize(replace(problem, cost=cost))


def test_other_actions_are_refused():
    with pytest.raises(ConfigError, match=r"plans 20 actions.*needs 250"):
        RegressionOptimizer(ActionSpec(), make_predictor())


def test_it_is_built_from_its_file(tmp_path):
    path = tmp_path / "regression.pt"
    save_amortised(make_model(seed=3), path, data_fingerprint="", training={}, provenance={})
    entry = regression()
    assert (entry.name, entry.with_cost, dict(entry.search_space)) == ("regression", False, {})
    built = entry.build(BuildAssets(SPEC, regression=path), {})
    expected = make_planner(seed=3).optimize(PlanningProblem(CONTEXT))
    found = built.optimize(PlanningProblem(CONTEXT))
    np.testing.assert_allclose(found.actions, expected.actions, atol=2e-3)  # half precision


def test_without_its_file_it_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="give regression"):
        regression().build(BuildAssets(SPEC, gaussian=Path("model.pt")), {})
    path = tmp_path / "gaussian.pt"
    model = make_model("gaussian")
    save_amortised(model, path, data_fingerprint="", training={}, provenance={})
    with pytest.raises(CheckpointError, match="expected 'regression'"):
        regression().build(BuildAssets(SPEC, regression=path), {})
