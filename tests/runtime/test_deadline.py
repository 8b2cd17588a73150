"""Deadlines on a simulated clock, so that nothing here depends on the machine's speed."""

import pickle

import numpy as np
import pytest
from builders.runtime import TOUCH as SPEC
from builders.runtime import TOUCH_SCHEDULE as SCHEDULE
from builders.runtime import TOUCH_TARGET as TARGET
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.planning.deadline import FINISH_S, SLICE_S, Deadline, Pace
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost


class TimedModel(GaussianModel):
    """Takes a fixed time for a call and more for each row."""

    def __init__(self, clock, per_call, per_row):
        super().__init__(SPEC, SCHEDULE, 0.0, 0.5)
        self.clock, self.per_call, self.per_row = clock, per_call, per_row

    def denoise(self, sample, timestep, condition):
        self.clock["s"] += self.per_call + self.per_row * len(sample)
        return super().denoise(sample, timestep, condition)


class TimedCost(QuadraticCost):
    def __init__(self, clock, per_row):
        super().__init__(TARGET)
        self.clock, self.per_row, self.seen = clock, per_row, []

    def __call__(self, candidates):
        self.clock["s"] += self.per_row * candidates.shape[0] * candidates.shape[1]
        self.seen.append(candidates.shape[1])
        return super().__call__(candidates)


def test_pace_follows_what_is_measured_and_believes_no_single_stall():
    pace = Pace()
    assert pace.expected("denoise", 4) == 0.0
    pace.record("denoise", 4, 1.0)
    assert pace.expected("denoise", 4) > 1.0
    for _ in range(200):
        pace.record("denoise", 4, 0.5)
    assert pace.expected("denoise", 4) == pytest.approx(0.5, rel=1e-3)
    pace.record("denoise", 4, 500.0)
    assert pace.expected("denoise", 4) < 1.0
    for _ in range(60):  # but what lasts is believed
        pace.record("denoise", 4, 2.0)
    assert pace.expected("denoise", 4) > 1.9


def test_pace_expects_more_of_what_varies():
    steady, shaky = Pace(), Pace()
    for turn in range(200):
        steady.record("cost", 1, 1.0)
        shaky.record("cost", 1, 0.5 + turn % 2)
    assert steady.expected("cost", 1) == pytest.approx(1.0, rel=1e-3)
    assert shaky.expected("cost", 1) == pytest.approx(1.0 + 2 * 0.5, rel=0.15)


def test_what_is_not_begun_is_expected_to_take_less_the_faster_the_less_it_was_seen():
    once, often = Pace(), Pace()
    once.record("cost", 1, 1.0)
    for _ in range(100):
        often.record("cost", 1, 1.0)
    for _ in range(5):
        once.relax("cost", 1)
        often.relax("cost", 1)
    assert once.expected("cost", 1) < 0.1
    assert 0.8 < often.expected("cost", 1) < 1.0


def test_pace_of_an_unseen_number_of_rows_lies_between_its_neighbours():
    pace = Pace()
    for _ in range(200):
        pace.record("denoise", 1, 0.0011)
        pace.record("denoise", 16, 0.0026)
    expected = [pace.expected("denoise", rows) for rows in (1, 2, 4, 8, 16, 32)]
    assert expected == sorted(expected)
    assert expected[3] == pytest.approx(0.0011 + 0.0015 * 7 / 15, rel=1e-3)
    assert expected[5] == pytest.approx(2 * 0.0026, rel=1e-3)


def test_one_slow_first_cost_does_not_end_all_ranking(clock):
    optimizer = DDIMOptimizer(TimedModel(clock, 1e-4, 0.0), num_candidates=8)
    optimizer.warm_up()
    cost = TimedCost(clock, 5e-4)

    def first_slow(candidates):
        clock["s"] += 0.3 if not cost.seen else 0.0
        return cost(candidates)

    problem = PlanningProblem(cost=first_slow, deadline_s=0.05)
    asked = [optimizer.optimize(problem).num_cost_evaluations for _ in range(30)]
    assert asked[-1] == 8
    assert sum(count == 0 for count in asked) < 10


