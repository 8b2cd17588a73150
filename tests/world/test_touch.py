"""Hand-computed touches on a hand-made screen."""

import numpy as np
import pytest
from builders.world import slot_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_benchmark.world.layouts import Layout
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import drag, gesture_path, read_gestures, tap
from vj2_ddim_benchmark.world.widgets import NUM_SLOTS
from vj2_ddim_plugin.errors import ActionError

# In page pixels of 256.
SWITCH = (100, 100, 150, 130)
KEYPAD = (10, 10, 106, 94)  # 2 rows of 3 keys, 28 x 28, 4 apart; the first at (12, 32)
CAROUSEL = (20, 160, 220, 240)  # 3 pages; a drag must travel more than 60
SLOTS = [slot_of(kind) for kind in ("switch", "keypad", "carousel")]


def hand_made(switch=0, key=0, page=0):
    boxes, options = np.zeros((1, NUM_SLOTS, 4)), np.zeros((1, NUM_SLOTS, 2), int)
    num_states, state = np.zeros((1, NUM_SLOTS), int), np.full((1, NUM_SLOTS), -1)
    boxes[0, SLOTS] = (SWITCH, KEYPAD, CAROUSEL)
    options[0, SLOTS] = ((0, 0), (2, 3), (3, 0))
    num_states[0, SLOTS], state[0, SLOTS] = (2, 6, 3), (switch, key, page)
    colors = np.arange(23, dtype=np.uint32)[None] * 7001
    return TouchScreen(Layout(boxes, options, num_states, colors, np.zeros((1, 5), int)), state)


def after(screen, action):
    """Switch, key and page after one gesture."""
    return tuple(screen.execute(action).state[0, SLOTS].tolist())


def tapped(x, y, screen=None, num_steps=20):
    return after(screen or hand_made(), tap(x / 256, y / 256, 30, num_steps))


def dragged(x0, y0, x1, y1, screen=None):
    return after(screen or hand_made(), drag(x0 / 256, y0 / 256, x1 / 256, y1 / 256, 10, 60))


@pytest.mark.parametrize(
    ("x", "y", "switch"),
    [
        (125, 115, 1),  # the centre
        (100, 100, 1),  # the corner that belongs to it
        (149.9, 129.9, 1),
        (99.9, 115, 0),  # just outside, on each side
        (150, 115, 0),
        (125, 99.9, 0),
        (125, 130, 0),
    ],
)
def test_a_tap_on_a_switch_toggles_it_and_one_beside_it_does_not(x, y, switch):
    assert tapped(x, y) == (switch, 0, 0)


def test_a_second_tap_toggles_back():
    assert tapped(125, 115, hand_made(switch=1)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("x", "y", "key"),
    [
        (58, 78, 4),  # centre of the middle key of the second row
        (44, 64, 4),  # its first pixel
        (43, 78, 0),  # the dead space before it
        (90, 46, 2),
        (50, 20, 0),  # the display
        (104.5, 78, 0),  # the panel's edge
    ],
)
def test_keys(x, y, key):
    assert tapped(x, y) == (0, key, 0)


def test_a_tap_that_ends_on_the_next_key_selects_neither():
    assert dragged(70, 78, 78, 78) == (0, 0, 0)  # 8 pixels: still a tap
    assert dragged(60, 78, 68, 78) == (0, 4, 0)


def test_slop_is_15_pixels_measured_over_the_whole_path():
    assert dragged(110, 115, 124.9, 115) == (1, 0, 0)
    assert dragged(110, 115, 125.1, 115) == (0, 0, 0)
    there_and_back = tap(125 / 256, 115 / 256, 30, 20)
    there_and_back[0, 40, 0] += 16 / 256
    assert after(hand_made(), there_and_back) == (0, 0, 0)


def test_a_press_longer_than_120_steps_is_not_a_tap():
    assert tapped(125, 115, num_steps=120) == (1, 0, 0)
    assert tapped(125, 115, num_steps=121) == (0, 0, 0)


