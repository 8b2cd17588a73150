"""Forbidden rectangles: geometry against brute force."""

import numpy as np
import pytest
from builders.gestures import SPEC, gesture
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin.constraints.moves import clear_shift, move_clear, touches
from vj2_ddim_plugin.gestures import is_valid


@pytest.mark.parametrize(
    ("rectangle", "touched"),
    [
        ((0.4, 0.4, 0.6, 0.6), True),  # on the way
        ((0.49, 0.0, 0.495, 1.0), True),  # narrower than one step of the finger
        ((0.0, 0.8, 0.2, 1.0), False),
        ((0.875, 0.875, 1.0, 1.0), True),  # its corner is the last point: edges are included
        ((0.88, 0.88, 1.0, 1.0), False),
    ],
)
def test_a_drag_touches_what_it_crosses(rectangle, touched):
    block = gesture(3, 8, (0.125, 0.125), (0.875, 0.875))
    assert touches(block, np.array([rectangle]), SPEC)[0] == touched


def test_a_lifted_finger_touches_nothing():
    assert not touches(np.zeros((1, 20, 3)), np.array([[0.0, 0.0, 0.1, 0.1]]), SPEC)[0]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_crossing_agrees_with_a_fine_walk_along_the_segment(data):
    unit = st.integers(0, 20).map(lambda n: n / 20)
    points = [(data.draw(unit), data.draw(unit)) for _ in range(2)]
    x, y = sorted((data.draw(unit), data.draw(unit))), sorted((data.draw(unit), data.draw(unit)))
    rectangle = np.array([[x[0] - 0.01, y[0] - 0.01, x[1] + 0.01, y[1] + 0.01]])
    block = np.zeros((1, 20, 3))
    block[0, 5, :2], block[0, 6, :2], block[0, 5:7, 2] = *points, 1.0
    walk = np.linspace(*points, 4001)

    def walks_into(grown):
        low, high = rectangle[0, :2] - grown, rectangle[0, 2:] + grown
        return ((walk >= low) & (walk <= high)).all(axis=1).any()

    touched = touches(block, rectangle, SPEC)[0]
    if walks_into(-1e-3):
        assert touched
    if not walks_into(1e-3):  # between the two a corner is grazed, which rounding decides
        assert not touched


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_shift_is_the_shortest_that_clears_every_rectangle(data):
    """Against brute force over a fine grid of shifts."""
    cell = st.integers(0, 9)
    rectangles = []
    for _ in range(data.draw(st.integers(1, 3))):
        x, y = data.draw(cell), data.draw(cell)
        rectangles.append((x / 10, y / 10, (x + 1) / 10, (y + 1) / 10))
    rectangles = np.array(rectangles)
    low = np.array([[data.draw(cell) / 10, data.draw(cell) / 10]])
    high = low + 0.05
    shift, found = clear_shift(low, high, rectangles, SPEC)
    grid = np.linspace(-1, 1, 201)
    tries = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    new_low, new_high = low + tries, high + tries
    good = ((new_low >= -1e-9) & (new_high <= 1 + 1e-9)).all(axis=1)
    apart = (new_high[:, None] < rectangles[:, :2]) | (new_low[:, None] > rectangles[:, 2:])
    good &= apart.any(axis=2).all(axis=1)
    assert found[0] == good.any()
    shortest = np.linalg.norm(tries[good], axis=1).min()
    assert np.linalg.norm(shift[0]) <= shortest + 2e-4  # it stays a little off the edges
    moved_low, moved_high = low + shift, high + shift
    assert (((moved_high < rectangles[:, :2]) | (moved_low > rectangles[:, 2:])).any(axis=1)).all()


def test_a_gesture_that_touches_is_moved_as_a_whole_and_the_others_stay():
    blocks = np.concatenate(
        [gesture(3, 8, (0.5, 0.5), (0.6, 0.5)), gesture(3, 8, (0.1, 0.9), (0.2, 0.9))]
    )
    rectangle = np.array([[0.45, 0.0, 0.65, 0.52]])
    moved = move_clear(blocks, rectangle, SPEC)
    np.testing.assert_array_equal(moved[1], blocks[1])
    assert is_valid(moved, SPEC).all()
    np.testing.assert_allclose(moved[0, 3:8, 1], 0.52 + 1e-4, atol=1e-6)  # the near edge
    np.testing.assert_allclose(moved[0, 3:8, 0], blocks[0, 3:8, 0], atol=1e-6)


def test_a_gesture_that_fits_nowhere_becomes_a_tap_near_its_first_point():
    walls = np.array([[0.3, 0.0, 0.4, 1.0], [0.6, 0.0, 0.7, 1.0]])
    block = gesture(3, 8, (0.05, 0.5), (0.95, 0.5))
    moved = move_clear(block, walls, SPEC)
    np.testing.assert_allclose(moved[0, 3:8, :2], [[0.05, 0.5]] * 5, atol=1e-6)
    assert not touches(moved, walls, SPEC)[0]


@pytest.mark.parametrize("count", [1, 7, 40])
def test_many_rectangles_give_the_same_shift_as_trying_each_alone(count):
    """A whole keyboard of them; against the same search, one pair of moves at a time."""
    rng = np.random.default_rng(count)
    corner = rng.random((count, 2)) * 0.9
    rectangles = np.concatenate([corner, corner + 0.05], axis=1)
    low = rng.random((5, 2)) * 0.9
    high = low + 0.03
    shift, found = clear_shift(low, high, rectangles, SPEC)
    for row in range(5):
        moves = [
            np.concatenate(
                [
                    [0.0, -low[row, axis], 1.0 - high[row, axis]],
                    rectangles[:, axis] - 1e-4 - high[row, axis],
                    rectangles[:, axis + 2] + 1e-4 - low[row, axis],
                ]
            )
            for axis in (0, 1)
        ]
        best = np.inf
        for dx in moves[0]:
            for dy in moves[1]:
                new_low, new_high = low[row] + (dx, dy), high[row] + (dx, dy)
                apart = (new_high < rectangles[:, :2]) | (new_low > rectangles[:, 2:])
                if apart.any(axis=1).all() and new_low.min() > -1e-6 and new_high.max() < 1 + 1e-6:
                    best = min(best, np.hypot(dx, dy))
        assert found[row] == np.isfinite(best)
        assert np.hypot(*shift[row]) == pytest.approx(best)
