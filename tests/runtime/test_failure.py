"""When a plan fails: the chain of answers, and an account that hides nothing."""

import logging

import numpy as np
import pytest
from builders.runtime import TOUCH as SPEC
from builders.runtime import TOUCH_SCHEDULE as SCHEDULE
from builders.runtime import TOUCH_TARGET as TARGET

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem, PlanResult
from vj2_ddim_plugin.errors import (
    BundleError,
    ConfigError,
    ConstraintError,
    ContextError,
    CostError,
    ProviderError,
)
from vj2_ddim_plugin.interface import PlanConstraints
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

WARM = np.zeros((2, 10, 3), np.float32)
WARM[:, 2:6] = (0.25, 0.75, 1.0)


class Host:
    """Another optimizer, which answers with one tap."""

    def __init__(self, actions=WARM, error=None):
        self.actions, self.error, self.calls = actions, error, 0

    def optimize(self, problem):
        self.calls += 1
        if self.error is not None:
            raise self.error
        batch = len(self.actions)
        return PlanResult(
            actions=self.actions,
            cost=np.zeros(batch),
            history=np.zeros((1, batch)),
            num_cost_evaluations=7,
            num_denoiser_evaluations=0,
            wall_time_s={"total": 0.0},
            provider="host",
            stopped_because="finished",
            projection_distance=np.zeros(batch),
        )


class DeadModel(GaussianModel):
    """Its provider dies at a given call."""

    calls, dies_at = 0, 3

    def denoise(self, sample, timestep, condition):
        self.calls += 1
        if self.calls >= self.dies_at:
            raise ProviderError("denoiser.onnx: CUDAExecutionProvider failed: device lost")
        return super().denoise(sample, timestep, condition)


class NaNModel(GaussianModel):
    def denoise(self, sample, timestep, condition):
        return np.full_like(sample, np.nan)


def make_optimizer(model=None, **settings):
    model = model or GaussianModel(SPEC, SCHEDULE, 0.0, 0.5, conditional=True)
    return DDIMOptimizer(model, num_candidates=4, **settings)


def raising(candidates):
    raise RuntimeError("world model out of memory")


def problem_with(**changes):
    fields = {"context": {"mean": np.zeros((2, 1))}, "cost": QuadraticCost(TARGET)}
    return PlanningProblem(**{**fields, "init_action": WARM, **changes})


FAILURES = {
    "a cost that raises": (None, {"cost": raising}, CostError, "out of memory"),
    "NaN costs": (
        None,
        {"cost": lambda c: np.full(c.shape[:2], np.nan)},
        CostError,
        "NaN or infinite for every candidate",
    ),
    "infinite costs of one problem": (
        None,
        {"cost": lambda c: np.repeat([[0.0], [np.inf]], c.shape[1], axis=1)},
        CostError,
        "of problem 1",
    ),
    "a cost of the wrong shape": (
        None,
        {"cost": lambda c: np.zeros(3)},
        CostError,
        r"returned shape \(3,\)",
    ),
    "a context with NaN": (
        None,
        {"context": {"mean": np.full((2, 1), np.nan)}},
        ContextError,
        "NaN",
    ),
    "a context of the wrong width": (
        None,
        {"context": {"mean": np.zeros((2, 5))}},
        ContextError,
        r"shape \(2, 5\)",
    ),
    "a provider that dies": (DeadModel, {"context": {}}, ProviderError, "device lost"),
    "a denoiser that returns NaN": (NaNModel, {"context": {}}, BundleError, "NaN or infinite"),
    "constraints that cannot be kept": (
        None,
        {"constraints": PlanConstraints(forbidden=[(-1, -1, 2, 2)])},
        ConstraintError,
        "cover all",
    ),
}


@pytest.fixture(params=FAILURES.values(), ids=FAILURES.keys())
def failure(request):
    model, changes, error, message = request.param
    return (model and model(SPEC, SCHEDULE)), problem_with(**changes), error, message


def test_without_a_chain_the_error_is_raised(failure):
    model, problem, error, message = failure
    with pytest.raises(error, match=message):
        make_optimizer(model).optimize(problem)


def test_the_previous_plan_answers_and_says_why(failure, caplog):
    model, problem, error, _ = failure
    if problem.constraints is not None:
        pytest.skip("no plan at all keeps these")
    with caplog.at_level(logging.WARNING):
        result = make_optimizer(model, on_failure="previous").optimize(problem)
    np.testing.assert_array_equal(result.actions, WARM)
    assert result.planned_by == "previous"
    assert result.stopped_because == "failure"
    assert result.failures[0].startswith(f"optimizer: {error.__name__}: ")
    assert "asking previous" in caplog.text
    if isinstance(problem.cost, QuadraticCost):
        np.testing.assert_allclose(result.cost, QuadraticCost(TARGET)(WARM[:, None])[:, 0])
    else:
        assert np.isnan(result.cost).all()
        assert result.failures[1].startswith("cost of the previous plan: CostError")


