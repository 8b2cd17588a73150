"""TwoRoom's swept disk: by hand, and against the distance at many points of each move."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_benchmark.two_room.geometry import GAP, TOLERANCE, Rooms

ROOMS = Rooms()  # wall at x 107 to 117, door at y 35 to 63, radius 7
BESIDE = 107 - 7  # the x at which the disk touches the wall from the left
places = st.tuples(st.floats(21, 203), st.floats(21, 203))


def distance_to_wall(point):
    """Written another way: the wall's two parts as boxes, the nearest point by clamping."""
    x, y = point
    on = min(max(x, 107), 117)
    return min(math.dist(point, (on, min(y, 35))), math.dist(point, (on, max(y, 63))))


def along(start, end, num=200):
    for step in range(num + 1):
        share = step / num
        yield start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


@pytest.mark.parametrize(
    ("start", "end", "legal"),
    [
        ((90, 49), (134, 49), True),  # through the middle of the door
        ((90, 42), (134, 42), True),  # the disk just fits
        ((90, 41.9), (134, 41.9), False),  # clips the doorway
        ((90, 56), (134, 56), True),
        ((90, 56.1), (134, 56.1), False),
        ((99, 150), (125, 150), False),  # both ends are clear, the wall is between
        ((BESIDE, 80), (BESIDE, 190), True),  # along the wall
        ((BESIDE + 0.1, 80), (90, 80), False),  # begins in it
        ((112, 49), (112, 55.9), True),  # within the door
        ((112, 49), (112, 56.1), False),
        ((99, 70), (112, 49), False),  # cuts the corner
        ((30, 30), (20.9, 30), False),  # into the border
        ((21, 203), (99, 203), True),
    ],
)
def test_what_is_legal(start, end, legal):
    assert ROOMS.is_legal(start, end) is legal
    assert ROOMS.is_legal(end, start) is legal
    mirrored = [(224 - x, y) for x, y in (start, end)]
    assert ROOMS.is_legal(*mirrored) is legal


@pytest.mark.parametrize(
    ("start", "wanted", "end"),
    [
        ((60, 150), (65, 145), (65, 145)),  # nothing is near
        ((90, 150), (130, 150), (BESIDE, 150)),  # a jump through the wall stops at it
        ((90, 150), (110, 160), (BESIDE, 160)),  # and slides along it
        ((134, 150), (110, 140), (117 + 7, 140)),
        ((112, 49), (112, 90), (112, 56)),  # a side of the doorway
        ((25, 100), (10, 105), (21, 105)),  # the border
        ((25, 200), (10, 230), (21, 203)),  # its corner
        ((90, 49), (134, 49), (134, 49)),
    ],
)
def test_where_a_move_ends(start, wanted, end):
    assert ROOMS.move(start, wanted) == pytest.approx(end, abs=2 * GAP)


def test_a_corner_is_round():
    """Pushed at the doorway's corner (107, 63), the disk meets it 7 away from it, and slides."""
    stopped = 107 - math.sqrt(7**2 - 5**2)  # at y 58: 102.1
    assert ROOMS.move((95, 58), (stopped - 0.01, 58)) == (stopped - 0.01, 58)
    x, y = ROOMS.move((95, 58), (105, 58))
    assert math.dist((x, y), (107, 63)) >= 7
    assert stopped < x < 105
    assert y < 58


@given(places, places)
def test_legal_is_what_many_points_say(start, end):
    """At a fineness of 200 points the least distance is known to within half a step."""
    least = min(map(distance_to_wall, along(start, end)))
    spacing = math.dist(start, end) / 200
    if least < 7 - TOLERANCE:
        assert not ROOMS.is_legal(start, end)
    if least - spacing > 7:
        assert ROOMS.is_legal(start, end)


@given(places, st.tuples(st.floats(-60, 60), st.floats(-60, 60)))
def test_no_push_ever_leads_into_a_wall(start, push):
    """Where the disk ends is clear; a push that meets nothing leads where it was meant to."""
    if distance_to_wall(start) < 7:
        return
    wanted = ROOMS.within((start[0] + push[0], start[1] + push[1]))
    end = ROOMS.move(start, wanted)
    assert distance_to_wall(end) >= 7 - TOLERANCE
    assert ROOMS.within(end) == pytest.approx(end)
    if min(map(distance_to_wall, along(start, wanted))) > 7.5:  # points are 0.42 apart at most
        assert end == wanted


@given(places, st.tuples(st.floats(-7, 7), st.floats(-7, 7)))
def test_a_step_of_the_agent_is_legal_as_a_straight_move(start, push):
    """The environment's steps are short: sliding does not lead around what is between the ends."""
    if distance_to_wall(start) < 7:
        return
    end = ROOMS.move(start, (start[0] + push[0], start[1] + push[1]))
    assert ROOMS.is_legal(start, end)
