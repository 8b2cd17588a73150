"""Screens: their splits, their pictures, and that touching one changes nothing in place."""

from itertools import combinations

import numpy as np
import pytest

from vj2_ddim_benchmark.world.layouts import SPLITS, all_arrangements, arrangements_of, name_of
from vj2_ddim_benchmark.world.policies import mixed_policy
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS, SLOT_TOLERANCE
from vj2_ddim_plugin.errors import ConfigError, DataError

SCREENS = {split: TouchScreen.generate(300, split=split, seed=4) for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_widgets_stay_on_the_page_and_apart_and_sizes_keep_to_their_ranges(split):
    layout = SCREENS[split].layout
    for boxes, present in zip(layout.boxes, layout.num_states > 0, strict=True):
        boxes = boxes[present]
        assert boxes.min() >= 8 - 1e-9
        assert boxes.max() <= 248 + 1e-9
        apart = (boxes[:, None, :2] >= boxes[None, :, 2:] + 8 - 1e-9).any(axis=-1)
        assert (apart | apart.T | np.eye(len(boxes), dtype=bool)).all()
        assert len(np.unique(SLOT_KINDS[present])) >= 2
    for kind, low, high in (
        ("switch", (40, 28), (60, 40)), ("slider", (150, 24), (228, 36)),
        ("carousel", (200, 70), (236, 110)), ("detour", (160, 84), (228, 116)),
        ("menu", (84, 108), (140, 144)),
    ):  # fmt: skip
        boxes = layout.boxes[:, KINDS.index(kind) == SLOT_KINDS]
        boxes = boxes[boxes[..., 2] > 0]
        sizes = boxes[:, 2:] - boxes[:, :2]
        assert (sizes >= np.array(low) - 1e-9).all()
        assert (sizes <= np.array(high) + 1e-9).all()


def test_no_split_shares_an_arrangement_a_palette_or_a_pair_of_size_classes():
    def codes(split, columns):
        return set(map(tuple, SCREENS[split].layout.codes[:, columns].tolist()))

    for one, other in combinations(SPLITS, 2):
        for columns in ([0], [1, 2], [3, 4]):
            assert codes(one, columns).isdisjoint(codes(other, columns))
        palettes = set(map(bytes, SCREENS[one].layout.colors))
        assert palettes.isdisjoint(map(bytes, SCREENS[other].layout.colors))


def test_the_codes_are_true_to_the_layout():
    layout = SCREENS["train"].layout
    for row, code in enumerate(layout.codes[:, 0]):
        name = name_of(all_arrangements()[code])
        boxes, present = layout.boxes[row], layout.num_states[row] > 0
        for index, kind in enumerate(KINDS):
            assert name.count(kind) == present[index == SLOT_KINDS].sum()
        tops = [name.index(KINDS[SLOT_KINDS[s]]) for s in np.argsort(boxes[:, 1]) if present[s]]
        if len(tops) == 2 and "+" not in name:
            assert tops == sorted(tops)


def test_every_arrangement_has_one_owner_and_every_split_every_kind_and_class():
    owned = np.concatenate([arrangements_of(split) for split in SPLITS])
    assert sorted(owned) == list(range(len(all_arrangements())))
    for split in SPLITS:
        layout = SCREENS[split].layout
        for kind, name in enumerate(KINDS):
            share = (layout.num_states[:, kind == SLOT_KINDS] > 0).any(axis=1).mean()
            assert share > (0.02 if name == "carousel" else 0.12)  # it fills most of a page
        for column, classes in zip(range(1, 5), (10, 10, 5, 5), strict=True):
            assert len(np.unique(layout.codes[:, column])) == classes


def test_a_seed_names_the_screens_repeats_and_masks_select_them():
    again = TouchScreen.generate(300, split="test", seed=4)
    other = TouchScreen.generate(300, split="test", seed=5)
    np.testing.assert_array_equal(again.render(), SCREENS["test"].render())
    assert (other.render() != again.render()).any(axis=(1, 2, 3)).all()
    screens = SCREENS["test"]
    repeated = screens.select(np.repeat([3, 1], 4))
    np.testing.assert_array_equal(repeated.render()[5], screens.render()[1])
    mask = screens.state[:, 4] >= 0
    assert screens.select(mask).num_screens == mask.sum()
    assert screens.select(np.zeros(300, bool)).render().shape == (0, 64, 64, 3)


@pytest.mark.parametrize("split", SPLITS)
def test_a_batch_is_its_screens_one_by_one_and_stays_as_it_was(split):
    screens = SCREENS[split].select(np.arange(40))
    actions = mixed_policy(screens, 0.9, np.random.default_rng(0))
    state, before = screens.state.copy(), screens.render()
    after = screens.execute(actions)
    assert (after.state != state).any()
    np.testing.assert_array_equal(screens.state, state)  # nothing changes in place
    np.testing.assert_array_equal(screens.render(), before)
    pictures = after.render()
    for row in range(40):
        single = screens.select([row]).execute(actions[row : row + 1])
        np.testing.assert_array_equal(single.state[0], after.state[row])
        np.testing.assert_array_equal(single.render()[0], pictures[row])


@pytest.mark.parametrize("size", [64, 97])
def test_a_picture_shows_the_state_and_nothing_else(size):
    """Other states of every widget change at least 20 pixels clearly (of 64 x 64), all on it."""
    screens = TouchScreen.generate(60, split="validation", seed=1, size=size)
    before = screens.render().astype(int)
    assert before.shape == (60, size, size, 3)
    np.testing.assert_array_equal(screens.with_state(screens.state).render(), before)
    for slot, tolerance in enumerate(SLOT_TOLERANCE):
        most = screens.layout.num_states[:, slot].max()
        for step in range(1 + tolerance, most - tolerance, 1 + 2 * tolerance):
            rows = np.flatnonzero(screens.layout.num_states[:, slot] > step)
            state = screens.state[rows].copy()
            state[:, slot] = (state[:, slot] + step) % screens.layout.num_states[rows, slot]
            pictures = screens.select(rows).with_state(state).render()
            clear = np.abs(pictures - before[rows]).max(axis=-1) >= 48
            assert clear.sum(axis=(1, 2)).min() >= 20 * (size / 64) ** 2
            x, y = np.arange(size) * 256 / size, np.arange(size)[:, None] * 256 / size
            left, top, right, bottom = screens.layout.boxes[rows, slot].T[:, :, None, None]
            margin = 2 * 256 / size
            near = (x > left - margin) & (x < right + margin)
            near = near & (y > top - margin) & (y < bottom + margin)
            assert not (clear & ~near).any()


def test_distances_of_widgets_add_up():
    screens = SCREENS["train"]
    num_states = screens.layout.num_states
    assert not screens.state_distance(screens.state).any()
    assert screens.matches(screens.state).all()
    goal = np.where(num_states > 0, num_states - 1 - screens.state, -1)
    steps = np.abs(goal - screens.state)
    carousel, menu = (KINDS.index(kind) == SLOT_KINDS for kind in ("carousel", "menu"))
    # From closed with 0, 1, 2 chosen to open with 2, 1, 0; and back by one tap.
    menus = np.array([3, 1, 3, 1, 1, 1])[screens.state[:, menu]] * (num_states[:, menu] > 0)
    others = ~carousel & ~menu
    steps[:, others] = steps[:, others] > SLOT_TOLERANCE[others]
    steps[:, menu] = menus
    np.testing.assert_array_equal(screens.state_distance(goal), steps.sum(axis=1))
    np.testing.assert_array_equal(screens.matches(goal), steps.sum(axis=1) == 0)


def test_bad_requests_name_what_is_wrong():
    for num, split, size, message in (
        (2, "dev", 64, "'dev'"), (2, "test", 8, "size must be 32 to 256"),
        (0, "test", 64, "num_screens"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            TouchScreen.generate(num, split=split, seed=0, size=size)
    screens = TouchScreen.generate(2, split="test", seed=0)
    state = screens.state.copy()
    state[1, 0] = 2
    with pytest.raises(DataError, match=r"state\[1, 0\] is 2"):
        screens.with_state(state)
    with pytest.raises(DataError, match="integers of shape"):
        screens.matches(screens.state[0])
