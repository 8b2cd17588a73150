"""Given entries of a gesture: one press that agrees with them, one path that meets them."""

from dataclasses import replace

import numpy as np
import pytest
from builders.gestures import SPEC, gesture, make_optimizer
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import PlanningProblem
from vj2_ddim_plugin.constraints.moves import meet_fixed
from vj2_ddim_plugin.errors import ConstraintError
from vj2_ddim_plugin.interface import PlanConstraints


def nothing_fixed():
    return np.full((1, 20, 3), np.nan, np.float32)


def span(block):
    steps = np.flatnonzero(block[0, :, 2] > 0.5)
    return (int(steps[0]), int(steps[-1]) + 1) if len(steps) else (0, 0)


@pytest.mark.parametrize(
    ("pressed", "released", "sampled", "wanted"),
    [
        ([], [], (3, 9), (3, 9)),
        ([5], [], (3, 9), (3, 9)),  # already so
        ([12], [], (3, 9), (3, 13)),  # grown to it
        ([1], [], (3, 9), (1, 9)),
        ([15], [], (3, 9), (6, 16)),  # at most 10 steps: the far end lets go
        ([], [3, 4], (3, 9), (5, 9)),  # shrunk off what is released
        ([], [4], (3, 9), (5, 9)),  # the longer part of two
        ([], [7, 3], (3, 9), (0, 0)),  # three free steps are no press: left as it was
        ([10], [7], (3, 9), (8, 12)),  # cut off on one side, lengthened on the other
        ([5, 9], [7], (3, 9), (3, 9)),  # impossible: left as it was
    ],
)
def test_the_press_is_moved_as_little_as_possible(pressed, released, sampled, wanted):
    fixed = nothing_fixed()
    fixed[0, pressed, 2], fixed[0, released, 2] = 1.0, 0.0
    block = gesture(*sampled, (0.25, 0.25), (0.5, 0.5))
    met = meet_fixed(block, fixed, SPEC)
    if wanted == (0, 0):
        np.testing.assert_array_equal(met, block)
    else:
        assert span(met) == wanted


def test_the_path_is_shifted_onto_one_given_point_and_bent_through_two():
    block = gesture(4, 9, (0.2, 0.2), (0.4, 0.2))
    fixed = nothing_fixed()
    fixed[0, 6, :2] = (0.5, 0.5)  # where the path is at (0.3, 0.2)
    np.testing.assert_allclose(
        meet_fixed(block, fixed, SPEC)[0, 4:9, :2] - block[0, 4:9, :2], [[0.2, 0.3]] * 5, atol=1e-6
    )
    fixed[0, 8, 0] = 0.4  # its end stays: the offset of x fades from 0.2 to 0 in two steps
    moved = meet_fixed(block, fixed, SPEC)[0, 4:9, 0] - block[0, 4:9, 0]
    np.testing.assert_allclose(moved, [0.2, 0.2, 0.2, 0.1, 0.0], atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_one_gesture_can_do_is_done(data):
    """Any entries of some valid gesture are given; any other gesture is brought to meet them."""
    unit = st.floats(0, 1, width=32)

    def any_gesture():
        start = data.draw(st.integers(0, 16))
        stop = data.draw(st.integers(start + 4, min(start + 10, 20)))
        return gesture(start, stop, *[(data.draw(unit), data.draw(unit)) for _ in range(2)])

    sampled, wanted = any_gesture(), any_gesture()
    steps = data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=4, unique=True))
    fixed = nothing_fixed()
    fixed[0, steps] = wanted[0, steps]
    met = meet_fixed(sampled, fixed, SPEC)
    if not (wanted[0, steps, 2] > 0.5).any() and np.array_equal(met, sampled):
        return  # the sample had no room beside what is released; it is refused later
    np.testing.assert_allclose(met[0, steps], wanted[0, steps], atol=1e-6)
    pressed = met[0, :, 2] > 0.5
    assert 4 <= pressed.sum() <= 10
    assert np.ptp(np.flatnonzero(pressed)) == pressed.sum() - 1  # one press
    assert not met[0, ~pressed].any()
    assert met.min() >= 0
    assert met.max() <= 1


def plans(fixed, number=30, **settings):
    optimizer = make_optimizer(**settings)
    problem = PlanningProblem(constraints=PlanConstraints(fixed=fixed[0]))
    return [optimizer.optimize(replace(problem, seed=seed)).actions[0] for seed in range(number)]


def test_a_given_press_touches_nothing_that_nobody_asked_for():
    fixed = nothing_fixed()
    fixed[0, 10:14, 2] = 1.0
    for plan in plans(fixed):
        pressed = plan[:, 2] > 0.5
        assert pressed[10:14].all()
        assert pressed.sum() <= 10
        assert np.ptp(np.flatnonzero(pressed)) == pressed.sum() - 1
        assert (np.abs(np.diff(plan[pressed][:, :2], axis=0)) < 0.5).all()


def test_a_given_point_is_passed_by_one_gesture():
    fixed = nothing_fixed()
    fixed[0, 12] = (0.3, 0.4, 1.0)
    for plan in plans(fixed):
        np.testing.assert_array_equal(plan[12], fixed[0, 12])
        pressed = plan[:, 2] > 0.5
        assert 4 <= pressed.sum() <= 10
        assert np.ptp(np.flatnonzero(pressed)) == pressed.sum() - 1


def test_a_press_that_is_given_as_none_lifts_the_finger_for_good():
    fixed = nothing_fixed()
    fixed[0, :, 2] = 0.0
    for plan in plans(fixed, number=5):
        assert not plan.any()


@pytest.mark.parametrize("steps", [[0, 19], range(12)])
def test_presses_that_no_gesture_has_are_an_error(steps):
    fixed = nothing_fixed()
    fixed[0, list(steps), 2] = 1.0  # too far apart, or too long
    with pytest.raises(ConstraintError, match="keeps the constraints"):
        plans(fixed, number=1)