@pytest.mark.parametrize("deadline_s", [0.05, None])
@pytest.mark.parametrize("stalled", [0, 1, 5])
def test_after_one_stall_the_next_plan_is_ranked(clock, stalled, deadline_s):
    optimizer = DDIMOptimizer(TimedModel(clock, 1e-4, 0.0), num_candidates=16)
    optimizer.warm_up()
    cost = TimedCost(clock, 5e-4)

    def plan(stall_s, deadline_s=0.05):
        def judge(candidates, left=[stall_s]):  # noqa: B006
            clock["s"] += left.pop() if left else 0.0
            return cost(candidates)

        return optimizer.optimize(PlanningProblem(cost=judge, deadline_s=deadline_s))

    for _ in range(stalled):
        plan(0.0)
    plan(1.0, deadline_s)
    for _ in range(3):
        assert plan(0.0).num_cost_evaluations == 16


def test_a_first_measurement_that_cannot_be_is_not_believed_alone():
    pace = Pace()
    for _ in range(9):
        pace.record("cost", 1, 0.001)
    pace.record("cost", 8, 1.0)  # a stall: eight take as long as a thousand
    assert pace.expected("cost", 8) < 0.02
    pace.record("cost", 8, 0.007)
    assert pace.expected("cost", 8) < 0.02
    for seconds in (1.0, 2.0):  # but what comes twice is
        pace.record("cost", 16, seconds)
    assert pace.expected("cost", 16) >= 1.0


def test_a_cost_that_is_slow_for_good_is_soon_left_out(clock):
    optimizer = DDIMOptimizer(TimedModel(clock, 1e-4, 0.0), num_candidates=16)
    optimizer.warm_up()
    problem = PlanningProblem(cost=TimedCost(clock, 1.0), deadline_s=0.05)
    asked = [optimizer.optimize(problem).num_cost_evaluations for _ in range(40)]
    assert asked[:3] == [1, 1, 0]
    assert sum(asked) < 10


def test_the_candidates_come_back_after_stalls(clock):
    model = TimedModel(clock, 1e-3, 1e-4)
    optimizer = DDIMOptimizer(model, num_candidates=16)
    optimizer.warm_up()
    cost = TimedCost(clock, 1e-4)
    problem = PlanningProblem(cost=cost, deadline_s=0.08)
    assert optimizer.optimize(problem).num_cost_evaluations == 16
    for _ in range(4):
        model.per_call = 1.0
        optimizer.optimize(problem)
        model.per_call = 1e-3
        asked = [optimizer.optimize(problem).num_cost_evaluations for _ in range(100)]
        assert asked[-1] == 16


def test_pace_pickles_empty_and_forgets_on_request():
    pace = Pace()
    pace.record("cost", 1, 1.0)
    assert pickle.loads(pickle.dumps(pace)).expected("cost", 1) == 0.0
    pace.forget("cost")
    assert not pace.known("cost")


def test_without_a_deadline_everything_is_allowed(clock):
    deadline = Deadline(None, Pace())
    clock["s"] = 1e9
    assert deadline.allows(("denoise", 1, 1))
    assert deadline.largest_slice("cost", 16, 1) == 16
    assert deadline.affordable(16, 10, 1, ranked=True) == (16, 10)


def test_affordable_gives_up_candidates_for_steps_and_keeps_time_for_the_cost(clock):
    pace = Pace()
    for rows in (1, 2, 4, 8, 16) * 200:
        pace.record("denoise", rows, 0.001 * rows)
    deadline = Deadline(0.100 + FINISH_S, pace)
    # the cost is unknown: 50 ms for 16 ms a step are three steps, too few; eight take six
    assert deadline.affordable(16, 10, 1, ranked=True) == (8, 6)
    assert deadline.mattered
    for _ in range(200):
        pace.record("cost", 16, 0.004)
    # 96 ms are left: six steps of all sixteen
    assert Deadline(0.100 + FINISH_S, pace).affordable(16, 10, 1, ranked=True) == (16, 6)
    assert Deadline(10.0, pace).affordable(16, 10, 1, ranked=True) == (16, 10)


