"""Hand-computed touches on a hand-made screen."""

import numpy as np
import pytest
from builders.world import slot_of, stroke
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


# fmt: off
CASES = [  # gesture, (switch, key, page) after it, before it (all 0 unless told), steps
    # a tap on the switch toggles it and one beside it does not
    ((125, 115), (1, 0, 0)), ((125, 115), (0, 0, 0), (1, 0, 0)),
    ((100, 100), (1, 0, 0)), ((149.9, 129.9), (1, 0, 0)),  # the corners that belong to it
    ((99.9, 115), (0, 0, 0)), ((150, 115), (0, 0, 0)), ((125, 99.9), (0, 0, 0)),
    ((125, 130), (0, 0, 0)),
    # a press longer than 120 steps is not a tap
    ((125, 115), (1, 0, 0), (0, 0, 0), 120), ((125, 115), (0, 0, 0), (0, 0, 0), 121),
    # slop is 15 pixels
    ((110, 115, 124.9, 115), (1, 0, 0)), ((110, 115, 125.1, 115), (0, 0, 0)),
    # keys
    ((58, 78), (0, 4, 0)),  # centre of the middle key of the second row
    ((44, 64), (0, 4, 0)), ((43, 78), (0, 0, 0)),  # its first pixel; the dead space before it
    ((90, 46), (0, 2, 0)),
    ((50, 20), (0, 0, 0)), ((104.5, 78), (0, 0, 0)),  # the display, the panel's edge
    ((70, 78, 78, 78), (0, 0, 0)),  # 8 pixels: still a tap, and it ends on the next key
    ((60, 78, 68, 78), (0, 4, 0)),
    # the carousel: to the left is forward, to the right back, and the ends do not wrap
    ((150, 200, 80, 190), (0, 0, 1)), ((80, 200, 150, 190), (0, 0, 0), (0, 0, 1)),
    ((150, 200, 80, 190), (0, 0, 2), (0, 0, 2)), ((80, 200, 150, 190), (0, 0, 0)),
    ((150, 200, 90, 190), (0, 0, 0)),  # 60 pixels are not more than 30 % of 200
    ((150, 200, 89, 190), (0, 0, 1)),
    ((210, 200, 5, 190), (0, 0, 1)),  # however long, one page
    ((230, 200, 100, 190), (0, 0, 0)),  # starts beside the strip
    ((30, 200, 250, 190), (0, 0, 1), (0, 0, 2)),  # ends beside it: fine
    ((150, 165, 80, 250), (0, 0, 0)), ((120, 200), (0, 0, 0)),  # too steep; a tap
    # a touch goes to the widget under its start
    ((125, 115, 125, 200), (0, 0, 0)),  # a drag off the switch
    ((125, 145, 30, 200), (0, 0, 0)),  # from dead space over the carousel
]
# fmt: on


@pytest.mark.parametrize("case", CASES)
def test_touches(case):
    gesture, expected, begin, steps = (*case, *((0, 0, 0), None)[len(case) - 2 :])
    steps = steps or (20 if len(gesture) == 2 else 60)
    assert after(hand_made(*begin), stroke(*gesture, steps=steps)) == expected


def test_the_first_press_counts_as_a_whole_and_the_block_end_lifts_the_finger():
    first, second = tap(125 / 256, 115 / 256, 10, 20), tap(58 / 256, 78 / 256, 100, 20)
    assert after(hand_made(), first + second) == (1, 0, 0)
    assert after(hand_made(), tap(125 / 256, 115 / 256, 230, 20)) == (1, 0, 0)
    assert after(hand_made(), np.zeros((1, 250, 3))) == (0, 0, 0)
    first[0, 20, 0] += 16 / 256  # slop is measured over the whole path
    assert after(hand_made(), first) == (0, 0, 0)
    with pytest.raises(ActionError, match="num_steps 30"):
        tap(0.5, 0.5, 221, 30)


def test_untrusted_actions_are_clipped_nan_is_no_press_and_other_shapes_are_refused():
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
    for other in (np.zeros((2, 250, 3)), np.zeros((1, 249, 3)), np.zeros(3), [["a"]], None):
        with pytest.raises(ActionError, match=r"\(1, 250, 3\)"):
            hand_made().execute(other)


@given(st.tuples(*[st.floats(-0.5, 1.5)] * 4), st.integers(0, 175), st.integers(1, 75))
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
