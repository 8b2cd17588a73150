"""Replanning while executing: the frozen beginning is kept, the rest continues it."""

from dataclasses import replace

import numpy as np
import pytest
from builders.gestures import SCHEDULE, SPEC
from builders.runtime import FREE
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem, gestures
from vj2_ddim_plugin.constraints.moves import continue_blocks
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost


def gesture(start, stop, begin, end, spec=SPEC):
    """One straight press from step `start` to `stop`, `[1, T, 3]`."""
    block = np.zeros((1, spec.action_block, 3), np.float32)
    for axis in (0, 1):
        block[0, start:stop, axis] = np.linspace(begin[axis], end[axis], stop - start)
    block[0, start:stop, 2] = 1.0
    return block


def released(count):
    return np.zeros((1, count, 3), np.float32)


def test_a_gesture_that_begins_later_is_left_as_it_was():
    sampled = gesture(8, 14, (0.2, 0.3), (0.6, 0.7))
    np.testing.assert_array_equal(continue_blocks(sampled, released(5), SPEC), sampled)


def test_a_gesture_that_began_before_now_begins_now():
    sampled = gesture(2, 8, (0.2, 0.3), (0.6, 0.7))
    wanted = gesture(5, 11, (0.2, 0.3), (0.6, 0.7))
    np.testing.assert_allclose(continue_blocks(sampled, released(5), SPEC), wanted, atol=1e-7)


def test_a_gesture_that_no_longer_fits_is_left_out():
    sampled = gesture(2, 8, (0.2, 0.3), (0.6, 0.7))
    assert not continue_blocks(sampled, released(17), SPEC).any()


def test_after_a_finished_gesture_the_rest_is_released():
    sent = gesture(1, 5, (0.5, 0.5), (0.5, 0.5))[:, :8]
    continued = continue_blocks(gesture(10, 15, (0, 0), (1, 1)), sent, SPEC)
    np.testing.assert_array_equal(continued[:, :8], sent)
    assert not continued[:, 8:].any()


def test_a_finger_that_is_down_goes_from_where_it_is_to_the_sampled_end():
    sent = gesture(3, 9, (0.1, 0.1), (0.3, 0.1))[:, :7]  # down since step 3, at x = 0.22
    sampled = gesture(4, 11, (0.4, 0.4), (0.8, 0.8))
    continued = continue_blocks(sampled, sent, SPEC)[0]
    np.testing.assert_array_equal(continued[:7], sent[0])
    pressed = continued[:, 2] > 0.5
    assert pressed[3:11].all()
    assert not pressed[11:].any()
    np.testing.assert_allclose(continued[10, :2], [0.8, 0.8], atol=1e-6)  # the sampled end
    # hand-computed: four steps (7 to 10) of a straight way from (0.22, 0.1) to (0.8, 0.8)
    wanted = np.linspace([0.22, 0.1], [0.8, 0.8], 5)[1:]
    np.testing.assert_allclose(continued[7:11, :2], wanted, atol=1e-6)


def test_a_press_in_progress_stays_within_its_valid_lengths():
    sent = gesture(5, 9, (0.5, 0.5), (0.5, 0.5))[:, :7]
    early = continue_blocks(gesture(0, 4, (0.5, 0.5), (0.5, 0.5)), sent, SPEC)[0, :, 2]
    late = continue_blocks(gesture(10, 20, (0.5, 0.5), (0.5, 0.5)), sent, SPEC)[0, :, 2]
    assert (early.sum(), late.sum()) == (4, 10)


def test_other_actions_are_overwritten():
    actions = np.random.default_rng(0).random((2, 6, 2)).astype(np.float32)
    sent = np.full((2, 3, 2), 0.25, np.float32)
    continued = continue_blocks(actions, sent, FREE)
    np.testing.assert_array_equal(continued[:, :3], sent)
    np.testing.assert_array_equal(continued[:, 3:], actions[:, 3:])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_continuation_is_one_gesture_without_a_jump(data):
    """Any sampled gesture, any valid one of which any beginning was sent."""
    unit = st.floats(0, 1, width=32)

    def any_gesture():
        start = data.draw(st.integers(0, 16))
        stop = data.draw(st.integers(start + 4, min(start + 10, 20)))
        points = [(data.draw(unit), data.draw(unit)) for _ in range(2)]
        return gesture(start, stop, *points)

    sampled, current = any_gesture(), any_gesture()
    sent = data.draw(st.integers(1, 19))
    continued = continue_blocks(sampled, current[:, :sent], SPEC)[0]
    np.testing.assert_array_equal(continued[:sent], current[0, :sent])
    pressed = continued[:, 2] > 0.5
    assert set(np.unique(continued[:, 2])) <= {0.0, 1.0}
    assert np.sum(pressed & ~np.concatenate([[False], pressed[:-1]])) <= 1
    assert not continued[~pressed].any()
    assert pressed.sum() in (0, *range(4, 11))
    assert (continued >= 0).all()
    assert (continued <= 1).all()
    if pressed[sent - 1] and pressed[sent:].any():
        # the finger moves on at the sample's own pace, plus its share of the way over to the sample
        first = np.abs(continued[sent, :2] - continued[sent - 1, :2]).max()
        own = np.abs(np.diff(sampled[0, sampled[0, :, 2] > 0.5, :2], axis=0)).max()
        assert first <= own + 1.0 / pressed[sent:].sum() + 1e-6


