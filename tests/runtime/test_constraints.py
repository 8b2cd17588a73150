"""Bounds, fixed entries, forbidden rectangles: every plan that comes back keeps them."""

import numpy as np
import pytest
from builders.gestures import SCHEDULE, SPEC, gesture, make_optimizer
from builders.runtime import FREE
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem, gestures
from vj2_ddim_plugin.constraints import Rules
from vj2_ddim_plugin.constraints.moves import touches
from vj2_ddim_plugin.errors import ConstraintError
from vj2_ddim_plugin.interface import PlanConstraints
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost


def walks_into(plan, rectangle, first):
    """Whether the finger, on a fine walk from step to step, meets a rectangle from `first` on."""
    for step in range(first, len(plan)):
        if plan[step, 2] > 0.5:
            before = plan[step - 1] if plan[step - 1, 2] > 0.5 else plan[step]
            walk = np.linspace(before[:2], plan[step, :2], 200)[1:]
            if ((walk >= rectangle[:2]) & (walk <= rectangle[2:])).all(axis=1).any():
                return True
    return False


@settings(deadline=None, max_examples=30)
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
    for rectangle in rectangles:
        for row in plan:
            assert not walks_into(row, rectangle, max(sent, 1))


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


def test_a_step_from_what_was_sent_into_a_rectangle_counts():
    """The finger is down at x = 0.3 and would next be beyond a narrow wall."""
    sent = gesture(2, 9, (0.3, 0.5), (0.3, 0.5))[:, :6]
    wall = (0.31, 0.0, 0.32, 1.0)
    far = np.zeros(SPEC.diffused_shape)
    far[:, 0] = [0.8, 0.0, 0.0, 0.0, -0.6, 0.2]  # a touch at x = 0.9 in the middle of the block
    optimizer = DDIMOptimizer(GaussianModel(SPEC, SCHEDULE, far, 0.01), num_candidates=4)
    problem = PlanningProblem(
        frozen_action=sent,
        constraints=PlanConstraints(forbidden=[wall]),
        cost=QuadraticCost(sent[0, 0]),
    )
    plan = optimizer.optimize(problem).actions[0]
    assert not walks_into(plan, wall, 6)


def test_a_finger_under_which_a_rectangle_appears_is_lifted():
    sent = gesture(4, 12, (0.5, 0.5), (0.5, 0.5))[:, :6]
    constraints = PlanConstraints(forbidden=[(0.4, 0.4, 0.6, 0.6)])
    plan = make_optimizer().optimize(PlanningProblem(frozen_action=sent, constraints=constraints))
    assert not plan.actions[:, 6:].any()


def test_a_finger_that_new_bounds_leave_outside_is_lifted():
    sent = gesture(4, 12, (0.1, 0.5), (0.1, 0.5))[:, :6]
    constraints = PlanConstraints(action_low=np.array([0.5, 0.0, 0.0]))
    plan = make_optimizer().optimize(PlanningProblem(frozen_action=sent, constraints=constraints))
    assert not plan.actions[:, 6:].any()


def test_a_warm_start_that_keeps_them_stays_exactly_as_it_is():
    """Even one whose path is bent, as plans are that continue what was sent."""
    warm = gesture(3, 11, (0.1, 0.9), (0.8, 0.2))
    warm[0, 6, :2] = (0.9, 0.9)
    problem = PlanningProblem(
        cost=QuadraticCost(warm[0]),
        init_action=warm,
        frozen_action=warm[:, :7],
        constraints=PlanConstraints(forbidden=[(0.0, 0.0, 0.05, 0.05)]),
    )
    result = make_optimizer(num_refinements=1).optimize(problem)
    np.testing.assert_array_equal(result.actions, warm)
    assert result.cost[0] == 0.0


def test_a_warm_start_that_had_to_be_moved_says_how_far():
    warm = gesture(2, 8, (0.5, 0.5), (0.5, 0.5))
    constraints = PlanConstraints(forbidden=[(0.45, 0.0, 0.6, 1.0)])
    moved = warm.copy()
    moved[0, 2:8, 0] = 0.45
    problem = PlanningProblem(
        cost=QuadraticCost(moved[0]), init_action=warm, constraints=constraints
    )
    result = make_optimizer(num_candidates=1).optimize(problem)
    assert result.projection_distance[0] == pytest.approx(0.05, abs=1e-3)


