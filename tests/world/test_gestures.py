"""Hand-computed gestures on hand-made widgets, in page pixels."""

import numpy as np
import pytest
from builders.world import after, screens_of, stroke

from vj2_ddim_benchmark.world.touch import read_gestures

WIDGETS = {  # box and options
    "radio": ((100, 50, 180, 170), (4, 0)),  # rows of 30, 2 apart: 51 to 79, 81 to 109 ...
    "slider": ((20, 100, 220, 130), (0, 0)),  # places 0 to 100 from x = 29 to x = 211
    "tray": ((20, 100, 140, 180), (2, 3)),  # slots of 36, 4 apart, from (22, 102)
    "list": ((50, 100, 150, 190), (3, 5)),  # rows of 30; row 0, 1 or 2 on top
    "carousel": ((20, 100, 220, 180), (3, 0)),  # more than 60 across, or a fling
    "menu": ((60, 60, 160, 180), (0, 0)),  # rows of 30: the head, then the items
    "twin": ((30, 100, 230, 150), (0, 0)),  # buttons (32, 102, 78, 148), (182, 102, 228, 148)
    "tabs": ((30, 60, 230, 160), (4, 0)),  # tabs 50 apart above y = 88; swipes of more than 80
    "detour": ((30, 60, 230, 160), (0, 0)),
    # homes (33, 90, 73, 130) and (187, 90, 227, 130), wall (122, 84, 138, 136)
}
# fmt: off
CASES = {  # state, gesture, state after it, steps (40 unless told)
    "radio": [
        (2, (140, 95), 1), (2, (140, 160), 3),
        (2, (101, 51), 0),  # the first pixel of the first row
        (2, (140, 80), 2),  # between two rows
        (2, (100, 95), 2),  # the panel's edge
        (2, (140, 77, 140, 83), 2),  # ends on the next row
        (2, (110, 95, 126, 95), 2),  # a drag along a row
    ],
    "slider": [
        (20, (120, 115), 50), (20, (29, 115), 0), (20, (211, 115), 100),  # 29 + 91
        (20, (120, 115), 50, 200),  # a press of any length
        (20, (21, 101), 0),  # before the first place
        (20, (65, 110, 86, 110), 31),  # 57 / 182 = 0.313
        (20, (65, 110, 250, 110), 100),
        (20, (65, 110, 120, 163), 50),  # 48 below the middle still counts
        (20, (65, 110, 120, 164), 20), (20, (65, 110, 120, 66), 20),
    ],
    "tray": [
        (4, (80, 160, 40, 120), 0), (4, (80, 160, 120, 160), 5),  # slot 4: middle of the second row
        (4, (80, 160, 120, 101), 4),  # the panel's edge
        (4, (80, 160, 60, 120), 4),  # between slots 0 and 1
        (4, (80, 160, 40, 200), 4),  # off the tray
        (4, (40, 120, 120, 160), 4),  # not the piece
        (4, (40, 120), 4),  # a tap on a slot
        (4, (80, 160, 64, 145), 4),  # within its own slot
    ],
    "list": [
        (0, (100, 180, 100, 150), 1),  # one row up
        (0, (100, 180, 130, 136), 1), (0, (100, 180, 130, 134), 2),  # 1.47 and 1.53 rows
        (0, (100, 180, 100, 20), 2),  # no further than the end
        (2, (100, 110, 100, 141), 1), (0, (100, 110, 100, 141), 0),
        (0, (100, 180, 100, 165), 0), (0, (100, 180, 100, 164), 1),  # 15 pixels are no drag, 16 are
        (0, (60, 180, 100, 145), 0),  # more across than up
        (0, (100, 195, 100, 150), 0),  # begins beside it
    ],
    "carousel": [  # flings
        (1, (150, 140, 110, 140), 1, 27),  # 40 pixels in 27 steps: slower than 1.5 a step
        (1, (150, 140, 110, 140), 2, 26),
        (1, (110, 140, 149, 140), 0, 26), (1, (110, 140, 148, 140), 1, 26),  # exactly 1.5, right
        (1, (150, 140, 135, 140), 1, 5),  # fast, but within the slop
        (1, (150, 140, 110, 180), 1, 10),  # fast, but not mostly across
        (1, (150, 140, 89, 140), 2, 75),  # slow, but more than 60
    ],
    "menu": [
        (1, (110, 75), 4, 150), (1, (110, 75), 1, 149), (1, (110, 75), 1),  # a press on the head
        (1, (110, 75, 110, 100), 1, 160),  # a slow drag
        (1, (110, 105), 1, 160), (1, (110, 105), 1),  # where the first item will be
        (4, (110, 105), 0),
        (4, (110, 135), 1, 120),  # the chosen one again: closes
        (4, (110, 165), 4, 121), (4, (110, 165), 2, 120), (4, (110, 165), 4, 160),
        (4, (110, 75), 4), (4, (110, 75), 4, 160),  # the head
        (4, (110, 117, 110, 123), 4),  # from an item to the next
    ],
    "twin": [
        *((state, (x, 125), 1 - state) for state in (0, 1) for x in (55, 205)),
        (0, (31, 125), 0), (1, (31, 125), 1),  # the panel's edge
        (0, (78, 125), 0), (1, (78, 125), 1),  # just past the button
        (0, (70, 125, 84, 125), 0), (1, (70, 125, 84, 125), 1),
        (0, (55, 125), 0, 160), (1, (55, 125), 1, 160),
    ],
    "tabs": [
        (0, (105, 75), 1), (0, (205, 75), 3),  # any tab
        (1, (80, 75), 1),  # between two tabs
        (1, (105, 120), 1),  # on the page
        (0, (200, 120, 119, 110), 1), (0, (200, 120, 120, 110), 0),  # 40 % of 200 or more
        (3, (200, 120, 80, 110), 3),  # the last page
        (2, (80, 120, 200, 110), 1),
        (1, (200, 87, 80, 110), 1), (1, (200, 88, 80, 110), 2),  # begins on the bar, and below it
        (1, (130, 90, 140, 160), 1),  # downwards
        (0, (200, 120, 140, 120), 0, 10), (0, (105, 75), 0, 160),  # no fling, no long press
    ],
}
# fmt: on


