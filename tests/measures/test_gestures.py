import builders.training
import numpy as np
import pytest
from builders.training import any_press

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.gestures import find_gestures, gesture_type

SPEC = any_press()


def press(first, last, start=2, stop=6):
    return builders.training.press(start, stop, first, last)


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        ((0.0, 0.0), "click"),
        ((0.04, -0.02), "click"),
        ((0.04, 0.04), "diagonal"),  # 0.057 away, though neither axis moved 0.05
        ((0.06, 0.0), "horizontal"),
        ((-0.3, 0.14), "horizontal"),
        ((-0.3, 0.16), "diagonal"),
        ((0.14, -0.3), "vertical"),
        ((0.16, 0.3), "diagonal"),
        ((0.25, 0.125), "diagonal"),  # exactly twice is not more than twice
    ],
)
def test_types(move, expected):
    start = np.array([0.5, 0.5])
    assert gesture_type(press(start, start + move)[None], SPEC).tolist() == [expected]


def test_without_a_press_the_type_is_none():
    actions = np.stack([np.zeros((10, 3), np.float32), press((0, 0), (1, 1))])
    assert gesture_type(actions, SPEC).tolist() == ["none", "diagonal"]
    gestures = find_gestures(actions, SPEC)
    assert gestures.has_press.tolist() == [False, True]
    assert gestures.start.tolist() == [0, 2]
    assert gestures.stop.tolist() == [0, 6]


def test_two_segments_count_from_the_first_step_to_the_last():
    actions = press((0.1, 0.1), (0.2, 0.1), 1, 3) + press((0.9, 0.1), (0.8, 0.1), 7, 9)
    gestures = find_gestures(actions[None], SPEC)
    assert (gestures.start[0], gestures.stop[0]) == (1, 9)
    np.testing.assert_allclose(gestures.start_point[0], [0.1, 0.1], atol=1e-7)
    np.testing.assert_allclose(gestures.end_point[0], [0.8, 0.1], atol=1e-7)


def test_every_block_of_a_longer_horizon_is_a_gesture():
    spec = any_press(horizon=2)
    actions = np.concatenate([press((0, 0), (1, 0)), press((0, 0), (0, 1))])[None]
    assert gesture_type(actions, spec).tolist() == ["horizontal", "vertical"]


def test_distances_are_shares_of_the_bounds():
    pixels = any_press(bounds=((0, 0), (1000, 2000)))
    actions = np.stack([press((500, 500), (540, 500)), press((500, 500), (500, 700))])
    assert gesture_type(actions, pixels).tolist() == ["click", "vertical"]


def test_types_need_two_coordinates_and_a_press():
    bare = ActionSpec(press_channel=None, representation="raw")
    with pytest.raises(ActionError, match="two coordinates"):
        gesture_type(np.zeros((1, 250, 3)), bare)
    with pytest.raises(ActionError, match="no press_channel"):
        find_gestures(np.zeros((1, 250, 3)), bare)
