"""What every planner owes, whatever it does inside: one test a promise, one row a planner."""

import numpy as np
import pytest
from builders.planners import CASES, Watching, quadratic

from vj2_ddim_plugin.errors import ContextError, CostError
from vj2_ddim_plugin.gestures import is_valid, project
from vj2_ddim_plugin.interface import ActionOptimizer, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost

every_planner = pytest.mark.parametrize("name", CASES)


def ask(case, cost, num=3, rows=slice(None), **fields):
    context = {key: array[rows] for key, array in case.context(num).items()}
    batch = len(range(num)[rows])
    return PlanningProblem(context, cost, batch_size=batch, **fields)


@every_planner
def test_the_plan_is_the_best_of_what_was_ranked_and_is_valid(name):
    case = CASES[name]
    cost = quadratic(case, 3)
    result = case.make().optimize(ask(case, cost, seed=5))
    costs = cost.cost(cost.all)
    assert result.actions.shape == (3, case.spec.length, case.spec.num_channels)
    assert is_valid(result.actions, case.spec).all()
    assert (result.actions >= case.spec.low_array).all()
    assert (result.actions <= case.spec.high_array).all()
    np.testing.assert_array_equal(result.actions, cost.all[np.arange(3), costs.argmin(axis=1)])
    np.testing.assert_array_equal(result.cost, costs.min(axis=1))
    np.testing.assert_array_equal(result.cost, cost.cost(result.actions[:, None])[:, 0])
    assert is_valid(cost.all, case.spec).all()  # what is ranked is what would be executed


@every_planner
def test_the_accounts(name):
    case = CASES[name]
    cost = quadratic(case, 3)
    planner = case.make()
    result = planner.optimize(ask(case, cost, deadline_s=1e6, seed=5))
    assert isinstance(planner, ActionOptimizer)
    assert result.num_cost_evaluations == cost.all.shape[0] * cost.all.shape[1] + cost.torch_rows
    assert (result.num_denoiser_evaluations > 0) == name.startswith("ddim")
    assert result.history.shape[1] == 3
    assert (np.diff(result.history, axis=0) <= 0).all()
    phases = result.wall_time_s
    assert phases["total"] > 0
    assert set(phases) == {"total"} or 0 < sum(phases.values()) - phases["total"] <= phases["total"]
    assert (result.stopped_because, result.planned_by) == ("finished", "optimizer")
    assert result.projection_distance.shape == (3,)
    raw = getattr(result, "unprojected_actions", None)
    if raw is not None and "gradient" not in name:  # which shows its best iterate, projected or not
        np.testing.assert_allclose(project(raw, case.spec), result.actions, atol=1e-6)
        moved = np.abs(result.actions - raw).max(axis=(1, 2))
        np.testing.assert_array_equal(result.projection_distance, moved)


@every_planner
def test_the_plan_is_never_worse_than_the_warm_start_and_keeps_the_best_one(name):
    case = CASES[name]
    cost = quadratic(case, 4)
    warm = case.goals(4, seed=5)[:, 0]
    warm[0] = case.goals(4)[0, 0]  # cannot be improved
    result = case.make().optimize(ask(case, cost, 4, init_action=warm))
    assert (result.cost <= cost.cost(warm[:, None])[:, 0]).all()
    np.testing.assert_array_equal(result.actions[0], warm[0])
    assert result.cost[0] == 0.0


@every_planner
def test_a_plan_depends_on_its_seed_alone_and_not_on_its_batch(name):
    case = CASES[name]
    planner, wanted = case.make(), case.goals(4)
    together = planner.optimize(ask(case, quadratic(case, 4), 4, seed=11))
    again = planner.optimize(ask(case, quadratic(case, 4), 4, seed=11))
    np.testing.assert_array_equal(again.actions, together.actions)
    for row in (3, 0, 1):
        cost = Watching(QuadraticCost(wanted[row : row + 1]))
        alone = planner.optimize(ask(case, cost, 4, slice(row, row + 1), seed=11))
        np.testing.assert_allclose(alone.actions[0], together.actions[row], rtol=0, atol=case.atol)
        rtol = 1e-4 if case.atol else 0
        np.testing.assert_allclose(alone.cost[0], together.cost[row], rtol=rtol, atol=0)
    assert np.abs(together.actions[0] - together.actions[1]).max() > 0  # each its own
    if not case.needs_cost:  # nor does a plan that is not ranked
        together = planner.optimize(ask(case, None, 4, seed=11))
        for row in range(4):
            alone = planner.optimize(ask(case, None, 4, slice(row, row + 1), seed=11))
            np.testing.assert_array_equal(alone.actions[0], together.actions[row])
    if case.seeded:
        together = planner.optimize(ask(case, quadratic(case, 4), 4, seed=11))
        other = planner.optimize(ask(case, quadratic(case, 4), 4, seed=12))
        assert np.abs(other.actions - together.actions).max() > 1e-3
        own = case.make(seed=11).optimize(ask(case, quadratic(case, 4), 4))
        np.testing.assert_array_equal(own.actions, together.actions)


