"""Hand-computed gestures on hand-made widgets, in page pixels."""

import numpy as np
import pytest
from builders.world import after, screens_of, stroke

from vj2_ddim_benchmark.world.touch import read_gestures

RADIO = ("radio", (100, 50, 180, 170), (4, 0))  # rows of 30, 2 apart: 51 to 79, 81 to 109 ...
SLIDER = ("slider", (20, 100, 220, 130), (0, 0))  # places 0 to 100 from x = 29 to x = 211
TRAY = ("tray", (20, 100, 140, 180), (2, 3))  # slots of 36, 4 apart, from (22, 102)
LIST = ("list", (50, 100, 150, 190), (3, 5))  # rows of 30; row 0, 1 or 2 on top
CAROUSEL = ("carousel", (20, 100, 220, 180), (3, 0))  # more than 60 across, or a fling
MENU = ("menu", (60, 60, 160, 180), (0, 0))  # rows of 30: the head, then the items
TWIN = ("twin", (30, 100, 230, 150), (0, 0))  # buttons (32, 102, 78, 148), (182, 102, 228, 148)
TABS = ("tabs", (30, 60, 230, 160), (4, 0))  # tabs 50 apart above y = 88; swipes of more than 80
DETOUR = ("detour", (30, 60, 230, 160), (0, 0))
# homes (33, 90, 73, 130) and (187, 90, 227, 130), wall (122, 84, 138, 136)


def result(widget, state, *gesture, **more):
    kind, box, options = widget
    return after(kind, screens_of(kind, box, options, state), stroke(*gesture, **more))


@pytest.mark.parametrize(
    ("gesture", "state"),
    [
        ((140, 95), 1),
        ((140, 160), 3),
        ((101, 51), 0),  # the first pixel of the first row
        ((140, 80), 2),  # between two rows
        ((100, 95), 2),  # the panel's edge
        ((140, 77, 140, 83), 2),  # ends on the next row
        ((110, 95, 126, 95), 2),  # a drag along a row
    ],
)
def test_radio(gesture, state):
    assert result(RADIO, 2, *gesture) == state


@pytest.mark.parametrize(
    ("gesture", "place"),
    [
        ((120, 115), 50),  # 29 + 91
        ((29, 115), 0),
        ((211, 115), 100),
        ((21, 101), 0),  # before the first place
        ((65, 110, 86, 110), 31),  # 57 / 182 = 0.313
        ((65, 110, 250, 110), 100),
        ((65, 110, 120, 163), 50),  # 48 below the middle still counts
        ((65, 110, 120, 164), 20),
        ((65, 110, 120, 66), 20),
    ],
)
def test_slider(gesture, place):
    assert result(SLIDER, 20, *gesture) == place


def test_a_slider_follows_a_press_of_any_length():
    assert result(SLIDER, 20, 120, 115, steps=200) == 50


@pytest.mark.parametrize(
    ("gesture", "slot"),
    [
        ((80, 160, 40, 120), 0),  # the piece is in slot 4, the middle of the second row
        ((80, 160, 120, 160), 5),
        ((80, 160, 120, 101), 4),  # the panel's edge
        ((80, 160, 60, 120), 4),  # between slots 0 and 1
        ((80, 160, 40, 200), 4),  # off the tray
        ((40, 120, 120, 160), 4),  # not the piece
        ((40, 120), 4),  # a tap on a slot
        ((80, 160, 64, 145), 4),  # within its own slot
    ],
)
def test_tray(gesture, slot):
    assert result(TRAY, 4, *gesture) == slot


@pytest.mark.parametrize(
    ("top", "gesture", "result_top"),
    [
        (0, (100, 180, 100, 150), 1),  # one row up
        (0, (100, 180, 130, 136), 1),  # 44 / 30 = 1.47
        (0, (100, 180, 130, 134), 2),  # 46 / 30 = 1.53
        (0, (100, 180, 100, 20), 2),  # no further than the end
        (2, (100, 110, 100, 141), 1),
        (0, (100, 110, 100, 141), 0),
        (0, (100, 180, 100, 165), 0),  # 15 pixels are no drag
        (0, (100, 180, 100, 164), 1),  # 16 are, and more than half a row
        (0, (60, 180, 100, 145), 0),  # more across than up
        (0, (100, 195, 100, 150), 0),  # begins beside it
    ],
)
def test_list(top, gesture, result_top):
    assert result(LIST, top, *gesture) == result_top


@pytest.mark.parametrize(
    ("gesture", "steps", "page"),
    [
        ((150, 140, 110, 140), 27, 1),  # 40 pixels in 27 steps: slower than 1.5 a step
        ((150, 140, 110, 140), 26, 2),
        ((110, 140, 149, 140), 26, 0),  # exactly 1.5, to the right
        ((110, 140, 148, 140), 26, 1),
        ((150, 140, 135, 140), 5, 1),  # fast, but within the slop
        ((150, 140, 110, 180), 10, 1),  # fast, but not mostly across
        ((150, 140, 89, 140), 75, 2),  # slow, but more than 60
    ],
)
def test_fling(gesture, steps, page):
    assert result(CAROUSEL, 1, *gesture, steps=steps) == page


