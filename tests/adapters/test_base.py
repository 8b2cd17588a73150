"""What passes between a host and an optimizer: sizes, bounds, finiteness, each named when wrong."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.adapters import TOUCH, TWO_TOUCHES, gaussian_optimizer, robot_spec
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_plugin.adapters import base
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError, CostError
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.interface import PlanningProblem


@given(st.integers(-1, 4), st.integers(1, 9), *[st.integers(1, 3)] * 3)
def test_a_host_fits_when_it_begins_ours(horizon, action_dim, blocks, packed, channels):
    spec = robot_spec(blocks, packed, "abc"[:channels])
    fits = action_dim == packed * channels and 1 <= horizon <= blocks
    refused = pytest.raises(ActionError, match=r"^X (takes|plans)")
    with nullcontext() if fits else refused:
        base.check_fit(spec, horizon=horizon, action_dim=action_dim, host="X")


def test_a_plan_within_bounds_passes_as_it_is():
    low, high = TOUCH.low_array, TOUCH.high_array
    plan = np.random.default_rng(0).uniform(low, high, (3, 20, 3)).astype(np.float32)
    assert base.checked_plan(plan, TOUCH, 3, "X") is plan
    rounded = np.full((1, 20, 3), np.nextafter(np.float32(1), np.float32(2)))
    base.checked_plan(rounded, TOUCH, 1, "X")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ((1, 4, 0), np.nan, "1 values that are NaN or infinite"),
        ((0, 0, 2), -np.inf, "1 values that are NaN or infinite"),
        ((2, 19, 0), 1.01, r"channel 'x': 1\.01 to 1\.01, allowed are 0 to 1"),
        ((0, 0, 1), -0.01, r"channel 'y': -0\.01 to -0\.01, allowed are 0 to 1"),
    ],
)
def test_one_bad_entry_is_found_wherever_it_is(at, value, message):
    plan = np.full((3, 20, 3), 0.75)
    plan[at] = value
    with pytest.raises(ActionError, match=message):
        base.checked_plan(plan, TOUCH, 3, "X")
    with pytest.raises(ContextError, match=f"warm start.*{message}"):
        base.checked_init_action(torch.tensor(plan), TOUCH, 3)


def test_where_the_finger_is_up_nothing_is_out_of_bounds():
    spec = replace(TOUCH, action_low=(0.05, 0.05, 0.0))
    plan = np.zeros((1, 20, 3), np.float32)  # a released step is all zeros, whatever the bounds
    plan[:, 5:10] = (0.5, 0.5, 1.0)
    assert is_valid(plan, spec).all()
    assert base.checked_plan(plan, spec, 1, "X") is plan
    warm = base.checked_init_action(torch.tensor(plan), spec, 1)
    np.testing.assert_array_equal(warm, plan)
    plan[:, 7, 0] = 0.0
    with pytest.raises(ActionError, match=r"channel 'x': 0 to 0, allowed are 0\.05 to 1"):
        base.checked_plan(plan, spec, 1, "X")


@given(side=st.sampled_from([-1.0, 1.0]), share=st.floats(1e-8, 1e-3), bound=st.floats(0.01, 100))
def test_a_warm_start_may_leave_the_bounds_exactly_where_a_problem_may(side, share, bound):
    spec = robot_spec(1, 2, bound=bound)
    plan = torch.full((1, 2, 2), side * bound * (1 + share), dtype=torch.float64)
    optimizer = gaussian_optimizer(spec, num_candidates=1, num_inference_steps=1)
    try:
        optimizer.optimize(PlanningProblem(init_action=plan.float().numpy()))
    except ContextError:
        with pytest.raises(ContextError, match="leaves the bounds"):
            base.checked_init_action(plan, spec, 1)
    else:
        base.checked_init_action(plan, spec, 1)


@given(
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    low=st.floats(-3, -0.1),
    high=st.floats(0.1, 3),
)
def test_a_warm_start_that_its_dtype_rounded_out_of_bounds_is_put_back(dtype, low, high):
    spec = replace(robot_spec(1, 2, "a"), action_low=(low,), action_high=(high,))
    rounded = torch.tensor([[[low], [high]]]).to(dtype)
    warm = base.checked_init_action(rounded, spec, 1)
    expected = np.clip(rounded.double().numpy(), low, high)
    np.testing.assert_allclose(warm, expected, rtol=1e-6)
    with pytest.raises(ContextError, match="leaves the bounds"):
        base.checked_init_action((rounded.double() * 1.02).to(dtype), spec, 1)


def test_a_plan_of_another_shape_is_refused():
    for shape in ((2, 20, 3), (3, 19, 3), (3, 20, 2), (3, 60), (3, 20, 3, 1)):
        with pytest.raises(ActionError, match=r"expected \(3, 20, 3\)"):
            base.checked_plan(np.zeros(shape), TOUCH, 3, "X")


def test_a_warm_start_may_be_short_or_empty_but_not_long():
    for length in (1, 20, 40):
        actions = torch.rand(2, length, 3)
        np.testing.assert_array_equal(base.checked_init_action(actions, TWO_TOUCHES, 2), actions)
    assert base.checked_init_action(torch.zeros(2, 0, 3), TWO_TOUCHES, 2) is None
    for shape in ((2, 41, 3), (1, 4, 3), (2, 4, 2), (2, 3)):
        with pytest.raises(ContextError, match="warm start"):
            base.checked_init_action(torch.zeros(shape), TWO_TOUCHES, 2)


def test_one_cost_for_each_candidate():
    costs = torch.zeros(4)
    assert base.checked_costs(costs, 4, "X") is costs
    for wrong in (torch.zeros(3), torch.zeros(4, 1), torch.tensor(0.0)):
        with pytest.raises(CostError, match="objective of X returned shape"):
            base.checked_costs(wrong, 4, "X")


def test_an_optimizer_has_to_say_what_it_plans():
    optimizer = gaussian_optimizer(TOUCH)
    assert base.spec_of(optimizer) is TOUCH

    class Nameless:
        def optimize(self, problem):
            return problem

    for wrong in (Nameless(), TOUCH, 3):
        with pytest.raises(ConfigError, match=f"found {type(wrong).__name__}"):
            base.spec_of(wrong)


def test_an_optimizer_gets_what_it_is_conditioned_on_and_nothing_else():
    given_ = {"state": torch.ones(1, 2, dtype=torch.float64), "goal": torch.zeros(1, 2)}
    assert base.wanted_context(gaussian_optimizer(TOUCH), given_, "X") == {}
    everything = base.wanted_context(object(), given_, "X")
    assert set(everything) == {"state", "goal"}
    assert {array.dtype for array in everything.values()} == {np.dtype(np.float32)}
