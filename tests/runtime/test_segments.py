"""Press segments and paths, against brute force."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin.gestures.segments import (
    count_segments,
    fit_knots,
    interpolate_knots,
    longest_segment,
)

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
presses = st.integers(1, 12).flatmap(
    lambda length: st.lists(
        st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=5
    )
)


def runs_of(row):
    """`(start, stop)` of each press segment, by walking over it."""
    runs, position = [], 0
    for pressed, group in groupby(row):
        length = len(list(group))
        if pressed:
            runs.append((position, position + length))
        position += length
    return runs


@quick
@given(presses)
def test_segments_equal_those_found_by_walking(rows):
    pressed = np.array(rows)
    counts, (start, stop) = count_segments(pressed), longest_segment(pressed)
    for index, row in enumerate(rows):
        runs = runs_of(row)
        assert counts[index] == len(runs)
        # max returns the earliest of equally long runs
        wanted = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
        assert (start[index], stop[index]) == wanted


def through(knots, num_steps):
    at = np.linspace(0, len(knots) - 1, num_steps)
    return np.stack([np.interp(at, range(len(knots)), column) for column in knots.T], axis=1)


@pytest.mark.parametrize("num_knots", [2, 3, 5])
@pytest.mark.parametrize("length", [5, 6, 7, 20])
def test_knots_of_a_piecewise_linear_path_are_found_exactly(length, num_knots):
    knots = np.random.default_rng(length).standard_normal((1, num_knots, 2))
    values = np.zeros((1, 25, 2))
    values[0, 3 : 3 + length] = through(knots[0], length)
    start, stop = np.array([3]), np.array([3 + length])
    np.testing.assert_allclose(fit_knots(values, start, stop, num_knots), knots, atol=1e-9)
    drawn = interpolate_knots(knots, start, stop, 25)
    np.testing.assert_allclose(drawn, values, atol=1e-12)


@pytest.mark.parametrize("num_knots", [2, 3, 4])
def test_the_fit_has_the_least_squared_error(num_knots):
    rng = np.random.default_rng(num_knots)
    values = rng.standard_normal((1, 11, 1))
    start, stop = np.array([0]), np.array([11])
    knots = fit_knots(values, start, stop, num_knots)
    best = np.sum((through(knots[0], 11) - values[0]) ** 2)
    for _ in range(200):
        other = knots[0] + 0.01 * rng.standard_normal((num_knots, 1))
        assert np.sum((through(other, 11) - values[0]) ** 2) >= best


@pytest.mark.parametrize("num_knots", [2, 3, 4, 5])
def test_a_still_finger_is_a_still_path_however_short_the_press(num_knots):
    for length in range(1, 7):
        values = np.full((1, 8, 2), 0.3)
        knots = fit_knots(values, np.array([1]), np.array([1 + length]), num_knots)
        np.testing.assert_allclose(knots, 0.3, atol=1e-12)


def test_rows_of_different_lengths_do_not_mix():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 10, 2))
    start = np.array([0, 2, 0, 5, 9, 4])
    stop = np.array([10, 7, 5, 10, 10, 4])
    together = fit_knots(values, start, stop, 3)
    drawn = interpolate_knots(together, start, stop, 10)
    for row in range(6):
        one = slice(row, row + 1)
        alone = fit_knots(values[one], start[one], stop[one], 3)
        np.testing.assert_allclose(together[one], alone, atol=1e-12)
        outside = np.ones(10, bool)
        outside[start[row] : stop[row]] = False
        assert not drawn[row, outside].any()
    assert not together[5].any()  # an empty segment