def test_the_chain_is_asked_in_its_order():
    first, second = Host(error=RuntimeError("also down")), Host()
    optimizer = make_optimizer(on_failure=("previous", first, second))
    result = optimizer.optimize(problem_with(cost=raising, init_action=None))
    assert (result.planned_by, result.provider, first.calls, second.calls) == ("host", "host", 1, 1)
    assert [line.split(":")[0] for line in result.failures] == ["optimizer", "previous", "host"]
    assert "also down" in result.failures[2]
    assert result.num_cost_evaluations == 7


def test_when_every_link_fails_the_first_error_is_raised_with_notes():
    optimizer = make_optimizer(on_failure=["previous", Host(error=ValueError("no"))])
    with pytest.raises(CostError, match="out of memory") as caught:
        optimizer.optimize(problem_with(cost=raising, init_action=None))
    assert len(caught.value.__notes__) == 2
    assert "no init_action" in caught.value.__notes__[0]
    assert "ValueError: no" in caught.value.__notes__[1]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full((2, 10, 3), np.nan), "NaN or infinite"),
        (np.zeros((2, 9, 3)), r"\(2, 9, 3\)"),
        (np.zeros((3, 10, 3)), "3 plans for 2 problems"),
    ],
)
def test_a_hosts_plan_is_checked_as_ours_is(actions, message):
    optimizer = make_optimizer(on_failure=[Host(actions)])
    with pytest.raises(CostError) as caught:
        optimizer.optimize(problem_with(cost=raising))
    assert message.replace("\\", "") in caught.value.__notes__[0]


def test_the_number_of_problems_is_read_from_the_context_too():
    problem = problem_with(cost=raising, init_action=None)  # two problems
    with pytest.raises(CostError) as caught:
        make_optimizer(on_failure=[Host(WARM[:1])]).optimize(problem)
    assert "1 plans for 2 problems" in caught.value.__notes__[0]
    with pytest.raises(ContextError) as caught:
        make_optimizer(on_failure="previous").optimize(problem_with(init_action=WARM[:1]))
    assert "batch sizes disagree" in caught.value.__notes__[0]


def test_an_answer_of_another_kind_or_out_of_bounds_is_passed_over():
    class Odd:
        def optimize(self, problem):
            return {"actions": WARM}

    wide = Host(np.full((2, 10, 3), 99.0, np.float32))
    result = make_optimizer(on_failure=[Odd(), wide, Host()]).optimize(problem_with(cost=raising))
    np.testing.assert_array_equal(result.actions, WARM)
    assert "returned a dict" in result.failures[1]
    assert "leaves the bounds" in result.failures[2]


def test_a_link_gets_the_time_that_is_left(clock):
    seen = []

    class Timed(Host):
        def optimize(self, problem):
            seen.append(problem.deadline_s)
            clock["s"] += 0.01
            return super().optimize(problem)

    def slow(candidates):
        clock["s"] += 0.04
        raise RuntimeError("down")

    problem = problem_with(cost=slow, deadline_s=0.05)
    result = make_optimizer(on_failure=[Timed()]).optimize(problem)
    assert seen == [pytest.approx(0.01)]
    assert result.wall_time_s["total"] == pytest.approx(0.05)


def test_the_previous_plan_is_made_to_keep_the_constraints():
    constraints = PlanConstraints(forbidden=[(0.2, 0.7, 0.3, 0.8)])
    result = make_optimizer(on_failure="previous").optimize(
        problem_with(cost=raising, constraints=constraints)
    )
    pressed = result.actions[result.actions[..., 2] > 0.5]
    inside = ((pressed[:, :2] >= (0.2, 0.7)) & (pressed[:, :2] <= (0.3, 0.8))).all(axis=1)
    assert len(pressed)
    assert not inside.any()


def test_interrupts_are_not_failures():
    def interrupted(candidates):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_optimizer(on_failure=[Host()]).optimize(problem_with(cost=interrupted))


def test_a_hosts_plan_has_to_keep_the_constraints():
    optimizer = make_optimizer(on_failure=[Host()])
    constraints = PlanConstraints(forbidden=[(0.2, 0.7, 0.3, 0.8)])
    with pytest.raises(CostError) as caught:
        optimizer.optimize(problem_with(cost=raising, constraints=constraints))
    assert "does not keep the constraints" in caught.value.__notes__[0]


def test_where_nothing_fails_nobody_is_asked():
    host = Host()
    result = make_optimizer(on_failure=[host]).optimize(problem_with())
    assert (host.calls, result.planned_by, result.failures) == (0, "optimizer", ())


@pytest.mark.parametrize("chain", ["last", ["previous", 3], [None]])
def test_a_chain_of_something_else_is_refused(chain):
    with pytest.raises(ConfigError, match="use 'previous'"):
        make_optimizer(on_failure=chain)
