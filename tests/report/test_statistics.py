"""Intervals and paired tests against hand-computed values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_benchmark.report.summary import mcnemar, wilson_interval
from vj2_ddim_plugin.errors import DataError

Z = 1.959963984540054


def wilson_by_hand(k, n):
    p, z2 = k / n, Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return centre - half, centre + half


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_score_interval(counts):
    np.testing.assert_allclose(wilson_interval(*counts), wilson_by_hand(*counts), atol=1e-9)


def test_wilson_by_known_numbers():
    # 8 of 10 (Newcombe 1998's method 3, computed by hand): 0.4902 to 0.9433
    np.testing.assert_allclose(wilson_interval(8, 10), (0.4902, 0.9433), atol=1e-4)
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert high == pytest.approx(Z**2 / (20 + Z**2))


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(counts):
    with pytest.raises(DataError):
        wilson_interval(*counts)


def outcomes(both, only_first, only_second, neither):
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


def test_mcnemar_by_hand():
    test = mcnemar(*outcomes(3, 8, 2, 7))
    # of 10 discordant pairs, 2 or fewer one way: (1 + 10 + 45) / 1024, twice; mid: less 45 / 1024
    assert (test.only_first, test.only_second) == (8, 2)
    assert test.exact_p == pytest.approx(112 / 1024)
    assert test.mid_p == pytest.approx((112 - 45) / 1024)


def test_mcnemar_of_equal_planners():
    for counts in [(5, 0, 0, 5), (1, 3, 3, 1)]:
        test = mcnemar(*outcomes(*counts))
        assert test.exact_p == pytest.approx(1.0)
        assert test.mid_p == pytest.approx(1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_symmetric_and_the_mid_p_is_smaller(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    forth, back = mcnemar(first, second), mcnemar(second, first)
    assert (forth.only_first, forth.only_second) == (back.only_second, back.only_first)
    assert forth.exact_p == pytest.approx(back.exact_p)
    assert 0 < forth.mid_p <= forth.exact_p + 1e-12 <= 1.0 + 1e-9


def test_mcnemar_needs_pairs_of_booleans():
    with pytest.raises(DataError):
        mcnemar([True], [True, False])
    with pytest.raises(DataError):
        mcnemar([0.5], [True])