def test_candidates_are_not_given_up_where_that_saves_nothing(clock):
    pace = Pace()
    for _ in range(200):
        pace.record("inpaint", 1, 0.0064)
        pace.record("inpaint", 16, 0.0070)
        pace.record("cost", 1, 0.0001)
    found = Deadline(0.0255, pace).affordable(
        16, 10, 1, names=("inpaint", "constrain"), ranked=True
    )
    assert found == (16, 3)


def test_no_time_at_all_is_one_step_of_all_candidates(clock):
    pace = Pace()
    pace.record("denoise", 16, 1.0)
    assert Deadline(0.01, pace).affordable(16, 10, 1, ranked=True)[1] == 1


def test_slices_of_the_cost_are_short(clock):
    pace = Pace()
    deadline = Deadline(1.0, pace)
    assert deadline.largest_slice("cost", 16, 1) == 1  # never seen: try one
    for _ in range(200):
        pace.record("cost", 1, SLICE_S / 4.1)
    assert deadline.largest_slice("cost", 16, 1) == 4
    for _ in range(200):
        pace.record("cost", 1, SLICE_S * 4)
    assert deadline.largest_slice("cost", 16, 1) == 1


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    per_call=st.floats(1e-4, 5e-3),
    per_row=st.floats(1e-6, 1e-3),
    cost_per_row=st.floats(1e-5, 5e-3),
    deadline_s=st.floats(0.02, 0.2),
    refinements=st.sampled_from([0, 3, None]),
)
def test_a_deadline_is_kept_to_within_one_operation(
    clock, per_call, per_row, cost_per_row, deadline_s, refinements
):
    model, cost = TimedModel(clock, per_call, per_row), TimedCost(clock, cost_per_row)
    optimizer = DDIMOptimizer(model, num_candidates=16, num_refinements=refinements)
    optimizer.warm_up()
    problem = PlanningProblem(cost=cost, deadline_s=deadline_s)
    for _ in range(3):
        begun = clock["s"]
        result = optimizer.optimize(problem)
        longest = max(per_call + 16 * per_row, SLICE_S, cost_per_row)
        assert clock["s"] - begun <= deadline_s + longest
        assert np.isfinite(result.actions).all()
        assert (np.diff(result.history, axis=0) <= 0).all()
        if result.num_cost_evaluations:
            np.testing.assert_allclose(
                result.cost, QuadraticCost(TARGET)(result.actions[:, None])[:, 0], rtol=1e-6
            )


def test_refining_without_end_uses_the_time_there_is(clock):
    optimizer = DDIMOptimizer(
        TimedModel(clock, 1e-3, 0.0), num_candidates=8, num_refinements=None, seed=1
    )
    optimizer.warm_up()
    costs = []
    for deadline_s in (0.03, 0.1, 0.5):
        problem = PlanningProblem(cost=TimedCost(clock, 1e-5), deadline_s=deadline_s)
        begun = clock["s"]
        result = optimizer.optimize(problem)
        assert 0.5 * deadline_s < clock["s"] - begun <= deadline_s + SLICE_S
        assert result.stopped_because == "deadline"
        costs.append(result.cost[0])
    assert costs[0] >= costs[1] >= costs[2]
    assert costs[2] < costs[0]


def test_refining_without_end_needs_a_deadline():
    optimizer = DDIMOptimizer(GaussianModel(SPEC, SCHEDULE), num_refinements=None)
    with pytest.raises(ContextError, match="needs a deadline_s"):
        optimizer.optimize(PlanningProblem(cost=QuadraticCost(TARGET)))


