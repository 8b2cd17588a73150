"""`TouchScreen`: n phone screens, what they look like, and what touches do to them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from vj2_ddim_benchmark.world.layouts import Layout, draw_layouts, seeded
from vj2_ddim_benchmark.world.painting import Images, paint
from vj2_ddim_benchmark.world.touch import Mask, inside, read_gestures
from vj2_ddim_benchmark.world.widgets import NUM_SLOTS, SLOT_KINDS, SLOT_TOLERANCE, WIDGETS
from vj2_ddim_benchmark.world.widgets.widget import Parts, Widget
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

ABSENT = -1  # the state of a widget that a screen does not have
MIN_SIZE, MAX_SIZE = 32, 256


@dataclass(frozen=True)
class TouchScreen:
    """n phone screens at once. A touch changes nothing in place: it returns new screens."""

    layout: Layout  # what a touch cannot change
    state: IntArray  # [n, S], the exact state: one column a widget, -1 where it is absent
    size: int = 64  # width and height of the picture, in pixels

    @classmethod
    def generate(cls, num_screens: int, *, split: str, seed: int, size: int = 64) -> "TouchScreen":
        """Draw screens of a split (train, validation or test) in random states, as the seed says.

        No layout is in two splits; a wrong split or number is a `ConfigError`.
        """
        rng = seeded(split, seed, num_screens=num_screens)
        if not MIN_SIZE <= size <= MAX_SIZE:
            raise ConfigError(f"size must be {MIN_SIZE} to {MAX_SIZE} pixels; found {size}")
        layout = draw_layouts(num_screens, split, rng)
        state = rng.integers(np.maximum(layout.num_states, 1))
        return cls(layout, np.where(layout.num_states > 0, state, ABSENT), size)

    @property
    def num_screens(self) -> int:
        """n."""
        return len(self.state)

    def with_state(self, state: ArrayLike) -> "TouchScreen":
        """The same screens in other states, `[n, S]`; a `DataError` if they are not theirs."""
        return replace(self, state=self._checked(state))

    def select(self, index: ArrayLike) -> "TouchScreen":
        """The screens at an index (integers, repeats allowed) or under a mask `[n]`."""
        chosen = np.arange(self.num_screens)[np.atleast_1d(np.asarray(index))]
        return replace(self, layout=self.layout.select(chosen), state=self.state[chosen])

    def execute(self, actions: ArrayLike) -> "TouchScreen":
        """The screens after an action block each, `[n, 250, 3]` of x, y, press in [0, 1]."""
        gestures = read_gestures(actions, self.num_screens)
        under = inside(gestures.start[:, None], self.layout.boxes)
        slot = under.argmax(axis=1)
        received = under.any(axis=1) & gestures.touched
        state = self.state.copy()
        for kind, widget in enumerate(WIDGETS):
            rows = np.flatnonzero(received & (SLOT_KINDS[slot] == kind))
            if len(rows):
                touched = self.parts(rows, slot[rows])
                state[rows, slot[rows]] = widget.touch(touched, gestures.select(rows))
        return replace(self, state=state)

    def render(self) -> Images:
        """Pictures `[n, size, size, 3]`."""
        drawn = [(rows, widget.draw(parts)) for widget, rows, _, parts in self.widgets()]
        return paint(self.layout.colors, drawn, self.size)

    def matches(self, state: ArrayLike) -> Mask:
        """Whether each screen is in a state `[n, S]`, up to each kind's tolerance, as `[n]`."""
        apart = np.abs(self.state - self._checked(state))
        return np.asarray((apart <= SLOT_TOLERANCE).all(axis=1))

    def state_distance(self, state: ArrayLike) -> FloatArray:
        """How many gestures each screen is from a state `[n, S]`, as `[n]`."""
        other = self._checked(state)
        total = np.zeros(self.num_screens)
        for widget, rows, slots, parts in self.widgets():
            np.add.at(total, rows, widget.distance(parts.state, other[rows, slots]))
        return total

    def parts(self, rows: IntArray, slots: IntArray) -> Parts:
        """The widgets in the given slots of the given screens, all of one kind."""
        boxes, options = self.layout.boxes[rows, slots], self.layout.options[rows, slots]
        return Parts(boxes, options, self.layout.colors[rows], self.state[rows, slots])

    def widgets(self) -> Iterator[tuple[Widget, IntArray, IntArray, Parts]]:
        """Each kind's rules, and the screens, slots and data of all widgets of that kind."""
        for kind, widget in enumerate(WIDGETS):
            rows, slots = np.nonzero((kind == SLOT_KINDS) & (self.layout.num_states > 0))
            yield widget, rows, slots, self.parts(rows, slots)

    def _checked(self, state: ArrayLike) -> IntArray:
        states = np.asarray(state)
        if states.shape != self.state.shape or states.dtype.kind not in "iu":
            raise DataError(
                f"state must be integers of shape {(self.num_screens, NUM_SLOTS)}; found "
                f"{states.dtype} of shape {states.shape}"
            )
        states = states.astype(np.int64)
        low = np.where(self.layout.num_states > 0, 0, ABSENT)
        high = self.layout.num_states - 1  # -1 where absent
        wrong = np.argwhere((states < low) | (states > high))
        if len(wrong):
            row, slot = wrong[0]
            raise DataError(
                f"state[{row}, {slot}] is {states[row, slot]}, and that widget goes from "
                f"{low[row, slot]} to {high[row, slot]} on this screen; use states of these screens"
            )
        return states
