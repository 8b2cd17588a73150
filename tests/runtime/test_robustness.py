"""Plans that do not depend on being hit exactly: copies by hand, choices by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from builders.runtime import FREE, SCHEDULE

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning.deadline import Deadline
from vj2_ddim_plugin.planning.search import moved_copies
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel

TALL = replace(FREE, action_low=(-1.0, -2.0), action_high=(1.0, 2.0))
TOUCH = ActionSpec(action_block=4, min_press_steps=2, max_press_steps=3, path_knots=2)
RADIUS = 0.02
SEED = 15


def cliff(candidates):
    """Lowest just above an edge, and very high below it: the cheapest plan is a bad bet.

    The edge is another one in every problem of a batch.
    """
    place = candidates.mean(axis=2)[..., 0]
    edge = 0.05 * np.arange(len(candidates))[:, None]
    return np.where(place > edge, place - edge, 10.0)


class Asked:
    def __init__(self):
        self.candidates = []

    def __call__(self, candidates):
        self.candidates.append(candidates)
        return cliff(candidates)


def make(**settings):
    model = GaussianModel(TALL, SCHEDULE, 0.0, 0.5)
    return DDIMOptimizer(model, num_inference_steps=5, num_candidates=16, **settings)


def test_a_touch_is_moved_where_it_is_pressed_and_stays_on_the_screen():
    touch = np.zeros((4, 3), np.float32)
    touch[1:3] = [[0.5, 0.99, 1.0], [0.6, 0.02, 1.0]]
    right, left, down, up = moved_copies(touch, TOUCH, 0.05)
    np.testing.assert_allclose(right[1:3], [[0.55, 0.99, 1.0], [0.65, 0.02, 1.0]], atol=1e-6)
    np.testing.assert_allclose(left[1:3], [[0.45, 0.99, 1.0], [0.55, 0.02, 1.0]], atol=1e-6)
    np.testing.assert_allclose(down[1:3], [[0.5, 1.0, 1.0], [0.6, 0.07, 1.0]], atol=1e-6)
    np.testing.assert_allclose(up[1:3], [[0.5, 0.94, 1.0], [0.6, 0.0, 1.0]], atol=1e-6)
    for copy in (right, left, down, up):
        assert copy.dtype == np.float32
        assert not copy[[0, 3]].any()


def test_without_a_press_every_channel_is_moved_by_its_own_range():
    copies = moved_copies(np.zeros((2, 6, 2)), TALL, 0.1)
    assert copies.shape == (2, 4, 6, 2)
    np.testing.assert_allclose(copies[0, :, 0], [[0.2, 0], [-0.2, 0], [0, 0.4], [0, -0.4]])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_robust", [2, 4, 16])
def test_the_plan_has_the_lowest_worst_cost_of_the_cheapest(batch, num_robust):
    asked, problem = Asked(), {"batch_size": batch, "seed": 3}
    plain = make().optimize(PlanningProblem({}, cost=asked, **problem))
    (candidates,) = asked.candidates
    robust = make(num_robust=num_robust, robust_radius=RADIUS).optimize(
        PlanningProblem({}, cost=cliff, **problem)
    )
    cost, rows = cliff(candidates), np.arange(batch)[:, None]
    cheapest = np.argsort(cost, axis=1, kind="stable")[:, :num_robust]
    copies = moved_copies(candidates[rows, cheapest], TALL, RADIUS)
    moved = cliff(copies.reshape(batch, -1, *copies.shape[3:])).reshape(copies.shape[:3])
    worst = np.maximum(cost[rows, cheapest], moved.max(axis=2))
    expected = cheapest[rows[:, 0], worst.argmin(axis=1)]
    assert (expected != cheapest[:, 0]).any()  # else the case shows nothing
    np.testing.assert_array_equal(robust.actions, candidates[rows[:, 0], expected])
    np.testing.assert_allclose(robust.cost, cost[rows[:, 0], expected])
    assert robust.num_cost_evaluations == batch * (16 + num_robust * 4)
    np.testing.assert_allclose(plain.cost, cost.min(axis=1))


def test_what_is_sent_already_is_not_moved():
    asked, frozen = Asked(), np.full((1, 3, 2), 0.3, np.float32)
    make(num_robust=2).optimize(
        PlanningProblem({}, cost=asked, batch_size=1, seed=3, frozen_action=frozen)
    )
    plans, copies = asked.candidates
    assert copies.shape[1] == 8
    for candidates in (plans, copies):
        np.testing.assert_allclose(candidates[:, :, :3], 0.3, atol=1e-6)
    assert np.ptp(copies[0, :4, 3:], axis=0).max() > 1.9 * RADIUS


def test_without_a_cost_nothing_is_asked():
    result = make(num_robust=4).optimize(PlanningProblem({}, batch_size=1, seed=3))
    assert result.num_cost_evaluations == 0
    same = make().optimize(PlanningProblem({}, batch_size=1, seed=3))
    np.testing.assert_array_equal(result.actions, same.actions)


def test_under_a_deadline_as_many_are_checked_as_there_is_time_for(monkeypatch):
    checked = []

    def allows(self, *operations):
        ((name, rows, _),) = operations[:1]
        if name == "cost" and rows == 4:  # the copies of one candidate
            checked.append(rows)
            return len(checked) <= 2
        return True

    def largest_slice(self, name, rows, each):
        return rows if each == 1 else 1

    monkeypatch.setattr(Deadline, "allows", allows)
    monkeypatch.setattr(Deadline, "largest_slice", largest_slice)

    def plan(num_robust):
        checked.clear()
        return make(num_robust=num_robust, robust_radius=RADIUS).optimize(
            PlanningProblem({}, cost=cliff, batch_size=1, seed=SEED, deadline_s=60)
        )

    limited, two = plan(4), plan(2)
    np.testing.assert_array_equal(limited.actions, two.actions)
    assert limited.num_cost_evaluations == 16 + 2 * 4
    monkeypatch.undo()
    assert not np.array_equal(plan(4).actions, two.actions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_robust": -1}, "num_robust must be"),
        ({"num_robust": 1}, "from 2 to 16.*found 1"),
        ({"num_robust": 17}, "from 2 to 16.*found 17"),
        ({"robust_radius": 0.0}, r"robust_radius must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)
