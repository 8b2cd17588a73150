"""Who touches the screen while data are collected: scripted or random gestures, `[n, 250, 3]`."""

import numpy as np

from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import PAGE, Actions, Mask, drag, random_times
from vj2_ddim_benchmark.world.widgets import SLOT_KINDS
from vj2_ddim_benchmark.world.widgets.widget import Strokes
from vj2_ddim_plugin.gestures.segments import IntArray

NEAR_MISS_SHARE = 0.35  # of scripted gestures, unless told
MISS_PIXELS = (2.0, 24.0)  # how far beside a widget a near miss lands
STRAY_PIXELS = (16.0, 80.0)  # how far a drag that should have been a tap goes


def mixed_policy(
    screens: TouchScreen, scripted_share: float, rng: np.random.Generator,
    near_miss_share: float = NEAR_MISS_SHARE,
) -> Actions:  # fmt: skip
    """Scripted gestures on a share of the screens, random ones on the others."""
    actions = random_policy(screens.num_screens, rng)
    draw = rng.random(screens.num_screens)
    missing = np.flatnonzero(draw < scripted_share * near_miss_share)
    touching = np.flatnonzero((draw >= scripted_share * near_miss_share) & (draw < scripted_share))
    slots = choose_slots(screens, rng)
    actions[missing] = _near_misses(screens.select(missing), slots[missing], rng)
    actions[touching] = touch_slots(screens.select(touching), slots[touching], rng)
    return actions


def random_policy(num: int, rng: np.random.Generator) -> Actions:
    """Presses (one in five long) and drags (one in three bent), half of each, anywhere."""
    start, end, via = rng.random((3, num, 2)) * PAGE
    stays, bent = rng.random((num, 1)) < 0.5, rng.random((num, 1)) < 1 / 3
    end = np.where(stays, start, end)
    via = np.where(bent & ~stays, via, (start + end) / 2)
    long = stays[:, 0] & (rng.random(num) < 0.2)
    return _perform(Strokes(start, end, via, long), rng)


def touch_slots(screens: TouchScreen, slots: IntArray, rng: np.random.Generator) -> Actions:
    """Change the state of one widget on each screen: that in slot `[n]`."""
    return _perform(_strokes(screens, slots, rng), rng)


def _near_misses(screens: TouchScreen, slots: IntArray, rng: np.random.Generator) -> Actions:
    """Mistakes around the widget in slot `[n]`, evenly of five sorts.

    A tap beside it, a drag that should have been a tap, a tap anywhere on it, a press that is long
    and should be short or the other way round, and the right gesture with a wrong end and no bend.
    """
    num = screens.num_screens
    boxes = screens.layout.boxes[np.arange(num), slots]
    within = rng.uniform(boxes[:, :2], boxes[:, 2:])
    angle = rng.uniform(0.0, 2 * np.pi, num)
    stray = rng.uniform(*STRAY_PIXELS, (num, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    right = _strokes(screens, slots, rng)
    mistake = rng.integers(5, size=(num, 1))
    side, rows, beside = rng.integers(4, size=num), np.arange(num), within.copy()
    past = np.where(side < 2, -1.0, 1.0) * rng.uniform(*MISS_PIXELS, num)
    beside[rows, side % 2] = boxes[rows, side] + past  # one of the four edges
    start = np.select([mistake == 0, mistake >= 3], [beside, right.start], within)
    ends = [start + stray, right.end, right.end + stray / 2]
    end = np.select([mistake == 1, mistake == 3, mistake == 4], ends, start)
    long = (mistake[:, 0] == 3) & np.logical_not(right.long)
    start, end = np.clip([start, end], 0.0, PAGE)
    return _perform(Strokes(start, end, long=long), rng)


def choose_slots(
    screens: TouchScreen, rng: np.random.Generator, kinds: IntArray | None = None
) -> IntArray:
    """A slot `[n]` of a widget that a touch can change: first a kind, then one of the kind.

    A kind is chosen the more often on a screen that has it, the fewer of the screens have it;
    `kinds` `[n]` are indices of those to choose from, where that is not free.
    """
    present = screens.layout.num_states > 1
    if kinds is not None:
        present &= kinds[:, None] == SLOT_KINDS
    alike = num_alike(present)
    share = np.maximum((alike > 0).mean(axis=0), 1e-9)
    weight = present / (np.maximum(alike, 1) * share)
    return np.asarray((weight / rng.exponential(size=weight.shape)).argmax(axis=1))


def num_alike(present: Mask) -> IntArray:
    """How many present widgets a screen has of the kind of each slot, `[n, S]` both."""
    return np.asarray(present.astype(np.int64) @ (SLOT_KINDS[:, None] == SLOT_KINDS))


def _strokes(screens: TouchScreen, slots: IntArray, rng: np.random.Generator) -> Strokes:
    """What each widget in slot `[n]` asks for, with no field left out."""
    start, end, via = np.zeros((3, screens.num_screens, 2))
    long = np.zeros(screens.num_screens, bool)
    for widget, rows, columns, _ in screens.widgets():
        chosen = rows[columns == slots[rows]]
        if len(chosen):
            own = widget.strokes(screens.parts(chosen, slots[chosen]), rng)
            start[chosen], end[chosen], long[chosen] = own.start, own.end, own.long
            via[chosen] = (own.start + own.end) / 2 if own.via is None else own.via
    return Strokes(start, end, via, long)


def _perform(strokes: Strokes, rng: np.random.Generator) -> Actions:
    (x0, y0), (x1, y1) = strokes.start.T / PAGE, strokes.end.T / PAGE
    via = None if strokes.via is None else tuple(strokes.via.T / PAGE)
    long = np.broadcast_to(strokes.long, len(x0))
    return drag(x0, y0, x1, y1, *random_times(long, rng), via=via)