def test_candidates_that_need_no_change_are_not_projected():
    """`project=False` stays off under constraints that a candidate keeps as it is."""
    settings = {"project": False, "num_candidates": 1}
    free = make_optimizer(**settings).optimize(PlanningProblem(seed=3)).actions
    constraints = PlanConstraints(forbidden=[(0.0, 0.0, 1e-6, 1e-6)])
    problem = PlanningProblem(seed=3, constraints=constraints)
    np.testing.assert_array_equal(make_optimizer(**settings).optimize(problem).actions, free)


def test_bounds_in_pixels_are_kept_to_rounding():
    spec = ActionSpec(
        action_block=20, min_press_steps=4, max_press_steps=10, action_high=(1080.0, 2400.0, 1.0)
    )
    model = GaussianModel(spec, SCHEDULE, np.zeros(spec.diffused_shape), 0.7)
    optimizer = DDIMOptimizer(model, num_candidates=4)
    constraints = PlanConstraints(action_high=np.array([777.7, 1500.3, 1.0]))
    for seed in range(20):
        plan = optimizer.optimize(PlanningProblem(constraints=constraints, seed=seed)).actions
        assert (plan <= np.array([777.7, 1500.3, 1.0]) * (1 + 1e-6)).all()


def test_an_entry_fixed_at_its_bound_is_inside_it():
    fixed = np.full((20, 3), np.nan)
    fixed[5] = (0.3, 0.5, 1)
    constraints = PlanConstraints(action_high=np.array([0.3, 1, 1]), fixed=fixed)
    plan = make_optimizer().optimize(PlanningProblem(constraints=constraints)).actions
    np.testing.assert_array_equal(plan[0, 5], np.float32([0.3, 0.5, 1]))


def test_a_lifted_finger_may_be_fixed_whatever_the_bounds():
    fixed = np.full((20, 3), np.nan)
    fixed[:10] = 0.0
    constraints = PlanConstraints(action_low=np.array([0.1, 0.1, 0.0]), fixed=fixed)
    plan = make_optimizer().optimize(PlanningProblem(constraints=constraints)).actions
    assert not plan[0, :10].any()


def test_without_a_cost_more_samples_are_drawn_when_the_only_one_is_refused(monkeypatch):
    """The rules here refuse whatever comes alone."""
    kept = Rules.kept
    monkeypatch.setattr(
        Rules,
        "kept",
        lambda self, actions, avoid=True: kept(self, actions) & (actions.shape[1] > 1),
    )
    problem = PlanningProblem(constraints=PlanConstraints(), batch_size=2)
    result = make_optimizer(num_inference_steps=5).optimize(problem)
    assert result.num_denoiser_evaluations == 2 * 5 * (1 + 8)
    assert gestures.is_valid(result.actions, SPEC).all()


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
        (PlanConstraints(fixed="free"), "not an array of numbers"),
        (PlanConstraints(forbidden=[(0, 0, 1), (0, 0, 1, 1)]), "must be rectangles"),
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
    with pytest.raises(ConstraintError, match="none of the 9 candidates of problem 0 keeps"):
        make_optimizer().optimize(PlanningProblem(constraints=constraints))


def test_fixed_entries_may_not_contradict_what_was_sent():
    fixed = np.full((20, 3), np.nan)
    fixed[2] = (0.3, 0.5, 1.0)
    problem = PlanningProblem(
        frozen_action=np.zeros((1, 5, 3)), constraints=PlanConstraints(fixed=fixed)
    )
    with pytest.raises(ConstraintError, match="contradicts frozen_action"):
        make_optimizer().optimize(problem)


def test_rectangles_need_a_finger():
    optimizer = DDIMOptimizer(GaussianModel(FREE, SCHEDULE))
    constraints = PlanConstraints(forbidden=[(0.0, 0.0, 0.1, 0.1)])
    with pytest.raises(ConstraintError, match="need a finger"):
        optimizer.optimize(PlanningProblem(constraints=constraints))