def test_where_nothing_can_be_ranked_the_warm_start_is_the_plan(clock):
    optimizer = DDIMOptimizer(TimedModel(clock, 1.0, 0.0), num_candidates=4)
    warm = np.zeros((1, 10, 3), np.float32)
    warm[0, 2:6] = (0.25, 0.75, 1.0)
    problem = PlanningProblem(cost=QuadraticCost(TARGET), init_action=warm, deadline_s=0.5)
    result = optimizer.optimize(problem)
    np.testing.assert_array_equal(result.actions, warm)
    assert np.isnan(result.cost).all()
    assert result.history.shape == (0, 1)
    assert result.stopped_because == "deadline"


def test_candidates_there_is_no_time_to_rank_are_dropped(clock):
    optimizer = DDIMOptimizer(TimedModel(clock, 1e-4, 0.0), num_candidates=16)
    optimizer.warm_up()
    cost = TimedCost(clock, 0.01)
    result = optimizer.optimize(PlanningProblem(cost=cost, deadline_s=0.1))
    assert 1 <= result.num_cost_evaluations < 16
    assert sum(cost.seen) == result.num_cost_evaluations
    np.testing.assert_allclose(result.cost, QuadraticCost(TARGET)(result.actions[:, None])[:, 0])


def test_candidates_that_were_not_asked_for_are_not_called_hopeless(clock):
    """Only the warm start's cost is infinite, and there is time for it alone."""
    optimizer = DDIMOptimizer(TimedModel(clock, 1e-4, 0.0), num_candidates=16)
    optimizer.warm_up()
    warm = np.zeros((1, 10, 3), np.float32)
    warm[0, 2:6] = (0.25, 0.75, 1.0)

    def cost(candidates):
        clock["s"] += 0.03 * candidates.shape[1]
        values = candidates.mean(axis=(2, 3))
        values[(candidates == warm).all(axis=(2, 3))] = np.inf
        return values

    result = optimizer.optimize(PlanningProblem(cost=cost, init_action=warm, deadline_s=0.05))
    assert result.num_cost_evaluations < 16
    assert (result.actions != warm).any()
    assert np.isnan(result.cost).all()


def test_a_plan_that_comes_late_says_so(clock):
    optimizer = DDIMOptimizer(TimedModel(clock, 1e-4, 0.0), num_candidates=1)
    problem = PlanningProblem(cost=TimedCost(clock, 0.2), deadline_s=0.05)
    assert optimizer.optimize(problem).stopped_because == "deadline"


@pytest.mark.parametrize("deadline", [float("nan"), "fast", [0.1]])
def test_a_deadline_that_is_no_number_is_refused(deadline):
    with pytest.raises(ContextError, match="deadline_s must be a number"):
        DDIMOptimizer(GaussianModel(SPEC, SCHEDULE)).optimize(PlanningProblem(deadline_s=deadline))


def test_an_infinite_deadline_is_none():
    optimizer = DDIMOptimizer(GaussianModel(SPEC, SCHEDULE), num_candidates=4)
    problems = [
        PlanningProblem(cost=QuadraticCost(TARGET), deadline_s=deadline)
        for deadline in (None, float("inf"))
    ]
    plans = [optimizer.optimize(problem) for problem in problems]
    np.testing.assert_array_equal(plans[0].actions, plans[1].actions)
    assert plans[1].stopped_because == "finished"


def test_time_is_kept_back_for_returning_the_plan(clock):
    """Something that would end exactly at the deadline is not begun."""
    pace = Pace()
    for _ in range(100):
        pace.record("denoise", 1, 0.01)
    assert Deadline(0.01 + 2 * FINISH_S, pace).allows(("denoise", 1, 1))
    assert not Deadline(0.01 + FINISH_S / 2, pace).allows(("denoise", 1, 1))


def test_without_a_deadline_only_the_unknown_is_measured(clock):
    pace = Pace()
    Deadline(None, pace).record("cost", 1, 1.0)
    Deadline(None, pace).record("cost", 1, 100.0)
    assert pace.expected("cost", 1) < 2.0
    Deadline(9.0, pace).record("cost", 1, 100.0)
    assert pace.expected("cost", 1) > 1.0