@every_planner
def test_a_generous_deadline_changes_nothing(name):
    case = CASES[name]
    free = case.make().optimize(ask(case, quadratic(case, 2), 2))
    timed = case.make().optimize(ask(case, quadratic(case, 2), 2, deadline_s=1e6))
    np.testing.assert_array_equal(timed.actions, free.actions)
    np.testing.assert_array_equal(timed.history, free.history)


@every_planner
def test_a_deadline_that_has_passed_still_gives_the_best_of_what_was_ranked(name):
    case = CASES[name]
    cost = quadratic(case, 2)
    result = case.make().optimize(ask(case, cost, 2, deadline_s=0.0))
    assert is_valid(result.actions, case.spec).all()
    if cost.asked:
        costs = cost.cost(cost.all)
        np.testing.assert_array_equal(result.cost, costs.min(axis=1))
        assert result.num_cost_evaluations == costs.size + cost.torch_rows
    else:  # DDIM has drawn one candidate, and there was no time to ask
        assert np.isnan(result.cost).all()
        assert result.num_cost_evaluations == 0
    in_full = quadratic(case, 2)
    case.make().optimize(ask(case, in_full, 2))
    if case.keeps_deadline and name not in ("regression", "retrieval"):  # one round may fit in all
        assert result.stopped_because == "deadline"
        assert result.num_cost_evaluations < in_full.all[..., 0, 0].size + in_full.torch_rows


@every_planner
def test_candidates_of_unknown_cost_are_never_chosen(name):
    case = CASES[name]
    plain = quadratic(case, 2)

    class PartlyUnknown(Watching):
        def __call__(self, candidates):
            cost = super().__call__(candidates)
            cost[:, 1::2] = np.nan
            cost[0, :] = np.where(np.arange(cost.shape[1]) == 0, cost[0], np.inf)
            return cost

    class Hopeless(Watching):
        def __call__(self, candidates):
            return np.full(candidates.shape[:2], np.nan)

    result = case.make().optimize(ask(case, PartlyUnknown(plain.cost), 2))
    assert np.isfinite(result.cost).all()
    np.testing.assert_array_equal(result.cost, plain.cost(result.actions[:, None])[:, 0])
    with pytest.raises(CostError, match="problem 0"):
        case.make().optimize(ask(case, Hopeless(plain.cost), 2))


@every_planner
def test_what_cannot_be_planned_is_refused(name):
    case = CASES[name]
    planner, cost = case.make(), quadratic(case, 1)
    if case.needs_cost:
        with pytest.raises(ContextError, match="needs a cost; this problem has none"):
            planner.optimize(ask(case, None, 1))
    else:
        result = planner.optimize(ask(case, None, 1))
        assert np.isnan(result.cost).all()
        assert (result.num_cost_evaluations, result.history.shape) == (0, (0, 1))
    with pytest.raises(ContextError, match="seed must be"):
        planner.optimize(ask(case, cost, 1, seed=-1))
    wrong = np.zeros((1, case.spec.length + 1, case.spec.num_channels))
    with pytest.raises(ContextError, match="init_action has shape"):
        planner.optimize(ask(case, cost, 1, init_action=wrong))
    if case.refuses:
        kept = {"constraints": PlanConstraints(forbidden=[(0.0, 0.0, 0.5, 0.5)])}
        for asked in (kept, {"frozen_action": np.zeros((1, 10, case.spec.num_channels))}):
            with pytest.raises(ContextError, match="keeps neither"):
                planner.optimize(ask(case, cost, 1, **asked))
