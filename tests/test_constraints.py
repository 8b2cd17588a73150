"""Bounds, fixed entries, forbidden rectangles: every plan that comes back keeps them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConstraintError
from vj2_ddim_plugin.gestures.avoidance import clear_shift, move_clear, touches
from vj2_ddim_plugin.interface import PlanConstraints
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

SPEC = ActionSpec(action_block=20, min_press_steps=4, max_press_steps=10)
SCHEDULE = NoiseSchedule(num_train_timesteps=50, prediction_type="sample")
UNIT = (np.zeros(2), np.ones(2))


def gesture(start, stop, begin, end):
    block = np.zeros((1, SPEC.action_block, 3), np.float32)
    for axis in (0, 1):
        block[0, start:stop, axis] = np.linspace(begin[axis], end[axis], stop - start)
    block[0, start:stop, 2] = 1.0
    return block


def make_optimizer(**settings):
    model = GaussianModel(SPEC, SCHEDULE, np.zeros(SPEC.diffused_shape), 0.7)
    return DDIMOptimizer(model, **{"num_candidates": 8, **settings})


# Geometry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rectangle", "touched"),
    [
        ((0.4, 0.4, 0.6, 0.6), True),  # on the way
        ((0.49, 0.0, 0.495, 1.0), True),  # narrower than one step of the finger
        ((0.0, 0.8, 0.2, 1.0), False),
        ((0.875, 0.875, 1.0, 1.0), True),  # its corner is the last point: edges are included
        ((0.88, 0.88, 1.0, 1.0), False),
    ],
)
def test_a_drag_touches_what_it_crosses(rectangle, touched):
    block = gesture(3, 8, (0.125, 0.125), (0.875, 0.875))
    assert touches(block, np.array([rectangle]), SPEC)[0] == touched


def test_a_lifted_finger_touches_nothing():
    assert not touches(np.zeros((1, 20, 3)), np.array([[0.0, 0.0, 0.1, 0.1]]), SPEC)[0]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_crossing_agrees_with_a_fine_walk_along_the_segment(data):
    unit = st.integers(0, 20).map(lambda n: n / 20)
    points = [(data.draw(unit), data.draw(unit)) for _ in range(2)]
    x, y = sorted((data.draw(unit), data.draw(unit))), sorted((data.draw(unit), data.draw(unit)))
    rectangle = np.array([[x[0] - 0.01, y[0] - 0.01, x[1] + 0.01, y[1] + 0.01]])
    block = np.zeros((1, 20, 3))
    block[0, 5, :2], block[0, 6, :2], block[0, 5:7, 2] = *points, 1.0
    walk = np.linspace(*points, 4001)
    inside = ((walk >= rectangle[0, :2]) & (walk <= rectangle[0, 2:])).all(axis=1).any()
    assert touches(block, rectangle, SPEC)[0] == inside


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_shift_is_the_shortest_that_clears_every_rectangle(data):
    """Against brute force over a fine grid of shifts."""
    cell = st.integers(0, 9)
    rectangles = []
    for _ in range(data.draw(st.integers(1, 3))):
        x, y = data.draw(cell), data.draw(cell)
        rectangles.append((x / 10, y / 10, (x + 1) / 10, (y + 1) / 10))
    rectangles = np.array(rectangles)
    low = np.array([[data.draw(cell) / 10, data.draw(cell) / 10]])
    high = low + 0.05
    shift, found = clear_shift(low, high, rectangles, UNIT)
    grid = np.linspace(-1, 1, 201)
    tries = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    new_low, new_high = low + tries, high + tries
    good = ((new_low >= -1e-9) & (new_high <= 1 + 1e-9)).all(axis=1)
    apart = (new_high[:, None] < rectangles[:, :2]) | (new_low[:, None] > rectangles[:, 2:])
    good &= apart.any(axis=2).all(axis=1)
    assert found[0] == good.any()
    shortest = np.linalg.norm(tries[good], axis=1).min()
    assert np.linalg.norm(shift[0]) <= shortest + 2e-4  # it stays a little off the edges
    moved_low, moved_high = low + shift, high + shift
    assert (((moved_high < rectangles[:, :2]) | (moved_low > rectangles[:, 2:])).any(axis=1)).all()


def test_a_gesture_that_touches_is_moved_as_a_whole_and_the_others_stay():
    blocks = np.concatenate(
        [gesture(3, 8, (0.5, 0.5), (0.6, 0.5)), gesture(3, 8, (0.1, 0.9), (0.2, 0.9))]
    )
    rectangle = np.array([[0.45, 0.0, 0.65, 0.52]])
    moved = move_clear(blocks, rectangle, SPEC)
    np.testing.assert_array_equal(moved[1], blocks[1])
    assert SPEC.is_valid(moved).all()
    np.testing.assert_allclose(moved[0, 3:8, 1], 0.52 + 1e-4, atol=1e-6)  # the near edge
    np.testing.assert_allclose(moved[0, 3:8, 0], blocks[0, 3:8, 0], atol=1e-6)


def test_a_gesture_that_fits_nowhere_becomes_a_tap_near_its_first_point():
    walls = np.array([[0.3, 0.0, 0.4, 1.0], [0.6, 0.0, 0.7, 1.0]])
    block = gesture(3, 8, (0.05, 0.5), (0.95, 0.5))
    moved = move_clear(block, walls, SPEC)
    np.testing.assert_allclose(moved[0, 3:8, :2], [[0.05, 0.5]] * 5, atol=1e-6)
    assert not touches(moved, walls, SPEC)[0]


# Plans ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_plan_keeps_every_constraint(data):
    """Random tighter bounds, rectangles, a fixed entry and a beginning that was sent."""
    unit = st.floats(0, 1, width=32)
    low, high = data.draw(st.floats(0, 0.3)), data.draw(st.floats(0.7, 1))
    rectangles = []
    for _ in range(data.draw(st.integers(0, 3))):
        x, y = data.draw(st.floats(0.35, 0.6)), data.draw(st.floats(0.35, 0.6))
        rectangles.append((x, y, x + data.draw(st.floats(0, 0.2)), y + 0.1))
    sent = data.draw(st.integers(0, 12))
    start = data.draw(st.integers(0, 14))
    corner = (data.draw(st.floats(0, 0.25, width=32)), data.draw(unit))
    current = np.concatenate([gesture(start, start + 5, corner, corner)] * 2)
    frozen = current[:, :sent] if sent else None
    constraints = PlanConstraints(
        action_low=np.array([low, 0.0, 0.0]),
        action_high=np.array([high, 1.0, 1.0]),
        forbidden=rectangles,
    )
    ranked = data.draw(st.booleans())
    cost = QuadraticCost(np.full((20, 3), 0.5)) if ranked else None
    problem = PlanningProblem(
        cost=cost,
        frozen_action=frozen,
        init_action=current if data.draw(st.booleans()) else None,
        constraints=constraints,
        batch_size=2,
        seed=data.draw(st.integers(0, 1000)),
    )
    plan = make_optimizer(num_refinements=data.draw(st.integers(0, 1))).optimize(problem).actions
    if sent:
        np.testing.assert_array_equal(plan[:, :sent], frozen)
    rest = plan[:, sent:]
    pressed = rest[..., 2] > 0.5
    assert (rest[..., 0][pressed] >= low - 1e-6).all()
    assert (rest[..., 0][pressed] <= high + 1e-6).all()
    assert not rest[~pressed].any()
    if rectangles:
        assert not touches(plan, np.array(rectangles), SPEC, sent).any()


def test_fixed_entries_are_kept_exactly_and_the_rest_is_free():
    fixed = np.full((20, 3), np.nan, np.float32)
    fixed[6:10, 2] = 1.0
    fixed[8, :2] = (0.25, 0.75)
    problem = PlanningProblem(constraints=PlanConstraints(fixed=fixed), batch_size=3)
    plan = make_optimizer().optimize(problem).actions
    np.testing.assert_array_equal(plan[:, 6:10, 2], 1.0)
    np.testing.assert_array_equal(plan[:, 8, :2], [[0.25, 0.75]] * 3)


def test_fixed_entries_may_differ_between_problems():
    fixed = np.full((2, 20, 3), np.nan, np.float32)
    fixed[0, 4, 0], fixed[1, 4, 0] = 0.125, 0.5
    problem = PlanningProblem(constraints=PlanConstraints(fixed=fixed), batch_size=2)
    np.testing.assert_array_equal(make_optimizer().optimize(problem).actions[:, 4, 0], [0.125, 0.5])


def test_the_warm_start_has_to_keep_them_too():
    warm = gesture(2, 8, (0.5, 0.5), (0.5, 0.5))
    constraints = PlanConstraints(forbidden=[(0.4, 0.4, 0.6, 0.6)])
    cost = QuadraticCost(warm[0])  # nothing would be better than the forbidden warm start
    problem = PlanningProblem(cost=cost, init_action=warm, constraints=constraints)
    result = make_optimizer().optimize(problem)
    assert not touches(result.actions, np.array(constraints.forbidden), SPEC)[0]
    np.testing.assert_allclose(result.cost, cost(result.actions[:, None])[:, 0])


def test_no_constraints_change_nothing():
    free = make_optimizer().optimize(PlanningProblem(batch_size=2)).actions
    empty = PlanningProblem(batch_size=2, constraints=PlanConstraints())
    np.testing.assert_allclose(make_optimizer().optimize(empty).actions, free, atol=1e-6)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (
            PlanConstraints(action_low=np.array([0.6, 0, 0]), action_high=np.array([0.5, 1, 1])),
            "lea",
        ),
        (PlanConstraints(action_low=np.zeros(2)), "one value a channel"),
        (PlanConstraints(fixed=np.zeros((3, 3))), "fixed has shape"),
        (PlanConstraints(fixed=np.full((20, 3), 2.0)), "outside the bounds"),
        (PlanConstraints(forbidden=[(0.5, 0.5, 0.4, 0.6)]), "low above high"),
        (PlanConstraints(forbidden=[(0.5, 0.5, 0.6)]), "must be rectangles"),
        (PlanConstraints(forbidden=[(-1.0, -1.0, 2.0, 0.6), (-1, 0.5, 2, 2)]), "cover all"),
    ],
)
def test_constraints_that_cannot_be_kept_are_refused(constraints, message):
    with pytest.raises(ConstraintError, match=message):
        make_optimizer().optimize(PlanningProblem(constraints=constraints))


def test_fixed_entries_inside_a_forbidden_rectangle_are_an_error_that_says_so():
    fixed = np.full((20, 3), np.nan, np.float32)
    fixed[8] = (0.5, 0.5, 1.0)
    constraints = PlanConstraints(fixed=fixed, forbidden=[(0.4, 0.4, 0.6, 0.6)])
    with pytest.raises(ConstraintError, match="none of the 1 candidates of problem 0 keeps"):
        make_optimizer().optimize(PlanningProblem(constraints=constraints))


def test_rectangles_need_a_finger():
    spec = ActionSpec(
        action_block=6,
        channels=("u", "v"),
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
        press_channel=None,
        min_press_steps=0,
        representation="raw",
    )
    optimizer = DDIMOptimizer(GaussianModel(spec, SCHEDULE))
    constraints = PlanConstraints(forbidden=[(0.0, 0.0, 0.1, 0.1)])
    with pytest.raises(ConstraintError, match="need a finger"):
        optimizer.optimize(PlanningProblem(constraints=constraints))
