"""What passes between a host and an optimizer: sizes, bounds, finiteness, each named when wrong."""

import numpy as np
import pytest
import torch
from adapter_tools import TOUCH, TWO_TOUCHES, gaussian_optimizer, robot_spec
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_plugin.adapters import checks
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError, CostError


@given(
    horizon=st.integers(-1, 4),
    action_dim=st.integers(1, 9),
    blocks=st.integers(1, 3),
    packed=st.integers(1, 3),
    channels=st.integers(1, 3),
)
def test_a_host_fits_when_its_plan_is_the_beginning_of_ours(
    horizon, action_dim, blocks, packed, channels
):
    spec = robot_spec(blocks, packed, "abc"[:channels])
    fits = action_dim == packed * channels and 1 <= horizon <= blocks
    if fits:
        checks.check_fit(spec, horizon=horizon, action_dim=action_dim, host="X")
        return
    with pytest.raises(ActionError, match=r"^X (takes|plans)"):
        checks.check_fit(spec, horizon=horizon, action_dim=action_dim, host="X")


def test_a_plan_within_bounds_passes_as_it_is():
    low, high = TOUCH.low_array, TOUCH.high_array
    plan = np.random.default_rng(0).uniform(low, high, (3, 20, 3)).astype(np.float32)
    assert checks.checked_plan(plan, TOUCH, 3, "X") is plan
    rounded = np.full((1, 20, 3), np.nextafter(np.float32(1), np.float32(2)))
    checks.checked_plan(rounded, TOUCH, 1, "X")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ((1, 4, 0), np.nan, "1 values that are NaN or infinite"),
        ((0, 0, 2), -np.inf, "1 values that are NaN or infinite"),
        ((2, 19, 0), 1.01, r"channel 'x': 0\.5 to 1\.01, allowed are 0 to 1"),
        ((0, 0, 1), -0.01, r"channel 'y': -0\.01 to 0\.5, allowed are 0 to 1"),
    ],
)
def test_one_bad_entry_is_found_wherever_it_is(at, value, message):
    plan = np.full((3, 20, 3), 0.5)
    plan[at] = value
    with pytest.raises(ActionError, match=message):
        checks.checked_plan(plan, TOUCH, 3, "X")
    with pytest.raises(ContextError, match=f"warm start.*{message}"):
        checks.checked_init_action(plan, TOUCH, 3)


@pytest.mark.parametrize("shape", [(2, 20, 3), (3, 19, 3), (3, 20, 2), (3, 60), (3, 20, 3, 1)])
def test_a_plan_of_another_shape_is_refused(shape):
    with pytest.raises(ActionError, match=r"expected \(3, 20, 3\)"):
        checks.checked_plan(np.zeros(shape), TOUCH, 3, "X")


def test_a_warm_start_may_be_short_or_empty_but_not_long():
    for length in (1, 20, 40):
        actions = np.zeros((2, length, 3), np.float32)
        assert checks.checked_init_action(actions, TWO_TOUCHES, 2) is actions
    assert checks.checked_init_action(np.zeros((2, 0, 3)), TWO_TOUCHES, 2) is None
    for shape in ((2, 41, 3), (1, 4, 3), (2, 4, 2), (2, 3)):
        with pytest.raises(ContextError, match="warm start"):
            checks.checked_init_action(np.zeros(shape), TWO_TOUCHES, 2)


def test_one_cost_for_each_candidate():
    costs = torch.zeros(4)
    assert checks.checked_costs(costs, 4, "X") is costs
    for wrong in (torch.zeros(3), torch.zeros(4, 1), torch.tensor(0.0)):
        with pytest.raises(CostError, match="objective of X returned shape"):
            checks.checked_costs(wrong, 4, "X")


def test_an_optimizer_has_to_say_what_it_plans():
    optimizer = gaussian_optimizer(TOUCH)
    assert checks.spec_of(optimizer) is TOUCH

    class Nameless:
        def optimize(self, problem):
            return problem

    for wrong in (Nameless(), TOUCH, 3):
        with pytest.raises(ConfigError, match=f"found {type(wrong).__name__}"):
            checks.spec_of(wrong)


def test_an_optimizer_gets_what_it_is_conditioned_on_and_nothing_else():
    given_ = {"state": torch.ones(1, 2, dtype=torch.float64), "goal": torch.zeros(1, 2)}
    assert checks.wanted_context(gaussian_optimizer(TOUCH), given_, "X") == {}
    everything = checks.wanted_context(object(), given_, "X")
    assert set(everything) == {"state", "goal"}
    assert {array.dtype for array in everything.values()} == {np.dtype(np.float32)}
