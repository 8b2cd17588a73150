"""The ranker under a deadline, on a simulated clock, so that no machine's speed matters."""

import numpy as np
import pytest
from builders.runtime import MEANS, Asked, Ranked, all_candidates, liked, make_optimizer, problem

from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.planning.deadline import Deadline, Pace
from vj2_ddim_plugin.testing import QuadraticCost


class Timed(Ranked):
    def __init__(self, clock, per_step, per_ranking):
        super().__init__()
        self.clock, self.per_step, self.per_ranking = clock, per_step, per_ranking

    def denoise(self, *args):
        self.clock["s"] += self.per_step
        return super().denoise(*args)

    def ranker(self, *args):
        self.clock["s"] += self.per_ranking
        return super().ranker(*args)


def test_a_slow_cost_is_asked_of_the_most_promising_first(clock):
    optimizer = make_optimizer(Timed(clock, 1e-4, 1e-4), num_ranked=6)
    optimizer.warm_up()
    asked = Asked()

    def slow(candidates):
        clock["s"] += 0.03 * candidates.shape[1]
        return asked(candidates)

    for _ in range(20):
        asked.rounds.clear()
        result = optimizer.optimize(problem(slow, MEANS[:1], deadline_s=0.1))
    assert 0 < result.num_cost_evaluations < 6
    best = all_candidates(means=MEANS[:1])[0]
    best = best[np.argsort(liked(best))]
    found = np.concatenate(asked.rounds, axis=1)[0]
    np.testing.assert_array_equal(found, best[: len(found)])


def test_a_ranker_that_has_no_time_is_left_out(clock):
    optimizer = make_optimizer(Timed(clock, 1e-4, 1.0), num_ranked=2)
    optimizer.warm_up()
    asked = Asked()
    result = optimizer.optimize(problem(asked, deadline_s=0.05))
    assert clock["s"] > 1.0  # the warm-up did ask it
    assert result.stopped_because == "deadline"
    assert result.num_cost_evaluations <= 3 * 2
    assert np.isfinite(result.actions).all()
    alone = optimizer.optimize(problem(deadline_s=0.05))
    assert alone.stopped_because == "deadline"
    assert np.isnan(alone.cost).all()


def test_time_is_kept_back_for_the_few_that_are_asked_not_for_all():
    pace = Pace()
    for _ in range(200):
        pace.record("denoise", 16, 0.001)
        pace.record("cost", 16, 0.040)
        pace.record("cost", 1, 0.0025)
        pace.record("rank", 16, 0.001)
    assert Deadline(0.016, pace).affordable(16, 10, 1, ranked=True, num_ranked=1) == (16, 10)
    assert Deadline(0.016, pace).affordable(16, 10, 1, ranked=True)[1] < 10
    without = Deadline(0.0125, pace).affordable(16, 10, 1, ranked=False)
    assert without == (16, 10)
    assert Deadline(0.0115, pace).affordable(16, 10, 1, ranked=False)[1] < 10


def test_refining_until_the_deadline_needs_one_with_a_ranker_too():
    optimizer = make_optimizer(num_ranked=1, num_refinements=None)
    with pytest.raises(ContextError, match="deadline_s"):
        optimizer.optimize(problem())
    result = optimizer.optimize(problem(QuadraticCost(np.zeros((6, 2))), deadline_s=0.05))
    assert len(result.history) > 0
