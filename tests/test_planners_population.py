"""What every sampling planner owes: the best of what it ranked, whatever the batch or the clock."""

from types import SimpleNamespace

import numpy as np
import pytest

from vj2_ddim_benchmark.planners import ranking
from vj2_ddim_benchmark.planners.cem import CEMOptimizer
from vj2_ddim_benchmark.planners.gesture_cem import GestureCEMOptimizer
from vj2_ddim_benchmark.planners.icem import ICEMOptimizer
from vj2_ddim_benchmark.planners.mppi import MPPIOptimizer
from vj2_ddim_benchmark.planners.predictive_sampling import PredictiveSamplingOptimizer
from vj2_ddim_benchmark.planners.starts import any_gestures
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError, CostError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanConstraints, PlanningProblem
from vj2_ddim_plugin.planning import deadline
from vj2_ddim_plugin.testing import QuadraticCost

SPEC = ActionSpec(max_press_steps=200, path_knots=3)  # what the touch screen's gestures need
PLANNERS = {
    "cem": CEMOptimizer,
    "icem": ICEMOptimizer,
    "mppi": MPPIOptimizer,
    "predictive-sampling": PredictiveSamplingOptimizer,
    "gesture-cem": GestureCEMOptimizer,
}
WITH_START = [name for name in PLANNERS if name != "predictive-sampling"]
every_planner = pytest.mark.parametrize("name", PLANNERS)


def make(name, **settings):
    return PLANNERS[name](SPEC, **{"num_samples": 12, "num_iterations": 4, **settings})


def goals(num, seed=0):
    """Gestures to imitate, `[num, 1, 250, 3]`: the cost of problem b is the distance to goal b."""
    return any_gestures(num, np.random.default_rng(seed))[:, None]


class Watching:
    """Remembers the candidates that a cost was asked about."""

    def __init__(self, cost):
        self.cost, self.asked = cost, []

    def __call__(self, candidates):
        self.asked.append(candidates.copy())
        return self.cost(candidates)


@every_planner
def test_the_plan_is_the_best_of_what_was_ranked(name):
    cost = Watching(QuadraticCost(goals(3)))
    result = make(name).optimize(PlanningProblem(cost=cost, batch_size=3))
    asked = np.concatenate(cost.asked, axis=1)
    costs = cost.cost(asked)
    np.testing.assert_array_equal(result.actions, asked[np.arange(3), costs.argmin(axis=1)])
    np.testing.assert_array_equal(result.cost, costs.min(axis=1))
    assert SPEC.is_valid(asked).all()  # what is ranked is what would be executed
    assert result.num_cost_evaluations == costs.size
    assert (result.num_denoiser_evaluations, result.stopped_because) == (0, "finished")


@every_planner
def test_the_history_is_the_best_so_far_and_falls(name):
    cost = Watching(QuadraticCost(goals(3)))
    result = make(name, num_iterations=6).optimize(PlanningProblem(cost=cost, batch_size=3))
    rounds = np.stack([cost.cost(asked).min(axis=1) for asked in cost.asked])
    np.testing.assert_array_equal(result.history, np.minimum.accumulate(rounds))
    assert (result.history[-1] < result.history[0]).all()  # later rounds found better ones


@every_planner
def test_what_projection_did_is_told(name):
    result = make(name).optimize(PlanningProblem(cost=QuadraticCost(goals(2)), batch_size=2))
    np.testing.assert_allclose(SPEC.project(result.unprojected_actions), result.actions, atol=1e-6)
    moved = np.abs(result.actions - result.unprojected_actions).max(axis=(1, 2))
    np.testing.assert_array_equal(result.projection_distance, moved)


@every_planner
def test_the_plan_is_never_worse_than_the_warm_start(name):
    wanted = goals(4)
    warm = any_gestures(4, np.random.default_rng(5))
    warm[0] = wanted[0, 0]  # cannot be improved
    cost = QuadraticCost(wanted)
    problem = PlanningProblem(cost=cost, init_action=warm)
    result = make(name).optimize(problem)
    assert (result.cost <= cost(warm[:, None])[:, 0]).all()
    np.testing.assert_array_equal(result.actions[0], warm[0])
    assert result.cost[0] == 0.0


@every_planner
def test_the_first_population_is_drawn_around_the_warm_start(name):
    warm = any_gestures(1, np.random.default_rng(5))
    narrow = {"std": 0.02} if hasattr(make(name), "std") else {"noise_std": 0.02}
    cost = Watching(QuadraticCost(goals(1)))
    planner = make(name, num_iterations=1, num_samples=20, **narrow)
    planner.optimize(PlanningProblem(cost=cost, init_action=warm))
    (asked,) = cost.asked
    np.testing.assert_array_equal(asked[0, 0], warm[0])

    def middle_of_touch(actions):
        pressed = actions[..., 2] > 0
        return np.stack([a[p, :2].mean(axis=0) for a, p in zip(actions, pressed, strict=True)])

    away = middle_of_touch(asked[0]) - middle_of_touch(warm)
    assert np.abs(away).max() < 0.15  # others would be anywhere on the screen
    assert np.abs(away[1:]).max() > 0.0


@every_planner
def test_a_plan_depends_on_its_seed_alone_and_not_on_its_batch(name):
    wanted = goals(4)
    planner = make(name)
    together = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=4, seed=11))
    for row in (3, 0, 1):
        alone = PlanningProblem(cost=QuadraticCost(wanted[row : row + 1]), batch_size=1, seed=11)
        np.testing.assert_array_equal(planner.optimize(alone).actions[0], together.actions[row])
    other = planner.optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=4, seed=12))
    assert np.abs(other.actions - together.actions).max() > 0.01
    own = make(name, seed=11).optimize(PlanningProblem(cost=QuadraticCost(wanted), batch_size=4))
    np.testing.assert_array_equal(own.actions, together.actions)


