"""Problems of one gesture and chains of several: reachable, balanced, fixed by their seed."""

import numpy as np
import pytest
from builders.world import VALID
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_benchmark.world.layouts import SPLITS, arrangements_of
from vj2_ddim_benchmark.world.problems import (
    LENGTHS,
    assign_lengths,
    chain_problems,
    one_gesture_problems,
)
from vj2_ddim_benchmark.world.widgets import KINDS, MULTIMODAL_KINDS, SLOT_KINDS, SLOT_TOLERANCE
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import is_valid

NUM = 40
CHAINS = chain_problems(NUM, split="validation", seed=4)


@pytest.mark.parametrize("split", SPLITS)
def test_one_gesture_reaches_every_goal(split):
    problems = one_gesture_problems(301, split=split, seed=2)
    assert len(problems) == problems.start.num_screens == 301
    assert problems.start.execute(problems.actions).matches(problems.goal.state).all()
    np.testing.assert_array_equal(problems.start.state_distance(problems.goal.state), 1)
    changed = problems.start.state != problems.goal.state
    assert (changed.sum(axis=1) == 1).all()
    kinds = np.array(KINDS)[SLOT_KINDS[changed.argmax(axis=1)]]
    np.testing.assert_array_equal(kinds, problems.kind)
    several = np.isin(problems.kind, MULTIMODAL_KINDS)
    assert several.sum() == 100
    for group in (several, ~several):
        assert np.ptp(np.unique(problems.kind[group], return_counts=True)[1]) <= 1
    assert set(KINDS) - set(problems.kind) == {"panel"}
    assert is_valid(problems.actions, VALID).all()


def test_problems_are_in_no_order_named_by_their_seed_and_use_a_screen_once():
    several = np.isin(one_gesture_problems(90, split="train", seed=0).kind, MULTIMODAL_KINDS)
    assert several.sum() == 30
    assert not several[2::3].all()
    one, same = (one_gesture_problems(40, split="test", seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.actions, same.actions)
    np.testing.assert_array_equal(one.goal.render(), same.goal.render())
    boxes = one.start.layout.boxes.reshape(40, -1)
    assert len(np.unique(boxes, axis=0)) == 40
    with pytest.raises(ConfigError, match="num"):
        one_gesture_problems(0, split="test", seed=7)


def test_the_reference_reaches_the_goal_with_its_last_gesture_and_not_before():
    screens = CHAINS.start
    for step in range(max(LENGTHS)):
        assert not screens.matches(CHAINS.goal.state)[CHAINS.length > step].any()
        before = screens.state
        screens = screens.execute(CHAINS.actions[:, step])
        changed = (screens.state != before).sum(axis=1)
        np.testing.assert_array_equal(changed, CHAINS.length > step)
        assert screens.matches(CHAINS.goal.state)[CHAINS.length == step + 1].all()
    np.testing.assert_array_equal(screens.state, CHAINS.goal.state)


def test_lengths_are_even_in_no_order_and_say_how_many_widgets_differ_and_are_touched():
    apart = np.abs(CHAINS.goal.state - CHAINS.start.state) > SLOT_TOLERANCE
    np.testing.assert_array_equal(apart.sum(axis=1), CHAINS.length)
    assert (CHAINS.start.state_distance(CHAINS.goal.state) >= CHAINS.length).all()
    assert CHAINS.actions.shape == (NUM, 5, 250, 3)
    assert CHAINS.actions.dtype == np.float32
    touching = (CHAINS.actions[..., 2] > 0.5).any(axis=2)
    np.testing.assert_array_equal(touching, np.arange(5) < CHAINS.length[:, None])
    assert not CHAINS.actions[~touching].any()
    counts = np.bincount(CHAINS.length, minlength=6)
    assert counts[:2].sum() == 0
    assert counts[2:].max() - counts[2:].min() <= 1
    assert (np.diff(CHAINS.length) < 0).any()
    assert (np.diff(CHAINS.length) > 0).any()


def test_the_seed_decides_everything():
    again = chain_problems(NUM, split="validation", seed=4)
    other = chain_problems(NUM, split="validation", seed=5)
    for one, two in ((CHAINS.start, again.start), (CHAINS.goal, again.goal)):
        np.testing.assert_array_equal(one.render(), two.render())
    np.testing.assert_array_equal(CHAINS.actions, again.actions)
    np.testing.assert_array_equal(CHAINS.length, again.length)
    assert (CHAINS.start.render() != other.start.render()).any()
    for split in SPLITS:  # and the split says whose layouts
        chains = chain_problems(8, split=split, seed=0, size=96)
        assert set(chains.start.layout.codes[:, 0]) <= set(arrangements_of(split))
        assert chains.goal.render().shape == (8, 96, 96, 3)


def test_screens_with_too_few_widgets_make_shorter_chains_and_too_few_screens_are_an_error():
    rows, length = assign_lengths(np.array([1, 3, 5, 2, 3]), np.array([2, 5, 5, 4]))
    assert sorted(rows) == [1, 2, 3, 4]
    # 5 widgets for the first 5; then 3 for the other, 3 for the 4, and 2 for the 2.
    assert length.tolist() == [5, 3, 3, 2]
    with pytest.raises(ConfigError, match="found 1 among 3"):
        assign_lengths(np.array([0, 1, 2]), np.array([2, 2]))
    for num, split, seed in ((0, "test", 0), (1, "test", -1), (1, "other", 0)):
        with pytest.raises(ConfigError):
            chain_problems(num, split=split, seed=seed)


@given(st.data())
def test_every_chain_has_a_screen_of_its_own_that_can_hold_it(data):
    num_active = np.array(data.draw(st.lists(st.integers(2, 8), min_size=1, max_size=12)))
    lengths = st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=len(num_active))
    wanted = np.array(data.draw(lengths))
    rows, length = assign_lengths(num_active, wanted)
    assert len(set(rows.tolist())) == len(wanted)
    assert (length <= num_active[rows]).all()
    assert (length >= 2).all()
    # Nothing is shortened where the screens suffice: the best matching, largest with largest.
    best = np.minimum(np.sort(wanted)[::-1], np.sort(num_active)[::-1][: len(wanted)])
    if (best == np.sort(wanted)[::-1]).all():
        np.testing.assert_array_equal(length, np.sort(wanted)[::-1])
