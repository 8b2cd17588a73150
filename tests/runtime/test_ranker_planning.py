"""The ranker inside a plan: whom it sends to the cost, what it decides alone, what stays as it was.

The fakes know their scores exactly, so who must be picked is found by sorting, by hand.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders.runtime import (
    FREE,
    LIKED,
    MEANS,
    SCHEDULE,
    TOUCH,
    WANTED,
    Asked,
    Ranked,
    all_candidates,
    liked,
    make_optimizer,
    problem,
    wanted,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import BundleError, ConfigError, ConstraintError
from vj2_ddim_plugin.interface import PlanConstraints
from vj2_ddim_plugin.planning.ranking import Candidates, Pool
from vj2_ddim_plugin.testing import GaussianModel


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_cost_is_asked_of_exactly_those_that_the_ranker_likes_best(count):
    asked = Asked()
    result = make_optimizer(num_ranked=count).optimize(problem(asked))
    candidates = all_candidates()
    assert result.num_cost_evaluations == 3 * count
    for row in range(3):
        order = np.argsort(liked(candidates[row]))[:count]
        np.testing.assert_array_equal(asked.rounds[0][row], candidates[row, order])
        cheapest = order[np.argmin(wanted(candidates)[row, order])]
        np.testing.assert_array_equal(result.actions[row], candidates[row, cheapest])
        assert result.cost[row] == pytest.approx(wanted(candidates)[row, cheapest])


@pytest.mark.parametrize("extra", [{}, {"num_refinements": 2, "eta": 1.0}])
@pytest.mark.parametrize("init_action", [None, np.full((3, 6, 2), 0.1)])
def test_as_many_as_there_are_is_as_if_there_were_no_ranker(extra, init_action):
    model = Ranked()
    asked = problem(wanted, init_action=init_action)
    plain = make_optimizer(**extra).optimize(asked)
    ranked = make_optimizer(model, num_ranked=8, **extra).optimize(asked)
    for field in ("actions", "cost", "history"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(ranked, field))
    assert plain.num_cost_evaluations == ranked.num_cost_evaluations
    assert model.seen == []


def test_without_num_ranked_the_ranker_is_never_asked():
    model = Ranked()
    make_optimizer(model).optimize(problem(wanted))
    result = make_optimizer(model).optimize(problem())
    assert model.seen == []
    assert "rank" not in result.wall_time_s


def test_the_warm_start_is_ranked_besides_and_the_plan_never_worse_than_it():
    warm = np.full((3, 6, 2), WANTED, np.float32)  # best by the cost, worst by the ranker
    asked = Asked()
    result = make_optimizer(num_ranked=2).optimize(problem(asked, init_action=warm))
    assert result.num_cost_evaluations == 3 * (2 + 1)
    np.testing.assert_array_equal(asked.rounds[0][:, 0], warm)
    np.testing.assert_array_equal(result.actions, warm)


@given(st.integers(1, 8), st.integers(0, 3), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_counts_and_bounds_hold_for_any_settings(count, rounds, warm, seed):
    init_action = np.full((3, 6, 2), 0.3, np.float32) if warm else None
    result = make_optimizer(num_ranked=count, num_refinements=rounds).optimize(
        problem(wanted, init_action=init_action, seed=seed)
    )
    assert result.num_cost_evaluations == 3 * (count * (1 + rounds) + warm)
    np.testing.assert_allclose(result.cost, wanted(result.actions[:, None])[:, 0], rtol=1e-6)
    assert (np.diff(result.history, axis=0) <= 0).all()
    if warm:
        assert (result.cost <= wanted(init_action[:, None])[:, 0]).all()


def test_without_a_cost_the_ranker_chooses_among_all():
    result = make_optimizer(num_ranked=1).optimize(problem())
    candidates = all_candidates()
    best = liked(candidates).argmin(axis=1)
    np.testing.assert_array_equal(result.actions, candidates[np.arange(3), best])
    assert np.isnan(result.cost).all()
    assert result.history.shape == (0, 3)
    assert result.num_cost_evaluations == 0
    assert result.num_denoiser_evaluations == 3 * 8 * 3
    assert result.wall_time_s["rank"] > 0.0


def test_without_a_cost_the_warm_start_is_one_of_those_it_chooses_among():
    warm = np.full((3, 6, 2), LIKED, np.float32)
    result = make_optimizer(num_ranked=4).optimize(problem(init_action=warm))
    np.testing.assert_array_equal(result.actions, warm)


def test_without_a_cost_refinement_follows_the_ranker():
    plans = [
        make_optimizer(num_ranked=1, num_refinements=rounds).optimize(problem()).actions
        for rounds in (0, 4)
    ]
    before, after = map(liked, plans)
    assert (after <= before).all()
    assert (after < before).any()


def test_a_candidate_that_breaks_a_constraint_is_picked_last():
    spec, asked = TOUCH, Asked(lambda candidates: np.zeros(candidates.shape[:2]))
    model = Ranked(spec)
    model.ranker = lambda candidates, condition: np.arange(len(candidates)) % 8.0
    wall = PlanConstraints(forbidden=[(0.0, 0.0, 0.45, 1.0)])
    optimizer = make_optimizer(model, num_ranked=3)
    try:
        result = optimizer.optimize(problem(asked, constraints=wall))
    except ConstraintError:
        pytest.fail("a candidate that keeps the constraints was forgotten for one that does not")
    pressed = result.actions[result.actions[..., 2] > 0.5]
    assert (pressed[:, 0] > 0.45).all()


def test_promising_ones_by_hand():
    def candidates(values, kept=None):
        values = np.asarray(values, float)
        kept = np.ones(values.shape, bool) if kept is None else np.asarray(kept)
        return Candidates(values[..., None, None], values / 10, kept)

    pool = Pool(candidates([[9], [9]]))
    pool.add(candidates([[1, 2, 3], [4, 5, 6]], [[True, True, False], [True] * 3]))
    assert pool.first_in_question == 1
    pool.keep_promising(np.array([[2.0, 3.0, 0.0], [3.0, 1.0, 2.0]]), 2)
    assert pool.actions[..., 0, 0].tolist() == [[9, 1, 2], [9, 5, 6]]
    assert pool.all.moved.tolist() == [[0.9, 0.1, 0.2], [0.9, 0.5, 0.6]]
    pool.rank(np.array([[5.0, 4.0, 3.0], [0.0, 1.0, 2.0]]))
    pool.add(candidates([[7, 8], [7, 8]]))
    assert pool.first_in_question == 3
    pool.keep_promising(None, 1)  # nobody was asked: the first ones
    assert pool.actions[..., 0, 0].tolist() == [[9, 1, 2, 7], [9, 5, 6, 7]]
    assert pool.cost.tolist() == [[5.0, 4.0, 3.0], [0.0, 1.0, 2.0]]


@pytest.mark.parametrize("fields", [{}, {"cost": wanted}])
def test_rows_do_not_depend_on_their_batch_nor_on_threads(fields):
    optimizer = make_optimizer(num_ranked=2, num_refinements=1)
    together = optimizer.optimize(problem(**fields))
    for row in range(3):
        alone = optimizer.optimize(problem(means=MEANS[row : row + 1], **fields))
        np.testing.assert_array_equal(alone.actions[0], together.actions[row])
    with ThreadPoolExecutor(8) as threads:
        for result in threads.map(lambda _: optimizer.optimize(problem(**fields)), range(16)):
            np.testing.assert_array_equal(result.actions, together.actions)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda n: np.zeros((n, 1)), r"returned shape \(24, 1\)"),
        (lambda n: np.full(n, np.nan), "24 values that are NaN"),
    ],
)
def test_a_ranker_that_returns_nonsense_is_named(values, message):
    model = Ranked()
    model.ranker = lambda candidates, condition: values(len(candidates))
    with pytest.raises(BundleError, match=message):
        make_optimizer(model, num_ranked=1).optimize(problem(wanted))


def test_it_is_shown_what_would_be_planned_in_the_form_that_is_diffused():
    model, shown = Ranked(TOUCH), []

    def ranker(candidates, condition):
        shown.append(candidates.reshape(3, 8, *TOUCH.diffused_shape))
        return np.zeros(len(candidates))

    model.ranker = ranker
    asked = Asked(lambda candidates: np.zeros(candidates.shape[:2]))
    make_optimizer(model).optimize(problem(asked))
    make_optimizer(model, num_ranked=1).optimize(problem())
    np.testing.assert_allclose(gestures.decode(shown[0], TOUCH), asked.rounds[0], atol=1e-6)


def test_a_bundle_without_a_ranker_is_told_what_to_do():
    model = GaussianModel(FREE, SCHEDULE)
    with pytest.raises(ConfigError, match=r"num_ranked 2 needs a ranker.*--ranker ranker\.pt"):
        make_optimizer(model, num_ranked=2)
    make_optimizer(model, num_ranked=None)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "num_ranked must be at least 1; found 0"),
        (2.0, "num_ranked must be an integer"),
        (9, "num_ranked must be at most num_candidates, 8.*found 9"),
    ],
)
def test_a_number_out_of_range_is_named(count, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(num_ranked=count)