class Clock:
    """Time passes only while the cost is computed: a second for 16 rows."""

    def __init__(self, monkeypatch, cost):
        self.now, self.cost, self.rows = 100.0, cost, []
        for module in (ranking, deadline):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self, candidates):
        self.now += candidates.shape[1] / 16
        self.rows.append(candidates.shape[1])
        return self.cost(candidates)


@every_planner
def test_the_deadline_ends_the_search_and_the_best_so_far_is_returned(name, monkeypatch):
    cost = Clock(monkeypatch, QuadraticCost(goals(1)))
    planner = make(name, num_samples=40, num_iterations=50)
    problem = PlanningProblem(cost=cost, batch_size=1, deadline_s=1.5)
    result = planner.optimize(problem)
    assert cost.rows == [16, 4, 2, 1]  # a second, and what is expected to fit into the other half
    assert cost.now <= 101.5  # in time
    assert result.num_cost_evaluations == 23
    assert result.stopped_because == "deadline"
    assert result.history.shape == (1, 1)
    np.testing.assert_array_equal(result.cost, cost.cost(result.actions[:, None])[:, 0])
    assert SPEC.is_valid(result.actions).all()


@every_planner
def test_a_deadline_that_has_passed_still_considers_the_warm_start(name, monkeypatch):
    wanted = goals(2)
    cost = Clock(monkeypatch, QuadraticCost(wanted))
    problem = PlanningProblem(cost=cost, init_action=wanted[:, 0], deadline_s=0.0)
    result = make(name).optimize(problem)
    np.testing.assert_array_equal(result.actions, wanted[:, 0])
    assert cost.rows == [1]  # of each problem, the fewest there can be


@every_planner
def test_a_generous_deadline_changes_nothing(name):
    cost = QuadraticCost(goals(2))
    free = make(name).optimize(PlanningProblem(cost=cost, batch_size=2))
    timed = make(name).optimize(PlanningProblem(cost=cost, batch_size=2, deadline_s=1e6))
    np.testing.assert_array_equal(timed.actions, free.actions)
    np.testing.assert_array_equal(timed.history, free.history)


@every_planner
def test_candidates_of_unknown_cost_are_never_chosen_and_spoil_nothing(name):
    plain = QuadraticCost(goals(2))

    def partly_nan(candidates):
        cost = plain(candidates)
        cost[:, 1::2] = np.nan
        cost[0, :] = np.where(np.arange(cost.shape[1]) == 0, cost[0], np.inf)
        return cost

    result = make(name).optimize(PlanningProblem(cost=partly_nan, batch_size=2))
    assert np.isfinite(result.cost).all()
    np.testing.assert_array_equal(result.cost, plain(result.actions[:, None])[:, 0])
    assert (result.history[-1] <= result.history[0]).all()

    def hopeless(candidates):
        return np.full(candidates.shape[:2], np.nan)

    with pytest.raises(CostError, match="problem 0"):
        make(name).optimize(PlanningProblem(cost=hopeless, batch_size=2))


@every_planner
def test_a_later_round_without_any_finite_cost_is_survived(name):
    plain, rounds = QuadraticCost(goals(1)), []

    def breaks_once(candidates):
        rounds.append(None)
        return plain(candidates) * (np.nan if len(rounds) == 2 else 1.0)

    result = make(name).optimize(PlanningProblem(cost=breaks_once, batch_size=1))
    assert len(rounds) == 4
    assert np.isfinite(result.cost).all()
    np.testing.assert_array_equal(result.history[0], result.history[1])


@pytest.mark.parametrize("name", WITH_START)
def test_the_first_population_can_be_real_gestures(name):
    cost = Watching(QuadraticCost(goals(2)))
    planner = make(name, start="gestures", num_iterations=1)
    planner.optimize(PlanningProblem(cost=cost, batch_size=2, seed=3))
    drawn = any_gestures(12, np.random.default_rng(3))
    (asked,) = cost.asked
    np.testing.assert_allclose(asked, np.tile(drawn, (2, 1, 1, 1)), atol=1e-6)


@every_planner
def test_what_cannot_be_planned_is_refused(name):
    planner = make(name)
    cost = QuadraticCost(goals(1))
    with pytest.raises(ContextError, match=f"{planner.name} needs a cost"):
        planner.optimize(PlanningProblem(batch_size=1))
    for asked in (
        {"constraints": PlanConstraints(forbidden=[(0.0, 0.0, 0.5, 0.5)])},
        {"frozen_action": np.zeros((1, 10, 3))},
    ):
        with pytest.raises(ContextError, match="neither"):
            planner.optimize(PlanningProblem(cost=cost, batch_size=1, **asked))


@every_planner
@pytest.mark.parametrize("wrong", [{"num_samples": 0}, {"num_iterations": 0}, {"seed": -1}])
def test_settings_that_cannot_work_are_refused(name, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        make(name, **wrong)


@pytest.mark.parametrize("name", WITH_START)
def test_an_unknown_start_is_refused(name):
    with pytest.raises(ConfigError, match="'centre' is unknown; use one of middle, gestures"):
        make(name, start="centre")


@every_planner
def test_it_is_an_action_optimizer(name):
    assert isinstance(make(name), ActionOptimizer)
