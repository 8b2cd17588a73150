"""What must hold for every kind of widget: its gestures work, near misses do not, states show."""

from collections import deque

import numpy as np
import pytest
from builders.world import ACTIVE_KINDS, any_screens, rules, screens_of, slot_of, stroke
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_benchmark.world.layouts import SPLITS
from vj2_ddim_benchmark.world.policies import choose_slots, touch_slots
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS, SLOT_TOLERANCE
from vj2_ddim_benchmark.world.widgets.dragged import paths_meet

TAPPED_KINDS = ("switch", "radio", "keypad", "menu", "twin", "tabs")
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=5, deadline=None)


@pytest.mark.parametrize("kind", ACTIVE_KINDS)
@given(seed=seeds)
@few
def test_every_scripted_gesture_changes_its_widget_beyond_the_tolerance(kind, seed):
    screens, slot = any_screens(kind, 64, seed), slot_of(kind)
    actions = touch_slots(screens, np.full(64, slot), np.random.default_rng(seed))
    changed = screens.execute(actions)
    apart = np.abs(changed.state - screens.state)[:, slot]
    assert (apart > rules(kind).tolerance).all()
    np.testing.assert_array_equal(screens.state_distance(changed.state), 1)
    assert not screens.matches(changed.state).any()
    assert actions[..., :2].min() >= 0.0
    assert actions[..., :2].max() <= 1.0


@pytest.mark.parametrize("split", SPLITS)
def test_no_other_column_changes_and_a_panel_is_dead(split):
    screens = TouchScreen.generate(400, split=split, seed=7)
    rng = np.random.default_rng(7)
    screens = screens.select((screens.layout.num_states > 1).any(axis=1))
    slots = choose_slots(screens, rng)
    changed = screens.execute(touch_slots(screens, slots, rng)).state != screens.state
    np.testing.assert_array_equal(changed, np.arange(changed.shape[1]) == slots[:, None])
    panels = any_screens("panel", 32, 0)  # dead
    actions = touch_slots(panels, np.full(32, slot_of("panel")), np.random.default_rng(0))
    np.testing.assert_array_equal(panels.execute(actions).state, panels.state)


@pytest.mark.parametrize("kind", ACTIVE_KINDS)
def test_presses_and_drags_that_begin_beside_a_widget_do_nothing(kind):
    screens = any_screens(kind, 64, 3)
    rng = np.random.default_rng(3)
    left, top, right, bottom = screens.layout.boxes[:, slot_of(kind)].T
    x, y = rng.uniform(left, right), rng.uniform(top, bottom)
    steps = rng.choice((40, 160), 64)
    for start in ((left - 0.5, y), (right + 0.5, y), (x, top - 0.5), (x, bottom + 0.5)):
        for end in (start, (x, y)):
            points = [value / 256 for value in (*start, *end)]
            after = screens.execute(drag(*points, 5, steps))
            np.testing.assert_array_equal(after.state, screens.state)


@pytest.mark.parametrize("kind", TAPPED_KINDS)
def test_a_long_press_for_a_tap_does_nothing_and_neither_the_other_way_round(kind):
    screens, widget, slot = any_screens(kind, 128, 5), rules(kind), slot_of(kind)
    rows = np.arange(128)
    strokes = widget.strokes(screens.parts(rows, np.full(128, slot)), np.random.default_rng(5))
    held = np.broadcast_to(strokes.long, 128)
    pressed = (strokes.start == strokes.end).all(axis=1)
    assert pressed.sum() > 30
    ends = np.concatenate([strokes.start, strokes.end], axis=1).T / 256
    for steps, works in ((np.where(held, 160, 40), True), (np.where(held, 40, 160), False)):
        changed = (screens.execute(drag(*ends, 5, steps)).state != screens.state).any(axis=1)
        np.testing.assert_array_equal(changed[pressed], works)


def grid_of_gestures(box):
    """Presses, short and long, and drags, quick and slow, over a grid of points on a widget."""
    left, top, right, bottom = box
    places = np.linspace(0.03, 0.97, 7)
    points = [(left + u * (right - left), top + v * (bottom - top)) for u in places for v in places]
    presses = [stroke(*point, steps=steps) for point in points for steps in (40, 160)]
    drags = [stroke(*start, *end, steps=70) for start in points[::2] for end in points]
    return np.concatenate(presses + drags)


