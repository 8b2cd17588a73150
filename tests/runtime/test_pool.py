"""The pool of candidates, by hand."""

import numpy as np
import pytest

from vj2_ddim_plugin.errors import ConstraintError, CostError
from vj2_ddim_plugin.planning.ranking import Candidates, Pool


def candidates(values, kept=None):
    """One number a candidate, `[B, K]`, told apart by it."""
    actions = np.asarray(values, float)[..., None, None]
    kept = np.ones(actions.shape[:2], bool) if kept is None else np.asarray(kept, bool)
    return Candidates(actions, np.asarray(values, float) / 10, kept)


def none_given(batch=1):
    return Pool(candidates(np.zeros((batch, 0))))


def chosen(pool, ranking=True):
    choice = pool.choice(ranking=ranking)
    return pool.actions[np.arange(len(choice)), choice, 0, 0].tolist()


def test_the_cheapest_that_keeps_the_constraints_is_the_plan():
    pool = none_given()
    pool.add(candidates([[1, 2, 3]], [[True, False, True]]))
    order = pool.actions[0, :, 0, 0].tolist()
    assert order == [1, 3, 2]  # those that keep them are ranked first
    pool.rank(np.array([[5.0, 4.0, 0.0]]))
    assert chosen(pool) == [3]
    assert pool.best_cost().tolist() == [4.0]
    assert pool.cost_of_choice(pool.choice(ranking=True)).tolist() == [4.0]


def test_without_a_cost_the_first_sample_that_may_be_the_plan_is():
    pool = Pool(candidates([[9], [9]]))
    pool.add(candidates([[1], [2]], [[True], [False]]))
    assert chosen(pool, ranking=False) == [1, 9]  # the warm start only where nothing else may be
    pool.add(candidates([[3, 4], [5, 6]], [[True, True], [False, True]]))
    assert chosen(pool, ranking=False) == [1, 6]


def test_where_there_was_no_time_for_the_cost_the_warm_start_is_the_plan():
    pool = Pool(candidates([[9], [8]], [[True], [False]]))
    pool.add(candidates([[1], [2]]))
    choice = pool.choice(ranking=True)
    assert pool.actions[[0, 1], choice, 0, 0].tolist() == [9, 2]
    assert np.isnan(pool.cost_of_choice(choice)).all()


def test_a_candidate_of_infinite_cost_is_not_preferred_to_one_that_was_not_asked():
    pool = Pool(candidates([[9], [9]]))
    pool.add(candidates([[1, 2], [3, 4]]))
    pool.rank(np.array([[np.inf], [7.0]]))
    choice = pool.choice(ranking=True)
    assert pool.actions[[0, 1], choice, 0, 0].tolist() == [1, 9]
    np.testing.assert_array_equal(pool.cost_of_choice(choice), [np.nan, 7.0])


def test_where_all_costs_are_infinite_or_nothing_is_kept_it_is_an_error():
    pool = none_given()
    pool.add(candidates([[1, 2]]))
    pool.rank(np.full((1, 2), np.inf))
    with pytest.raises(CostError, match="of problem 0"):
        pool.choice(ranking=True)
    pool = none_given(2)
    pool.add(candidates([[1], [2]], [[True], [False]]))
    with pytest.raises(ConstraintError, match="of problem 1 keeps"):
        pool.choice(ranking=False)


def test_only_the_best_are_remembered_and_what_is_known_goes_with_them():
    pool = none_given(2)
    pool.add(candidates([[1, 2, 3, 4], [5, 6, 7, 8]]))
    pool.rank(np.array([[3.0, 1.0, 2.0], [0.0, 9.0, 8.0]]))  # the last one was not asked for
    pool.keep_best(2)
    assert pool.actions[..., 0, 0].tolist() == [[2, 3], [5, 7]]
    assert pool.cost.tolist() == [[1.0, 2.0], [0.0, 8.0]]
    assert pool.all.moved.tolist() == [[0.2, 0.3], [0.5, 0.7]]
    assert pool.num_unranked == 0
    pool.add(candidates([[10], [11]]))
    pool.rank(np.array([[0.5], [0.5]]))
    assert chosen(pool) == [10, 5]


def test_elites_are_the_best_quarter_repeated():
    pool = none_given()
    pool.add(candidates([np.arange(8)]))
    pool.rank(np.array([[7, 6, 5, 4, 3, 2, 1, 0.0]]))
    assert pool.elites(8)[0, :, 0, 0].tolist() == [7, 6, 7, 6, 7, 6, 7, 6]


def test_the_distance_of_a_change_is_the_largest_in_any_entry():
    before = np.zeros((1, 2, 3, 1))
    after = before.copy()
    after[0, 1, 2] = -0.25
    kept = np.ones((1, 2), bool)
    assert Candidates.changed(before, after, kept).moved.tolist() == [[0.0, 0.25]]
    assert Candidates.changed(before, before, kept).moved.tolist() == [[0.0, 0.0]]
