"""Problems, constraints, settings and costs as nobody should write them.

Each is either refused by an error of the project, or its plan is valid: finite, in bounds, a
gesture, within the constraints, of exactly the cost that is told, never worse than the warm start,
and the same again for the same seed.
"""

import math
from dataclasses import replace

import numpy as np
from builders.fuzz import fuzzed
from hypothesis import event, given
from hypothesis import strategies as st

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.constraints import Rules
from vj2_ddim_plugin.errors import VJ2DDIMError
from vj2_ddim_plugin.gestures import is_valid, outside_bounds
from vj2_ddim_plugin.interface import PlanConstraints
from vj2_ddim_plugin.planning.checks import cost_of, padded_warm_start
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel

SCHEDULE = NoiseSchedule(num_train_timesteps=50)
SPECS = [
    ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6),
    ActionSpec(action_block=8, horizon=2, min_press_steps=3, path_knots=3, max_press_steps=None),
    ActionSpec(
        action_block=8, min_press_steps=0, max_press_steps=8, path_knots=None, representation="raw",
    ),
    ActionSpec(
        action_block=9, min_press_steps=2, representation="held", max_press_steps=5,
        action_low=(-200.0, 3.0, 0.0), action_high=(1000.0, 4.0, 1.0),
    ),
    ActionSpec(
        action_block=5, channels=("a",), action_low=(-1e-6,), action_high=(1e-6,),
        press_channel=None, representation="raw",
    ),
]  # fmt: skip
ODD = [
    None, math.nan, math.inf, -math.inf, 1e30, 5e-324, -1, 0, 1, 2, 10**400, -(10**5000), True, 2.5,
    2**64, "x", "", b"cpu", [], {}, (), [None], 1j, object(), {"a": 1}, lambda: 1, range(3),
    np.float64(0.5), np.array(3), np.array([]), np.zeros(3), np.zeros((1, 2, 3)), np.array("x"),
    np.ma.masked, np.ma.masked_array([1.0], True), np.full((2, 2), None), PlanConstraints,
]  # fmt: skip
SETTINGS = {
    "num_inference_steps": st.integers(1, 6),
    "num_candidates": st.integers(1, 9),
    "num_ranked": st.one_of(st.none(), st.integers(1, 9)),
    "eta": st.floats(0, 1),
    "guidance_scale": st.floats(0, 100),
    "temperature": st.floats(0, 1),
    "num_refinements": st.sampled_from([0, 0, 1, 3, None]),
    "refinement_strength": st.floats(0, 1),
    "num_robust": st.integers(0, 9),
    "robust_radius": st.floats(0, 1),
    "warm_start_share": st.floats(0, 1),
    "project": st.booleans(),
    "timestep_spacing": st.sampled_from([None, "leading", "trailing", "linspace", "odd"]),
    "seed": st.integers(0, 2**64),
}
odd = st.sampled_from(ODD)
mostly = st.sampled_from([False, False, False, True])
numbers = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 0.5, 1.0, -1.0, 1e9, 1e-40, 1e300, math.nan, math.inf]),
)


class Model(GaussianModel):
    """Has a ranker, and a null condition."""

    def ranker(self, candidates, condition):
        return candidates.mean(axis=(1, 2)) + condition[:, 0, 0]


def level(candidates):
    return np.abs(candidates - 0.3).mean(axis=(2, 3))


def changing(candidates):
    cost = level(candidates)
    candidates[:] = np.nan
    return cost


COSTS = {
    "level": level,
    "steep": lambda c: np.exp(np.clip(level(c) * 1e3, None, 700)),
    "flat": lambda c: np.zeros(c.shape[:2]),
    "tiny": lambda c: level(c) * 5e-324,
    "list": lambda c: level(c).tolist(),
    "half": lambda c: level(c).clip(0, 100).astype(np.float16),
    "changes what it is given": changing,
    "some NaN": lambda c: np.where(level(c) > np.median(level(c)), math.nan, level(c)),
    "minus infinity": lambda c: np.where(c[..., -1, 0] > 0.1, -math.inf, level(c)),
    "infinity": lambda c: np.where(c[..., -1, 0] > 0.1, math.inf, level(c)),
    "all NaN": lambda c: level(c) * math.nan,
    "raises": lambda c: level(c) / int(False),
    "no argument": lambda: 0,
    "complex": lambda c: level(c) * 1j,
    "masked": lambda c: np.ma.masked_array(level(c), level(c) > 0),
    "text": lambda c: "low",
    "one too few": lambda c: level(c)[:, 1:],
    "one axis": lambda c: level(c)[0],
    "nothing": lambda c: None,
}  # fmt: skip