@pytest.mark.parametrize(
    ("kind", "box", "options"),
    [
        ("menu", (60, 60, 160, 180), (0, 0)),
        ("carousel", (20, 100, 220, 180), (4, 5)),
        ("tabs", (30, 60, 230, 160), (4, 0)),
        ("list", (50, 80, 150, 192), (4, 7)),
        ("tray", (20, 100, 140, 180), (2, 3)),
        ("radio", (100, 50, 180, 170), (4, 0)),
    ],
)
def test_the_distance_is_the_shortest_way_over_all_gestures(kind, box, options):
    """Breadth first from each state, over what a grid of gestures does to it."""
    actions, slot = grid_of_gestures(box), slot_of(kind)
    num = int(rules(kind).num_states(np.array([options]))[0])
    step = {}
    for state in range(num):
        many = screens_of(kind, box, options, state).select(np.zeros(len(actions), int))
        step[state] = set(many.execute(actions).state[:, slot].tolist())
    for begin in range(num):
        found, queue = {begin: 0}, deque([begin])
        while queue:
            state = queue.popleft()
            for reached in step[state] - set(found):
                found[reached] = found[state] + 1
                queue.append(reached)
        screen = screens_of(kind, box, options, begin)
        for goal in range(num):
            states = screen.state.copy()
            states[0, slot] = goal
            assert screen.state_distance(states)[0] == found[goal], (begin, goal)


def test_a_slider_counts_within_its_tolerance():
    screen, slot = screens_of("slider", (20, 100, 220, 130), (0, 0), 40), slot_of("slider")
    for goal in range(101):
        states = screen.state.copy()
        states[0, slot] = goal
        reached = 34 <= goal <= 46
        assert screen.matches(states)[0] == reached
        assert screen.state_distance(states)[0] == (not reached)
    assert set(SLOT_TOLERANCE[KINDS.index("slider") != SLOT_KINDS]) == {0}


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("kind", ACTIVE_KINDS)
def test_states_that_differ_look_different(kind, smallest):
    """Any two of a widget's states, beyond its tolerance, on the standard picture."""
    screens, widget, slot = any_screens(kind, 24, 11, smallest), rules(kind), slot_of(kind)
    for row, num in enumerate(screens.layout.num_states[:, slot].tolist()):
        states = np.arange(0, num, widget.tolerance + 1)
        same = screens.select(np.full(len(states), row))
        every = same.state.copy()
        every[:, slot] = states
        pictures = same.with_state(every).render().astype(int)
        clear = np.abs(pictures[:, None] - pictures[None]).max(axis=-1) >= 48
        differing = clear.sum(axis=(2, 3)) + 100 * np.eye(len(states), dtype=int)
        assert differing.min() >= 20


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_a_path_meets_a_wall_where_a_point_of_it_does(seed):
    """Against points laid densely along paths of a few long segments, some of them degenerate."""
    rng = np.random.default_rng(seed)
    paths = rng.integers(0, 41, (40, 4, 2)) * 1.0
    paths[::3, 2] = paths[::3, 1]  # the finger rests
    paths[1::3, 2, 0] = paths[1::3, 1, 0]  # along an axis
    low = rng.integers(0, 35, (40, 2))
    walls = np.concatenate([low, low + rng.integers(1, 12, (40, 2))], axis=1) + 0.0
    share = np.linspace(0.0, 1.0, 801)[:, None, None]
    dense = paths[:, None, :-1] + share * np.diff(paths, axis=1)[:, None]
    low, high = walls[:, None, None, :2], walls[:, None, None, 2:]
    outside = np.maximum(low - dense, dense - high).max(axis=-1)
    depth = outside.min(axis=(1, 2))  # how far outside the wall the path stays; at most 0: it meets
    meets = paths_meet(paths, walls)
    assert meets[depth <= 0].all()
    assert not meets[depth > 0.1].any()  # points are at most 0.08 apart
    assert meets.any()
    assert not meets.all()