@pytest.mark.parametrize(
    ("kind", "state", "gesture", "expected", "steps"),
    [(kind, *(*case, 40)[:4]) for kind, cases in CASES.items() for case in cases],
)
def test_gestures(kind, state, gesture, expected, steps):
    screen = screens_of(kind, *WIDGETS[kind], state)
    assert after(kind, screen, stroke(*gesture, steps=steps)) == expected


@pytest.mark.parametrize("state", [0, 1])
def test_detour(state):
    ends = ((53, 110), (207, 110))[:: 1 - 2 * state]
    line, screen = (*ends[0], *ends[1]), screens_of("detour", *WIDGETS["detour"], state)

    def result(*gesture, **more):
        return after("detour", screen, stroke(*gesture, **more))

    assert result(*line) == state
    assert result(*line, steps=2) == state  # no jump over the wall
    assert result(*line, via=(130, 60)) == result(*line, via=(130, 160)) == 1 - state
    # Above the wall's top (84) at both of its sides, 8 pixels from the bend, or not:
    assert result(*line, via=(130, 80)) == 1 - state  # 110 - 30 * 69 / 77 = 83.1
    assert result(*line, via=(130, 82)) == state  # 110 - 28 * 69 / 77 = 84.9
    assert result(*ends[1], *ends[0], via=(130, 60)) == state  # where the piece is not
    assert result(*ends[0], 130, 70) == state  # dropped on the way


BENT = [[stroke(*line, via=(130, y)) for y in (60, 160)]
        for line in ((53, 110, 207, 110), (207, 110, 53, 110))]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "state", "one", "other"),
    [
        *(("twin", state, stroke(55, 125), stroke(205, 125)) for state in (0, 1)),
        ("tabs", 0, stroke(105, 75), stroke(200, 120, 100, 115)),
        *(("detour", state, *BENT[state]) for state in (0, 1)),
    ],
)
def test_the_average_of_two_gestures_that_reach_a_goal_does_nothing(kind, state, one, other):
    screen = screens_of(kind, *WIDGETS[kind], state)
    assert after(kind, screen, one) == after(kind, screen, other) == 1 - state
    assert after(kind, screen, (one + other) / 2) == state


def test_the_slop_is_exactly_15_pixels_and_taps_and_long_presses_leave_a_gap():
    for travel, dragged in ((15, False), (15 + 1 / 256, True)):
        for x, y in ((travel, 0), (0, travel), (-0.6 * travel, 0.8 * travel)):
            gestures = read_gestures(stroke(128, 128, 128 + x, 128 + y).astype(float), 1)
            assert bool(gestures.dragged[0]) == dragged
    steps = np.arange(1, 246)
    blocks = np.concatenate([stroke(128, 128, steps=count) for count in steps])
    gestures = read_gestures(blocks, len(steps))
    np.testing.assert_array_equal(gestures.tapped, steps <= 120)
    np.testing.assert_array_equal(gestures.long_pressed, steps >= 150)
    assert not gestures.flung.any()
    early, late = stroke(60, 60, 200, 90, first=0), stroke(60, 60, 200, 90, first=209)
    one, other = (read_gestures(block, 1) for block in (early, late))  # wherever it is in the block
    for name in ("start", "end", "dragged"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