@st.composite
def arrays(draw, shape):
    """An array of this shape, or nearly: random numbers, one of them odd, of an odd type."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = rng.uniform(0, draw(st.sampled_from([1, 1, 1, 2, 1e-45, 1e9])), shape)
    if array.size and draw(mostly):
        array.flat[draw(st.integers(0, array.size - 1))] = draw(numbers)
    if draw(mostly):
        kind = draw(st.sampled_from(["f2", "f4", "i8", "u1", "?", "c8", "O", "U8", "g", "M8[s]"]))
        with np.errstate(all="ignore"):
            array = (
                np.nan_to_num(array).astype(kind) if kind in ("i8", "u1") else array.astype(kind)
            )
    change = draw(st.sampled_from(["none"] * 6 + ["less", "flat", "more", "mask", "list"]))
    changed = {"less": lambda a: a[..., 1:], "flat": np.ravel, "more": lambda a: a[None]}
    changed |= {"mask": np.ma.masked_array, "list": lambda a: a.tolist()}
    return changed.get(change, lambda a: a)(array)


@st.composite
def gestures(draw, spec, batch, steps):
    """Warm starts that are nearly gestures."""
    array = draw(arrays((batch, steps, spec.num_channels)))
    if spec.press_channel is not None and isinstance(array, np.ndarray) and array.ndim == 3:
        begin = draw(st.integers(0, steps))
        down = np.arange(steps) >= begin
        if array.shape[1:] == (steps, spec.num_channels) and array.dtype.kind == "f":
            array = np.where(down[None, :, None], array, 0)
            array[..., spec.press_index] = down
    return array


@st.composite
def constraints(draw, spec, batch):
    shape = (spec.length, spec.num_channels)
    fixed = np.full(shape, np.nan)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        fixed[place] = draw(st.one_of(st.sampled_from([0.0, 1.0, 0.5]), numbers))
    corners = st.lists(st.one_of(st.floats(0, 1), numbers), min_size=4, max_size=4)
    channel = st.one_of(st.floats(0, 1), numbers)
    bounds = st.lists(channel, min_size=shape[1], max_size=shape[1])
    fields = {
        "fixed": st.just(fixed),
        "forbidden": st.lists(corners, max_size=3),
        "action_low": bounds,
        "action_high": bounds,
    }
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True))
    return PlanConstraints(**{name: draw(odd if draw(mostly) else fields[name]) for name in chosen})


@st.composite
def problems(draw, spec, batch):
    fields = {
        "context": st.fixed_dictionaries({"mean": arrays((batch, 1))}),
        "init_action": st.integers(1, spec.length).flatmap(
            lambda steps: gestures(spec, batch, steps)
        ),
        "frozen_action": st.integers(1, spec.length - 1).flatmap(
            lambda steps: gestures(spec, batch, steps)
        ),
        "deadline_s": st.sampled_from([0.0, -1.0, 1e-9, 0.003, 60, math.inf]),
        "seed": st.integers(0, 2**64 - 1),
        "batch_size": st.just(batch),
        "constraints": constraints(spec, batch),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True))
    mean = np.zeros((batch, 1), np.float32)
    values = {name: draw(odd if draw(mostly) else fields[name]) for name in chosen}
    return PlanningProblem(**{"context": {"mean": mean}, **values})


def check(result, problem, settings, spec):
    """Whether a plan is what was promised."""
    actions, batch = result.actions, len(result.actions)
    assert actions.shape == (batch, spec.length, spec.num_channels)
    assert np.isfinite(actions).all()
    rules = Rules(problem, spec, batch, project=settings.project)
    assert rules.kept(actions[:, None]).all()
    warm = padded_warm_start(problem.init_action, spec, batch)
    is_warm = (warm == actions[:, None]).all(axis=(1, 2, 3)) & (warm.shape[1] > 0)
    if settings.project and not rules.active:
        assert not outside_bounds(actions, spec).any()
        if spec.press_channel is not None:
            assert (is_valid(actions, spec) | is_warm).all()
    assert result.cost.shape == result.projection_distance.shape == (batch,)
    assert (result.projection_distance >= 0).all()
    assert (result.history[1:] <= result.history[:-1]).all()
    assert result.num_cost_evaluations >= 0 <= result.num_denoiser_evaluations
    assert result.stopped_because in ("finished", "deadline")
    assert result.wall_time_s["total"] >= 0
    if problem.cost is None:
        assert np.isnan(result.cost).all()
        return
    known = ~np.isnan(result.cost)
    if not known.any():  # there was no time to ask for it
        assert result.stopped_because == "deadline"
        return
    own = cost_of(problem.cost, actions[:, None])[:, 0]
    if problem.cost is not COSTS["some NaN"]:  # whose cost depends on the other candidates
        np.testing.assert_array_equal(result.cost[known], own[known])
        if warm.shape[1] and settings.num_robust == 0:
            left = rules.enforce(warm)
            allowed = rules.kept(left)[:, 0] & known
            assert (own <= cost_of(problem.cost, left)[:, 0])[allowed].all()


@fuzzed
@given(st.data())
def test_a_problem_is_refused_or_its_plan_is_valid(data):
    draw = data.draw
    spec, batch = draw(st.sampled_from(SPECS)), draw(st.integers(1, 3))
    names = draw(st.lists(st.sampled_from(sorted(SETTINGS)), max_size=3, unique=True))
    settings = {"num_inference_steps": 2, "num_candidates": 5}
    for name in names:
        settings[name] = draw(odd) if draw(mostly) and draw(mostly) else draw(SETTINGS[name])
    cost = draw(st.one_of(st.none(), st.sampled_from(sorted(COSTS))))
    problem = draw(problems(spec, batch))
    problem = replace(problem, cost=COSTS.get(cost))
    if draw(mostly) and draw(mostly):
        problem = replace(problem, cost=draw(odd))
    model = Model(spec, SCHEDULE, 0.0, 0.5, conditional=True)
    try:
        optimizer = DDIMOptimizer(model, **settings)
        result = optimizer.optimize(problem)
    except VJ2DDIMError as error:
        refused = error
    else:
        refused = None
    event(f"refused: {type(refused).__name__}" if refused else "a plan")
    if refused:
        assert 10 < len(str(refused)) < 2000
        return
    check(result, problem, optimizer.settings, spec)
    if problem.deadline_s is None or problem.deadline_s >= 60:
        np.testing.assert_array_equal(optimizer.optimize(problem).actions, result.actions)
