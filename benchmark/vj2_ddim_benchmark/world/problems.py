"""Problems: a screen, and the same screen after one touch of one widget, or of several in turn.

A third of the one-gesture problems are of multimodal kinds, where several different gestures reach
the goal and their average does not. A chain asks for two to five gestures, one a widget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.policies import choose_slots, touch_slots
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import NUM_STEPS, Actions
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS, SLOT_TOLERANCE, WIDGETS
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = [
    "LENGTHS", "Chains", "Problems", "assign_lengths", "chain_problems", "one_gesture_problems",
    "screens_with",
]  # fmt: skip

PERIOD = 36  # problems after which the kinds come round again
LENGTHS = (2, 3, 4, 5)  # of chains
SPARE = 4  # screens drawn for each wanted: nearly always enough have what is asked of them
MOST_SPARE = 256
ONE_GESTURE, CHAIN = 1, 3  # purposes, which keep the randomness of one seed apart


@dataclass(frozen=True)
class Problems:
    """n goals that one gesture reaches."""

    start: TouchScreen
    goal: TouchScreen  # the same screens in the states to reach
    kind: NDArray[np.str_]  # [n], the kind of widget that must be touched
    actions: Actions  # [n, 250, 3], a gesture that reaches each goal

    def __len__(self) -> int:
        """n."""
        return len(self.kind)


@dataclass(frozen=True)
class Chains:
    """n goals that several gestures reach, and no fewer."""

    start: TouchScreen
    goal: TouchScreen  # the same screens in the states to reach
    length: IntArray  # [n], how many widgets differ; one gesture changes one widget
    actions: Actions  # [n, 5, 250, 3] that reach each goal; all zero after its length

    def __len__(self) -> int:
        """n."""
        return len(self.length)


def one_gesture_problems(num: int, *, split: str, seed: int, size: int = 64) -> Problems:
    """Draw problems in random order; the same split and seed give the same.

    A third are multimodal; within each third and the rest, equally many (give or take one) of each
    kind. `size` is the pictures' width and height in pixels.
    """
    rng = seeded(split, seed, ONE_GESTURE, num=num)
    first = int(rng.integers(PERIOD)) if num < PERIOD else 0  # of few problems, not always the same
    kinds = rng.permutation(_kinds_in_turn(first + num)[first:])
    pool, rows = screens_with(kinds, split, seed, size)
    start = pool.select(rows)
    actions = touch_slots(start, choose_slots(start, rng, kinds), rng)
    return Problems(start, start.execute(actions), np.array(KINDS)[kinds], actions)


def _kinds_in_turn(num: int) -> IntArray:
    """Indices in `WIDGETS` `[num]`: every third one of a multimodal kind, each kind in turn."""
    index = np.arange(num)
    several = np.flatnonzero([widget.multimodal for widget in WIDGETS])
    single = np.flatnonzero([not widget.multimodal and widget.active for widget in WIDGETS])
    return np.where(
        index % 3 == 2,
        several[index // 3 % len(several)],
        single[(index - index // 3) % len(single)],
    )


def screens_with(kinds: IntArray, split: str, seed: int, size: int) -> tuple[TouchScreen, IntArray]:
    """Screens, and the row of a different one for each of `kinds` `[num]` that has that kind.

    Some kinds are rare on screens drawn freely. Raises a `ConfigError` where one does not occur
    even on a great many.
    """
    spare = SPARE
    while spare <= MOST_SPARE:
        pool = TouchScreen.generate(spare * len(kinds) + 32, split=split, seed=seed, size=size)
        present = pool.layout.num_states > 1
        available = [present[:, kind == SLOT_KINDS].any(axis=1) for kind in range(len(KINDS))]
        taken = np.zeros(pool.num_screens, bool)
        rows = np.full(len(kinds), -1)
        # The rarest kind chooses its screens first, so that no other takes them.
        for kind in np.argsort([mask.sum() for mask in available]):
            wanted = np.flatnonzero(kinds == kind)
            found = np.flatnonzero(available[kind] & ~taken)[: len(wanted)]
            rows[wanted[: len(found)]] = found
            taken[found] = True
        if (rows >= 0).all():
            return pool, rows
        spare *= 2
    missing = KINDS[kinds[rows < 0][0]]
    raise ConfigError(
        f"too few screens of the {split} split have a {missing}; ask for fewer problems"
    )


def chain_problems(num: int, *, split: str, seed: int, size: int = 64) -> Chains:
    """Draw chains in random order, equally many (give or take one) of each length.

    Where the screens that were drawn have too few widgets for that, chains are shorter.
    """
    rng = seeded(split, seed, CHAIN, num=num)
    pool = TouchScreen.generate(SPARE * num + 32, split=split, seed=seed, size=size)
    wanted = np.resize(LENGTHS, num)
    rows, length = assign_lengths((pool.layout.num_states > 1).sum(axis=1), wanted)
    order = rng.permutation(num)
    start, length = pool.select(rows[order]), length[order]
    actions, goal = _touch_in_turn(start, length, rng)
    differ = (np.abs(goal.state - start.state) > SLOT_TOLERANCE).sum(axis=1)
    if (differ != length).any():
        row = int(np.flatnonzero(differ != length)[0])
        raise ConfigError(
            f"chain {row} of split {split!r} and seed {seed} changed {differ[row]} widgets, not "
            f"{length[row]}: a widget's own strokes do not change its state; mend the widget"
        )
    return Chains(start, goal, length, actions)


def assign_lengths(num_active: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """A screen for each chain wanted, `[n]` lengths, and the length it gets, longest first.

    `num_active` `[m]` is how many widgets each screen has that can change. The longest chains
    choose first, among the least able screens; a length falls below what was wanted only where no
    screen that is left has as many widgets.
    """
    able = np.flatnonzero(num_active >= LENGTHS[0])
    if len(able) < len(wanted):
        raise ConfigError(
            f"{len(wanted)} chains need as many screens with at least {LENGTHS[0]} widgets that "
            f"have more than one state; found {len(able)} among {len(num_active)}; ask for fewer"
        )
    left = list(able[np.argsort(num_active[able], kind="stable")])
    rows, length = [], []
    for asked in np.sort(wanted)[::-1].tolist():
        place = int(np.searchsorted(num_active[left], asked))
        row = int(left.pop(min(place, len(left) - 1)))
        rows.append(row)
        length.append(min(asked, int(num_active[row])))
    return np.array(rows), np.array(length)


def _touch_in_turn(
    start: TouchScreen, length: IntArray, rng: np.random.Generator
) -> tuple[Actions, TouchScreen]:
    """Gestures `[n, 5, 250, 3]` on different widgets, and the screens after them."""
    slots = _different_slots(start, rng)
    actions = np.zeros((start.num_screens, max(LENGTHS), NUM_STEPS, 3), np.float32)
    screens = start
    for step in range(max(LENGTHS)):
        rows = np.flatnonzero(length > step)
        if len(rows):
            actions[rows, step] = touch_slots(screens.select(rows), slots[rows, step], rng)
            screens = screens.execute(actions[:, step])
    return actions, screens


def _different_slots(screens: TouchScreen, rng: np.random.Generator) -> IntArray:
    """Slots `[n, S]`, widgets with more than one state first; a rare kind as likely as a common."""
    active = screens.layout.num_states > 1
    counts = np.stack([active[:, k == SLOT_KINDS].sum(axis=1) for k in range(len(KINDS))], axis=1)
    weight = active / np.maximum(counts[:, SLOT_KINDS], 1)
    # The largest of weight / exponential is a draw by weight, the second a draw from the rest.
    return np.asarray(np.argsort(-weight / rng.exponential(size=weight.shape), axis=1))