@pytest.mark.parametrize(
    ("state", "gesture", "steps", "result_state"),
    [
        (1, (110, 75), 150, 4),  # long press on the head
        (1, (110, 75), 149, 1),
        (1, (110, 75), 40, 1),
        (1, (110, 75, 110, 100), 160, 1),  # a slow drag
        (1, (110, 105), 160, 1),  # where the first item will be
        (1, (110, 105), 40, 1),
        (4, (110, 105), 40, 0),
        (4, (110, 135), 120, 1),  # the chosen one again: closes
        (4, (110, 165), 121, 4),
        (4, (110, 165), 120, 2),
        (4, (110, 165), 160, 4),
        (4, (110, 75), 40, 4),  # the head
        (4, (110, 75), 160, 4),
        (4, (110, 117, 110, 123), 40, 4),  # from an item to the next
    ],
)
def test_menu(state, gesture, steps, result_state):
    assert result(MENU, state, *gesture, steps=steps) == result_state


@pytest.mark.parametrize("state", [0, 1])
def test_twin(state):
    left, right = stroke(55, 125), stroke(205, 125)
    screen = screens_of(*TWIN, state)
    assert after("twin", screen, left) == after("twin", screen, right) == 1 - state
    assert after("twin", screen, (left + right) / 2) == state
    assert result(TWIN, state, 31, 125) == state  # the panel's edge
    assert result(TWIN, state, 78, 125) == state  # just past the button
    assert result(TWIN, state, 70, 125, 84, 125) == state
    assert result(TWIN, state, 55, 125, steps=160) == state


@pytest.mark.parametrize(
    ("page", "gesture", "result_page"),
    [
        (0, (105, 75), 1),
        (0, (205, 75), 3),  # any tab
        (1, (80, 75), 1),  # between two tabs
        (1, (105, 120), 1),  # on the page
        (0, (200, 120, 119, 110), 1),
        (0, (200, 120, 120, 110), 0),  # 80 are not more than 40 % of 200
        (3, (200, 120, 80, 110), 3),  # the last page
        (2, (80, 120, 200, 110), 1),
        (1, (200, 87, 80, 110), 1),  # begins on the bar
        (1, (200, 88, 80, 110), 2),
        (1, (130, 90, 140, 160), 1),  # downwards
    ],
)
def test_tabs(page, gesture, result_page):
    assert result(TABS, page, *gesture) == result_page


def test_tabs_know_no_fling_and_no_long_press():
    assert result(TABS, 0, 200, 120, 140, 120, steps=10) == 0
    assert result(TABS, 0, 105, 75, steps=160) == 0


def test_the_average_of_a_tap_on_a_tab_and_a_swipe_does_nothing():
    tap, swipe = stroke(105, 75), stroke(200, 120, 100, 115)
    screen = screens_of(*TABS, 0)
    assert after("tabs", screen, tap) == after("tabs", screen, swipe) == 1
    assert after("tabs", screen, (tap + swipe) / 2) == 0


@pytest.mark.parametrize("state", [0, 1])
def test_detour(state):
    ends = ((53, 110), (207, 110))[:: 1 - 2 * state]
    line = (*ends[0], *ends[1])
    above, below = (stroke(*line, via=(130, y)) for y in (60, 160))
    screen = screens_of(*DETOUR, state)
    assert after("detour", screen, above) == after("detour", screen, below) == 1 - state
    assert after("detour", screen, (above + below) / 2) == state
    assert result(DETOUR, state, *line) == state
    assert result(DETOUR, state, *line, steps=2) == state  # no jump over the wall
    # Above the wall's top (84) at both of its sides, 8 pixels from the bend, or not:
    assert result(DETOUR, state, *line, via=(130, 80)) == 1 - state  # 110 - 30 * 69 / 77 = 83.1
    assert result(DETOUR, state, *line, via=(130, 82)) == state  # 110 - 28 * 69 / 77 = 84.9
    other = (*ends[1], *ends[0])
    assert result(DETOUR, state, *other, via=(130, 60)) == state  # where the piece is not
    short = (*ends[0], 130, 70)
    assert result(DETOUR, state, *short) == state  # dropped on the way


@pytest.mark.parametrize(("travel", "dragged"), [(15, False), (15 + 1 / 256, True)])
def test_the_slop_is_exactly_15_pixels(travel, dragged):
    for x, y in ((travel, 0), (0, travel), (-0.6 * travel, 0.8 * travel)):
        gestures = read_gestures(stroke(128, 128, 128 + x, 128 + y).astype(float), 1)
        assert bool(gestures.dragged[0]) == dragged


def test_taps_and_long_presses_leave_a_gap_between_them():
    steps = np.arange(1, 246)
    blocks = np.concatenate([stroke(128, 128, steps=count) for count in steps])
    gestures = read_gestures(blocks, len(steps))
    np.testing.assert_array_equal(gestures.tapped, steps <= 120)
    np.testing.assert_array_equal(gestures.long_pressed, steps >= 150)
    assert not gestures.flung.any()
