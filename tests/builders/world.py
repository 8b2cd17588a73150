"""Screens with one widget on them, made by hand or at random, and gestures in page pixels."""

import numpy as np

from vj2_ddim_benchmark.world.layouts import Layout, draw_pairs
from vj2_ddim_benchmark.world.painting import NUM_SECTORS, draw_palettes
from vj2_ddim_benchmark.world.screen import ABSENT, TouchScreen
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_benchmark.world.widgets import KINDS, NUM_SLOTS, SLOT_KINDS, WIDGETS
from vj2_ddim_plugin.spec import ActionSpec

VALID = ActionSpec(max_press_steps=200, path_knots=3)  # long presses and bends included
ACTIVE_KINDS = tuple(widget.kind for widget in WIDGETS if widget.active)


def rules(kind):
    return WIDGETS[KINDS.index(kind)]


def slot_of(kind):
    """The first column of a kind."""
    return int(np.flatnonzero(KINDS.index(kind) == SLOT_KINDS)[0])


def screens_of(kind, boxes, options, state, size=64):
    """Screens with nothing but one widget on each; each argument is one row or many."""
    boxes = np.atleast_2d(np.asarray(boxes, float))
    num, slot = len(boxes), slot_of(kind)
    placed = np.zeros((num, NUM_SLOTS, 4))
    chosen, num_states = np.zeros((num, NUM_SLOTS, 2), int), np.zeros((num, NUM_SLOTS), int)
    placed[:, slot], chosen[:, slot] = boxes, options
    num_states[:, slot] = rules(kind).num_states(chosen[:, slot])
    states = np.full((num, NUM_SLOTS), ABSENT)
    states[:, slot] = state
    rng = np.random.default_rng(num)
    colors = draw_palettes(draw_pairs(num, NUM_SECTORS, "train", rng), rng)
    return TouchScreen(
        Layout(placed, chosen, num_states, colors, np.zeros((num, 5), int)), states, size
    )


def any_screens(kind, num, seed, smallest=False):
    """One widget of the kind on each screen: any options, place, size (or the least) and state."""
    rng, widget = np.random.default_rng(seed), rules(kind)
    options = rng.choice(np.array(widget.choices), num)
    low, high = widget.size_range(options)
    extent = low if smallest else rng.uniform(low, high)
    corner = rng.uniform(8.0, 248.0 - extent)
    boxes = np.concatenate([corner, corner + extent], axis=1)
    return screens_of(kind, boxes, options, rng.integers(widget.num_states(options)))


def stroke(x0, y0, x1=None, y1=None, steps=40, via=None, first=5):
    """An action block `[1, 250, 3]` from page pixels; a press in one place without an end."""
    x1, y1 = (x0, y0) if x1 is None else (x1, y1)
    bend = None if via is None else (via[0] / 256, via[1] / 256)
    return drag(x0 / 256, y0 / 256, x1 / 256, y1 / 256, first, steps, via=bend)


def after(kind, screen, action):
    """The one widget's state after one gesture."""
    return int(screen.execute(action).state[0, slot_of(kind)])
