"""What sampling planners search over: knots of actions, and the numbers of a gesture."""

import numpy as np
from builders.planners import free_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_benchmark.planners.parameter_spaces import (
    ActionKnots,
    GestureParameters,
    natural_space,
)
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_plugin.gestures import is_valid, project
from vj2_ddim_plugin.spec import ActionSpec

SPEC, FREE = ActionSpec(), free_spec(5)


def test_a_gesture_is_six_numbers():
    """From (0.25, 0.75) to (0.75, 0.5), pressed at step 50, released at 100 of 250."""
    space = GestureParameters(SPEC)
    actions = drag(0.25, 0.75, 0.75, 0.5, 50, 50)
    expected = [-0.5, 0.5, 1.0, -0.5, -0.6, -0.2]  # half screens, half blocks, around the middle
    np.testing.assert_allclose(space.encode(actions)[0, :, 0], expected, atol=1e-6)
    np.testing.assert_allclose(space.decode(np.array(expected)[None, :, None]), actions, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_gestures_come_back_from_their_parameters(seed):
    for spec in (SPEC, ActionSpec(representation="held"), ActionSpec(horizon=2)):
        gestures = project(random_policy(4 * spec.horizon, np.random.default_rng(seed)), SPEC)
        actions = gestures.reshape(4, spec.length, 3)
        space = GestureParameters(spec)
        parameters = space.encode(actions)
        assert parameters.shape == (4, 6 * spec.horizon, 1) == (4, *space.shape)
        np.testing.assert_allclose(space.clip(parameters), parameters, atol=1e-6)
        np.testing.assert_allclose(space.decode(parameters), actions, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_clipped_parameters_are_valid_gestures(seed):
    """Where displacements lead off the screen, or the press is too long, short or late."""
    for spec in (SPEC, ActionSpec(horizon=2), ActionSpec(path_knots=4)):
        space = GestureParameters(spec)
        wild = 1.5 * np.random.default_rng(seed).standard_normal((6, *space.shape))
        clipped = space.clip(wild)
        actions = space.decode(clipped)
        assert is_valid(actions, spec).all()
        np.testing.assert_allclose(space.clip(clipped), clipped, atol=1e-12)


def test_clipping_by_hand():
    """Off the right edge, for too long and too late; then released before it was pressed."""
    wild = [[0.5, 0.0, 2.0, 0.5, 0.9, 2.0], [0.5, -1.5, 2.0, 0.5, 0.0, -0.3]]
    clipped = GestureParameters(SPEC).clip(np.array(wild)[..., None])[..., 0]
    expected = [[0.5, 0.0, 0.5, 0.5, 1.0 - 75 / 125, 1.0], [0.5, -1.0, 0.0, 0.0, 0.0, 5 / 125]]
    np.testing.assert_allclose(clipped, expected)


def test_knots_are_interpolated_and_fitted_in_the_bounds():
    space = ActionKnots(FREE, 3)
    knots = np.array([[0.0, -1.0], [1.0, 0.0], [-0.5, 1.0]])
    expected = [[0.0, 0.0], [5.0, 1.0], [10.0, 2.0], [2.5, 3.0], [-5.0, 4.0]]
    np.testing.assert_allclose(space.decode(knots), expected, atol=1e-6)
    np.testing.assert_allclose(space.encode(np.array(expected)), knots, atol=1e-6)
    outside = space.encode(np.full((5, 2), 99.0))
    np.testing.assert_allclose(outside, np.ones((3, 2)))


def test_without_knots_every_action_is_a_parameter():
    space = ActionKnots(FREE)
    assert space.shape == (5, 2)
    wild = np.tile([-7.0, 9.0], (5, 1))
    np.testing.assert_allclose(space.decode(space.clip(wild)), np.tile([-10.0, 4.0], (5, 1)))


def test_the_natural_space_of_touches_is_gestures():
    assert isinstance(natural_space(SPEC), GestureParameters)
    for spec in (FREE, ActionSpec(path_knots=None, representation="held")):
        assert isinstance(natural_space(spec), ActionKnots)