def make_optimizer(spec=SPEC, **settings):
    mean = np.zeros(spec.diffused_shape)
    return DDIMOptimizer(GaussianModel(spec, SCHEDULE, mean, 0.5), num_candidates=6, **settings)


@pytest.mark.parametrize("with_cost", [False, True])
@pytest.mark.parametrize("sent", [1, 7, 19])
def test_every_plan_begins_with_what_was_sent(sent, with_cost):
    current = np.concatenate(
        [gesture(5, 12, (0.2, 0.2), (0.9, 0.4)), gesture(0, 6, (0.1, 0.9), (0.1, 0.9))]
    )
    frozen = current[:, :sent]
    cost = QuadraticCost(np.full((20, 3), 0.5)) if with_cost else None
    problem = PlanningProblem(cost=cost, frozen_action=frozen, init_action=current)
    result = make_optimizer(num_refinements=1).optimize(problem)
    np.testing.assert_array_equal(result.actions[:, :sent], frozen)
    assert (gestures.pressed(result.actions, SPEC).sum(axis=1) <= 10).all()


def test_the_rest_of_the_plan_follows_the_exact_posterior_given_the_beginning():
    """Gaussian data with correlated steps: what follows a known beginning has a closed form."""
    size, sent, value = 6, 3, 0.9
    covariance = np.full((size, size), 0.25) + 1e-2 * np.eye(size)
    wide = replace(FREE, action_low=(-4.0, -4.0), action_high=(4.0, 4.0), normalized=False)

    class Correlated(GaussianModel):
        def denoise(self, sample, timestep, condition):
            alpha = self.schedule.alpha_cumprod(timestep)
            noisy = alpha * covariance + (1 - alpha) * np.eye(size)
            gain = np.sqrt(alpha) * covariance @ np.linalg.inv(noisy)
            return (gain @ sample).astype(sample.dtype)

    schedule = NoiseSchedule(
        prediction_type="sample", beta_schedule="cosine", timestep_spacing="trailing"
    )
    optimizer = DDIMOptimizer(Correlated(wide, schedule), num_inference_steps=10)
    frozen = np.full((1, sent, 2), value, np.float32)
    plans = [
        optimizer.optimize(PlanningProblem(frozen_action=frozen, seed=seed)).actions[0]
        for seed in range(200)
    ]
    np.testing.assert_array_equal(plans[0][:sent], frozen[0])
    rest = np.array(plans)[:, sent:]
    known = np.linalg.inv(covariance[:sent, :sent])
    gain = covariance[sent:, :sent] @ known
    exact_mean = (gain @ np.full(sent, value))[0]
    exact_std = np.sqrt((covariance[sent:, sent:] - gain @ covariance[:sent, sent:])[0, 0])
    # without resampling the mean is a third of the way back to the prior's 0, and the std double
    assert rest.mean() == pytest.approx(exact_mean, rel=0.12)
    assert rest.std() == pytest.approx(exact_std, rel=0.2)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (np.zeros((1, 20, 3)), "frozen_action has shape"),
        (np.zeros((1, 3, 2)), "frozen_action has shape"),
        (np.full((1, 3, 3), np.nan), "frozen_action has values that are NaN"),
    ],
)
def test_a_wrong_beginning_is_refused(frozen, message):
    with pytest.raises(ContextError, match=message):
        make_optimizer().optimize(PlanningProblem(frozen_action=frozen))


def test_a_beginning_for_another_batch_is_refused():
    with pytest.raises(ContextError, match="batch sizes disagree"):
        make_optimizer().optimize(
            PlanningProblem(frozen_action=np.zeros((2, 3, 3)), init_action=np.zeros((1, 3, 3)))
        )
