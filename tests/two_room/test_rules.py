"""The published rules on routes and recordings made by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vj2_ddim_benchmark.two_room.geometry import Rooms
from vj2_ddim_benchmark.two_room.rules import choose_pairs, eligible, judge
from vj2_ddim_plugin.errors import DataError

ROOMS, GOAL = Rooms(), (150.0, 49.0)


def straight(*corners, step=5.0):
    """Positions from corner to corner, `step` apart."""
    route = [corners[0]]
    for start, end in pairwise(corners):
        num = max(1, round(float(np.hypot(end[0] - start[0], end[1] - start[1])) / step))
        route += [
            tuple(float(a + (b - a) * k / num) for a, b in zip(start, end, strict=True))
            for k in range(1, num + 1)
        ]
    return route


def test_a_route_through_the_door_succeeds_twice():
    """From x 80 in steps of 5: within 16 of 150 at 135 (step 11), within 8 at 145 (step 13)."""
    verdict = judge(straight((80.0, 49.0), (150.0, 49.0)), GOAL)
    assert (verdict.moderate, verdict.strict) == (11, 13)
    assert (verdict.illegal_moves, verdict.crossings) == (0, 1)


def test_near_is_not_near_enough_for_strict():
    """A distance of exactly 16 or 8 is not yet a success."""
    assert judge(straight((80.0, 49.0), (134.0, 49.0)), GOAL).moderate is None
    verdict = judge(straight((80.0, 49.0), (142.0, 49.0)), GOAL)
    assert verdict.moderate is not None
    assert verdict.strict is None


def test_a_jump_through_the_wall_is_moderate_but_never_strict():
    goal = (130.0, 150.0)
    verdict = judge([*straight((90.0, 150.0), (99.0, 150.0)), (130.0, 150.0)], goal)
    assert (verdict.moderate, verdict.strict) == (3, None)
    assert (verdict.illegal_moves, verdict.crossings) == (1, 0)


def test_who_has_not_crossed_or_is_on_the_other_side_is_not_strict():
    """In the door, 7 pixels from a goal of the other side; and a start on the goal's side."""
    in_the_door = judge(straight((90.0, 49.0), (111.0, 49.0)), (115.0, 49.0))
    assert in_the_door.moderate is not None
    assert (in_the_door.strict, in_the_door.crossings) == (None, 0)
    same_side = judge(straight((200.0, 49.0), (150.0, 49.0)), GOAL)
    assert same_side.moderate is not None
    assert same_side.strict is None


def test_which_steps_a_pair_may_begin_at():
    """Steps of 5 from x 60 to 160 through the door: those that cross 112 within 10 steps."""
    positions = np.array(straight((60.0, 49.0), (160.0, 49.0)))
    assert eligible(positions, 10, ROOMS) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert eligible(positions, 3, ROOMS) == []  # 15 pixels: solved at the start
    lower = positions + np.array([0.0, 10.0])  # y 59 clips the doorway
    assert eligible(lower, 10, ROOMS) == []
    jump = np.delete(positions + np.array([0.0, 100.0]), [8, 9, 10, 11, 12], axis=0)
    assert eligible(jump, 10, ROOMS) == []  # from x 95 to 125, both clear


def episodes(num=6):
    return [np.array(straight((60.0, 44.0 + k), (160.0, 44.0 + k)), np.float32) for k in range(num)]


def test_pairs_are_of_different_episodes_and_the_same_for_a_seed():
    manifest = choose_pairs(episodes(), 4, seed=0, goal_offset=10)
    assert len({pair.episode for pair in manifest.pairs}) == 4
    for pair in manifest.pairs:
        found = episodes()[pair.episode][[pair.first_step, pair.first_step + 10]]
        np.testing.assert_array_equal(found, [pair.start, pair.goal])
    again = choose_pairs(episodes(), 4, seed=0, goal_offset=10)
    assert again.sha256() == manifest.sha256()
    assert manifest.sha256().startswith("e7a4ac183c7d35279dd799e2ede22af4")
    other = choose_pairs(episodes(), 4, seed=1, goal_offset=10)
    assert other.sha256() != manifest.sha256()
    assert replace(manifest, seed=1).sha256() != manifest.sha256()


def test_too_few_episodes_are_an_error():
    straight_down = [np.array(straight((60.0, 30.0), (60.0, 190.0)))]
    with pytest.raises(DataError, match=r"2 of 3 recorded episodes .* 3 are needed"):
        choose_pairs(episodes(2) + straight_down, 3, seed=0, goal_offset=10)
