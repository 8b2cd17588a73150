"""Problems, constraints and settings of the wrong kind: one error each, that names the field."""

import decimal
import math
import warnings

import numpy as np
import pytest
from builders.runtime import FREE, SCHEDULE, TARGET

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem, SearchSettings, SessionSettings
from vj2_ddim_plugin.errors import ConfigError, ConstraintError, ContextError, CostError
from vj2_ddim_plugin.interface import PlanConstraints, PlanResult
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.planning.checks import checked_deadline
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

TOUCH = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
MEAN = np.zeros((1, 1), np.float32)
HUGE = 10**5000  # which Python does not even print
masked = np.ma.masked_array


def make(spec=FREE, **settings):
    model = GaussianModel(spec, SCHEDULE, 0.0, 0.5, conditional=True)
    return DDIMOptimizer(model, num_inference_steps=2, num_candidates=4, **settings)


def plan(spec=FREE, **fields):
    return make(spec).optimize(PlanningProblem(**{"context": {"mean": MEAN}, **fields}))


NO_NUMBERS = {
    "text": "fast",
    "texts": np.full((1, 6, 2), "0.5"),
    "complex": np.zeros((1, 6, 2), complex),
    "masked": masked(np.zeros((1, 6, 2)), mask=True),
    "objects": np.full((1, 6, 2), 0.5, object),
    "truth values": np.zeros((1, 6, 2), bool),
    "times": np.zeros((1, 6, 2), "datetime64[s]"),
    "a set": {0.5},
    "ragged": [[[0.0], [0.0, 0.0]]],
    "records": np.zeros((1, 6, 2), [("a", float)]),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
@pytest.mark.parametrize("field", ["init_action", "frozen_action", "context"])
def test_what_is_no_array_of_numbers_is_named(field, name):
    value = {"mean": NO_NUMBERS[name]} if field == "context" else NO_NUMBERS[name]
    with pytest.raises(ContextError, match=f"{field}.* is not an array of numbers"):
        plan(**{field: value})


@pytest.mark.parametrize("name", NO_NUMBERS)
@pytest.mark.parametrize("field", ["action_low", "action_high", "fixed", "forbidden"])
def test_constraints_that_are_no_numbers_are_named(field, name):
    with pytest.raises(ConstraintError, match=f"{field} .*is not an array of numbers"):
        plan(TOUCH, constraints=PlanConstraints(**{field: NO_NUMBERS[name]}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": None}, "context must map names to arrays; found None"),
        ({"context": [("mean", MEAN)]}, "context must map names"),
        ({"context": MEAN}, "context must map names"),
        ({"context": {}}, r"context has \[\], this model needs \['mean'\]"),
        ({"context": {"mean": MEAN, 3: MEAN}}, r"context has \['3', 'mean'\]"),
        ({"context": {"mean": np.float32(0)}}, r"context 'mean' has shape \(\)"),
        ({"context": {"mean": MEAN * math.nan}}, "context 'mean' has 1 values that are NaN"),
        ({"context": {"mean": [[1e300]]}}, "context 'mean' has 1 values that are NaN or infinite"),
        ({"cost": 0.5}, "cost must be a function, or None; found 0.5"),
        ({"cost": {}}, "cost must be a function"),
        ({"constraints": {}}, "constraints must be PlanConstraints, or None; found {}"),
        ({"constraints": PlanConstraints}, "constraints must be PlanConstraints"),
        ({"constraints": False}, "constraints must be PlanConstraints"),
        ({"deadline_s": -math.inf}, "deadline_s must be a number of seconds.*-inf"),
        ({"deadline_s": math.nan}, "deadline_s must be"),
        ({"deadline_s": True}, "deadline_s must be"),
        ({"deadline_s": "0.1"}, "deadline_s must be"),
        ({"deadline_s": 1j}, "deadline_s must be"),
        ({"deadline_s": np.array([0.1])}, "deadline_s must be"),
        ({"deadline_s": decimal.Decimal(1)}, "deadline_s must be"),
        ({"seed": -1}, "seed must be an integer of at least 0.*-1"),
        ({"seed": 2**64}, "seed must be .*at most"),
        ({"seed": HUGE}, "seed must be .*that cannot be shown"),
        ({"seed": 1.0}, "seed must be"),
        ({"seed": True}, "seed must be"),
        ({"seed": "1"}, "seed must be"),
        ({"seed": [1, 2]}, "seed must be"),
        ({"batch_size": 1.0}, "batch_size must be an integer, or None; found 1.0"),
        ({"batch_size": True}, "batch_size must be"),
        ({"batch_size": "1"}, "batch_size must be"),
        ({"batch_size": 0}, "batch sizes disagree"),
        ({"batch_size": HUGE}, "batch sizes disagree"),
        ({"init_action": np.float32(0.5)}, r"init_action has shape \(\)"),
        ({"init_action": np.zeros((6, 2))}, r"init_action has shape \(6, 2\)"),
        ({"init_action": np.full((1, 6, 2), 1e300)}, "init_action has values that are NaN"),
        ({"init_action": np.full((1, 6, 2), 3e38)}, "init_action has values .* above 1e"),
        ({"frozen_action": np.full((1, 2, 2), -3e38)}, "frozen_action has values .* above 1e"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(fields, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ContextError, match=message):
            plan(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action_low": [math.nan, 0.0, 0.0]}, "bounds leave nothing"),
        ({"action_low": [math.inf, 0.0, 0.0]}, "bounds leave nothing"),
        ({"action_high": 0.5}, "one value a channel"),
        ({"fixed": np.full((10, 3), 1e300)}, "fixed holds inf"),
        ({"fixed": np.zeros((2, 10, 3))}, "fixed has shape"),
        ({"fixed": 0.0}, "fixed has shape"),
        ({"forbidden": [(0.1, 0.1, 0.2, math.inf)]}, "must be rectangles"),
        ({"forbidden": 0.5}, "must be rectangles"),
        ({"forbidden": [(0.1, 0.1, 0.2, 0.2)] * 257}, "257 rectangles; at most 256"),
    ],
)
def test_constraints_out_of_range_are_named(fields, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConstraintError, match=message):
            plan(TOUCH, constraints=PlanConstraints(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": np.int64(3)},
        {"seed": np.array(3)},
        {"seed": 3, "batch_size": np.int32(1), "deadline_s": np.float32(60)},
        {"seed": 3, "deadline_s": 10**400},
        {"seed": 3, "deadline_s": np.inf, "context": {"mean": [[0]]}},
        {"seed": 3, "constraints": PlanConstraints(forbidden=None)},
    ],
)
def test_numbers_of_other_libraries_are_numbers(fields):
    np.testing.assert_allclose(plan(**fields).actions, plan(seed=3).actions, atol=1e-6)


@pytest.mark.parametrize(("given", "kept"), [(-1.0, 0.0), (-(10**400), 0.0), (1e9, None)])
def test_a_deadline_that_is_over_or_never_comes(given, kept):
    assert checked_deadline(PlanningProblem(deadline_s=given)) == kept


@pytest.mark.parametrize("problem", [None, {}, "problem", PlanningProblem, 3])
def test_what_is_no_problem_is_said(problem):
    for chain in ((), ["previous"]):
        with pytest.raises(ContextError, match="problem must be a PlanningProblem; found"):
            make(on_failure=chain).optimize(problem)


# Sizes.


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_candidates": 1_000_000}, {"batch_size": 100}),
        ({}, {"batch_size": 10**9}),
        ({"num_robust": 4}, {"batch_size": 2**28}),
    ],
)
def test_sizes_are_refused_before_anything_is_made(settings, problem):
    optimizer = DDIMOptimizer(GaussianModel(FREE, SCHEDULE), **settings)
    with pytest.raises(ContextError, match=r"too many for one plan; at most 268435456 numbers"):
        optimizer.optimize(PlanningProblem(**problem))


# Settings.


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SearchSettings, {"num_inference_steps": 2.5}, "num_inference_steps must be an integer"),
        (SearchSettings, {"num_inference_steps": True}, "num_inference_steps must be an integer"),
        (SearchSettings, {"num_inference_steps": "10"}, "num_inference_steps must be an integer"),
        (SearchSettings, {"num_inference_steps": [10]}, "num_inference_steps must be an integer"),
        (SearchSettings, {"num_candidates": 10**9}, "num_candidates must be .*at most 1000000"),
        (SearchSettings, {"num_candidates": HUGE}, "num_candidates must be .*cannot be shown"),
        (SearchSettings, {"num_candidates": -HUGE}, "num_candidates must be at least 1"),
        (SearchSettings, {"num_candidates": None}, "num_candidates must be an integer; found None"),
        (SearchSettings, {"num_refinements": 10**9}, "num_refinements must be"),
        (SearchSettings, {"guidance_scale": math.nan}, "guidance_scale must be"),
        (SearchSettings, {"guidance_scale": 1e30}, "guidance_scale must be .*at most 100"),
        (SearchSettings, {"guidance_scale": -1.0}, "guidance_scale must be at least 0"),
        (SearchSettings, {"guidance_scale": 1j}, "guidance_scale must be a number"),
        (SearchSettings, {"guidance_scale": np.array([1.0])}, "guidance_scale must be a number"),
        (SearchSettings, {"eta": HUGE}, "eta must be"),
        (SearchSettings, {"temperature": -0.0001}, "temperature must be"),
        (SearchSettings, {"seed": 2**64}, "seed must be .*at most 18446744073709551615"),
        (SearchSettings, {"seed": -1}, "seed must be at least 0"),
        (SearchSettings, {"seed": 1.0}, "seed must be an integer"),
        (SearchSettings, {"project": 1}, "project must be true or false"),
        (SearchSettings, {"timestep_spacing": 3}, "timestep_spacing 3 is unknown"),
        (SearchSettings, {"timestep_spacing": ["leading"]}, "timestep_spacing .* is unknown"),
        (SessionSettings, {"provider": None}, "provider None is unknown"),
        (SessionSettings, {"provider": b"cpu"}, "provider b'cpu' is unknown"),
        (SessionSettings, {"provider_options": [1]}, "provider_options must be"),
        (
            SessionSettings,
            {"provider_options": {"device_id": "x"}},
            "provider_options .*'device_id",
        ),
        (SessionSettings, {"provider_options": {"device_id": -1}}, "provider_options .*'device_id"),
        (SessionSettings, {"num_threads": 10**6}, "num_threads must be .*at most 1024"),
        (SessionSettings, {"memory_limit_bytes": 2**63}, "memory_limit_bytes must be"),
        (SessionSettings, {"memory_limit_bytes": 1e9}, "memory_limit_bytes must be an integer"),
        (SessionSettings, {"load_limit_s": 0}, "load_limit_s must be above 0"),
        (SessionSettings, {"load_limit_s": math.inf}, "load_limit_s must be"),
        (SessionSettings, {"allow_tf32": "no"}, "allow_tf32 must be true or false"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_candidate": 3}, "'num_candidate' is no setting"),
        ({"settings": {}}, "expected SearchSettings or None; found {}"),
        ({"settings": SessionSettings()}, "expected SearchSettings or None; found SessionSettings"),
        ({"settings": 3}, "expected SearchSettings or None; found 3"),
        ({"on_failure": 3}, "on_failure holds 3; use 'previous'"),
        ({"on_failure": None}, "on_failure holds None"),
        ({"on_failure": ["host"]}, "on_failure holds 'host'"),
        ({"on_failure": [np.zeros(3)]}, "on_failure holds array"),
    ],
)
def test_a_constructor_names_what_it_cannot_take(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


@pytest.mark.parametrize("model", [None, "bundle", {}, DDIMOptimizer])
def test_what_is_no_model_is_said(model):
    with pytest.raises(ConfigError, match=r"expected a SamplerModel; found .*from_bundle takes"):
        DDIMOptimizer(model)


@pytest.mark.parametrize("bundle", [None, 3, ["a"], b"a"])
def test_what_is_no_path_of_a_bundle_is_said(bundle):
    with pytest.raises(ConfigError, match="expected the path of a bundle's folder; found"):
        DDIMOptimizer.from_bundle(bundle)


@pytest.mark.parametrize("session", [{}, 3, SearchSettings()])
def test_what_are_no_settings_of_a_session_is_said(session, tmp_path):
    with pytest.raises(ConfigError, match="expected SessionSettings or None; found"):
        DDIMOptimizer.from_bundle(tmp_path, session=session)
    with pytest.raises(ConfigError, match="expected SessionSettings or None; found"):
        BundleModel(tmp_path, session)


# Costs.


def returning(change):
    return lambda candidates: change(candidates.mean(axis=(2, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: values.astype(complex),
            "cost's result is not an array of numbers.*complex",
        ),
        (lambda values: masked(values, mask=values > 0), "cost's result .* a masked array"),
        (lambda values: values.astype(object), "cost's result .* found object"),
        (lambda values: values.astype(str), "cost's result .* found <U"),
        (lambda values: values > 0, "cost's result .* found bool"),
        (lambda values: None, "cost's result .* found object"),
        (lambda values: "low", "cost's result .* found <U"),
        (lambda values: [[0.0], [0.0, 1.0]], "cost's result is not an array of numbers"),
        (lambda values: values[0], r"cost returned shape \(4,\)"),
        (lambda values: values.sum(), r"cost returned shape \(\)"),
        (lambda values: values * math.nan, "NaN or infinite for every candidate of problem 0"),
        (lambda values: np.full_like(values, math.inf), "NaN or infinite for every candidate"),
        (lambda values: 1 / 0, "cost raised ZeroDivisionError"),
    ],
)
def test_a_cost_that_ranks_nothing_is_said(change, message):
    with pytest.raises(CostError, match=message):
        plan(cost=returning(change))


@pytest.mark.parametrize("settings", [{}, {"num_refinements": 2}, {"num_robust": 2}])
@pytest.mark.parametrize("others", [0.0, math.nan, math.inf])
def test_minus_infinity_is_the_lowest_cost(settings, others):
    """As of a distance's logarithm where the goal is met."""
    asked = []

    def cost(candidates):
        asked.append(candidates)
        values = np.full(candidates.shape[:2], others)
        if candidates.shape[1] == 4 and len(asked) == 1:
            values[:, 2] = -math.inf
        return values

    result = make(**settings).optimize(PlanningProblem({"mean": MEAN}, cost, seed=1))
    if not settings.get("num_robust"):  # there the worst of the neighbours decides
        np.testing.assert_array_equal(result.actions, asked[0][:, 2])
        assert result.cost.tolist() == [-math.inf]
        assert (result.history == -math.inf).all()


def test_a_list_of_numbers_is_a_cost():
    listed = plan(cost=lambda candidates: candidates.mean(axis=(2, 3)).tolist(), seed=1)
    array = plan(cost=lambda candidates: candidates.mean(axis=(2, 3)), seed=1)
    np.testing.assert_array_equal(listed.actions, array.actions)


def test_a_context_too_large_to_be_encoded_is_said():
    class Overflowing(GaussianModel):
        def encode(self, context):
            encoded = super().encode(context)
            return encoded._replace(null_condition=encoded.condition * np.float32(math.inf))

    model = Overflowing(FREE, SCHEDULE, conditional=True)
    with pytest.raises(ContextError, match="the context was encoded as 1 values that are NaN"):
        DDIMOptimizer(model).optimize(PlanningProblem({"mean": MEAN + 1}))


@pytest.mark.parametrize("answer", [np.zeros((1, 6, 2), complex), "plan", None])
def test_another_optimizers_actions_that_are_no_numbers_are_not_the_plan(answer):
    class Host:
        def optimize(self, problem):
            none = np.zeros(1)
            return PlanResult(answer, none, none[None], 0, 0, {}, "host", "finished", none)

    def cost(candidates):
        raise RuntimeError("no")

    for chain in (Host(), [Host()]):
        with pytest.raises(CostError, match="cost raised RuntimeError") as caught:
            make(on_failure=chain).optimize(PlanningProblem({"mean": MEAN}, cost))
        assert "not an array of numbers" in caught.value.__notes__[0]
    assert QuadraticCost(TARGET).calls == 0