@pytest.mark.parametrize(
    ("x0", "x1", "page", "result"),
    [
        (150, 80, 0, 1),  # to the left: forward
        (80, 150, 1, 0),  # to the right: back
        (150, 80, 2, 2),  # not past the last page
        (80, 150, 0, 0),  # nor before the first
        (150, 90, 0, 0),  # 60 pixels are not more than 30 % of 200
        (150, 89, 0, 1),
        (210, 5, 0, 1),  # however long, one page
        (230, 100, 0, 0),  # starts beside the strip
        (30, 250, 2, 1),  # ends beside it: fine
    ],
)
def test_carousel(x0, x1, page, result):
    assert dragged(x0, 200, x1, 190, hand_made(page=page)) == (0, 0, result)


def test_a_steep_drag_and_a_tap_leave_the_carousel_alone():
    assert dragged(150, 165, 80, 250) == (0, 0, 0)
    assert tapped(120, 200) == (0, 0, 0)


def test_a_touch_goes_to_the_widget_under_its_start():
    assert dragged(125, 115, 125, 200) == (0, 0, 0)  # a drag off the switch
    assert dragged(125, 145, 30, 200) == (0, 0, 0)  # from dead space over the carousel


def test_the_first_press_counts_and_the_block_end_lifts_the_finger():
    first, second = tap(125 / 256, 115 / 256, 10, 20), tap(58 / 256, 78 / 256, 100, 20)
    assert after(hand_made(), first + second) == (1, 0, 0)
    assert after(hand_made(), tap(125 / 256, 115 / 256, 230, 20)) == (1, 0, 0)
    assert after(hand_made(), np.zeros((1, 250, 3))) == (0, 0, 0)


def test_untrusted_actions_are_clipped_and_nan_is_no_press():
    wild = tap(125 / 256, 115 / 256, 10, 20)
    wild[0, :10] = (np.nan, np.inf, 0.5)  # 0.5 is not down
    wild[0, 30:] = (9.0, -9.0, -np.inf)
    assert after(hand_made(), wild) == (1, 0, 0)
    for channel in range(3):
        broken = tap(125 / 256, 115 / 256, 10, 20)
        broken[..., channel] = np.nan
        assert after(hand_made(), broken) == (0, 0, 0)
    gestures = read_gestures(tap(7.0, -3.0, 0, 9), 1)
    assert gestures.start.tolist() == [[256.0, 0.0]]


@pytest.mark.parametrize(
    "actions", [np.zeros((2, 250, 3)), np.zeros((1, 249, 3)), np.zeros(3), [["a"]], None]
)
def test_wrong_shapes_are_refused(actions):
    with pytest.raises(ActionError, match=r"\(1, 250, 3\)"):
        hand_made().execute(actions)


@given(
    points=st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4),
    first=st.integers(0, 175),
    count=st.integers(1, 75),
)
@settings(max_examples=60, deadline=None)
def test_a_drag_is_read_as_it_was_made(points, first, count):
    x0, y0, x1, y1 = points
    action = drag(x0, y0, x1, y1, first, count)
    gestures = read_gestures(action, 1)
    start = 256 * np.clip([x0, y0], 0, 1)
    end = 256 * np.clip([x1, y1] if count > 1 else [x0, y0], 0, 1)
    assert gestures.num_steps[0] == count
    np.testing.assert_allclose(gestures.start[0], start, atol=1e-3)
    np.testing.assert_allclose(gestures.end[0], end, atol=1e-3)
    path = gesture_path(action[0])
    assert path.shape == (count, 2)
    strayed = np.hypot(*(path - path[0]).T).max()
    assert gestures.dragged[0] == (strayed > 15)
    assert not action[0, :first, :].any()
    assert not action[0, first + count :, :].any()


def test_gestures_that_do_not_fit_a_block_are_refused():
    with pytest.raises(ActionError, match="num_steps 30"):
        tap(0.5, 0.5, 221, 30)
