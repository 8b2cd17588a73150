"""Widgets that are tapped: switch, radio, keypad, menu, twin; and the panel, which is dead."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.painting import (
    ACCENT,
    INK,
    KEYS,
    KNOB,
    MUTED,
    SURFACE,
    Rectangles,
    stack_boxes,
)
from vj2_ddim_benchmark.world.touch import Gestures
from vj2_ddim_benchmark.world.widgets.widget import (
    Parts,
    Strokes,
    Widget,
    cell_boxes,
    cell_under,
    inside,
    other_than,
    shrunk,
    tapped_cell,
    taps_inside,
)
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Keypad", "Menu", "Panel", "Radio", "Switch", "Twin"]


class Switch(Widget):
    """State 0 is off (knob at the left), 1 is on (knob at the right, accent colour)."""

    kind = "switch"
    max_count = 4
    smallest, largest = (40.0, 28.0), (60.0, 40.0)
    count = 2
    corner = 4.0  # page pixels cut from the track's corners
    inset = 4.0  # page pixels between the track's edge and the knob

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that ends on the switch toggles it."""
        toggled = gestures.tapped & inside(gestures.end, parts.boxes)
        return np.where(toggled, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A track with cut corners and a knob half as wide."""
        left, top, right, bottom = parts.boxes.T
        side = (right - left) / 2 - self.inset
        knob = np.where(parts.state == 1, right - self.inset - side, left + self.inset)
        track = np.where(parts.state == 1, parts.colors[:, ACCENT], parts.colors[:, MUTED])
        return Rectangles.of(
            (stack_boxes(left + self.corner, top, right - self.corner, bottom), track),
            (stack_boxes(left, top + self.corner, right, bottom - self.corner), track),
            (
                stack_boxes(knob, top + self.inset, knob + side, bottom - self.inset),
                parts.colors[:, KNOB],
            ),
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap anywhere on it."""
        return taps_inside(parts.boxes, rng)


class Radio(Widget):
    """The state is the selected option, from the top; options are how many there are."""

    kind = "radio"
    choices = ((3, 0), (4, 0), (5, 0))
    most = 5

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Rows of 25 to 34 pixels, 72 to 120 wide."""
        rows = options[:, :1] + 0.0
        return rows * (0.0, 25.0) + (72.0, 0.0), rows * (0.0, 34.0) + (120.0, 0.0)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each option."""
        return np.asarray(options[:, 0])

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one option selects it."""
        chosen = tapped_cell(gestures, self._rows(parts))
        return np.where(chosen >= 0, chosen, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel; in each row a button, ringed and filled where selected, and a label."""
        rows = self._rows(parts)
        left, top, right, bottom = np.moveaxis(rows, -1, 0)
        side = np.minimum(bottom - top - 6.0, 20.0)
        middle = (top + bottom) / 2
        buttons = stack_boxes(left + 4.0, middle - side / 2, left + 4.0 + side, middle + side / 2)
        labels = stack_boxes(left + side + 14.0, middle - 3.0, right - 6.0, middle + 3.0)
        there = (rows[..., 2] > 0)[..., None]
        selected = np.arange(self.most) == parts.state[:, None]
        surface, ink, accent, muted = parts.colors[:, [SURFACE, INK, ACCENT, MUTED]].T[..., None]
        edge = np.where(selected, ink, muted)
        return Rectangles.of(
            (parts.boxes, surface),
            (np.where(there, buttons, 0.0), edge),
            (np.where(there, shrunk(buttons, 4.0), 0.0), np.where(selected, accent, surface)),
            (np.where(there, labels, 0.0), edge),
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on any option but the selected one."""
        option = other_than(parts.state, parts.options[:, 0], rng)
        return taps_inside(self._rows(parts)[parts.rows, option], rng)

    def _rows(self, parts: Parts) -> FloatArray:
        """Boxes `[m, 5, 4]` of the options."""
        return cell_boxes(parts.boxes, parts.options[:, 0], 1, self.most, gap=1.0)


class Keypad(Widget):
    """The state is the selected key, counted row by row; options are rows and columns."""

    kind = "keypad"
    choices = ((2, 3), (3, 2), (3, 3))
    most = 9
    display = 20.0  # height of the display, in page pixels
    gap = 2.0  # half the dead space between keys
    ring = 5.0  # width of the ring around the selected key

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Keys of 28 to 44 pixels and the space around them, under a display."""
        cells = options[:, ::-1] + 0.0
        return cells * 32.0 + (0.0, self.display), cells * 48.0 + (0.0, self.display)

    def num_states(self, options: IntArray) -> IntArray:
        """One for each key."""
        return np.asarray(options.prod(axis=1))

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one key selects it."""
        key = tapped_cell(gestures, self._keys(parts))
        return np.where(key >= 0, key, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel, the display, a ring behind the selected key, and the keys."""
        keys, palette, gap = self._keys(parts), parts.colors[:, KEYS], self.gap
        left, top, right, _ = parts.boxes.T
        display = stack_boxes(left + gap, top + gap, right - gap, top + self.display - gap)
        faces = shrunk(keys, self.ring * (np.arange(self.most) == parts.state[:, None]))
        return Rectangles.of(
            (parts.boxes, parts.colors[:, SURFACE]),
            (display, palette[parts.rows, parts.state]),
            (keys[parts.rows, parts.state], parts.colors[:, INK]),
            (faces, palette),
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on any key but the selected one."""
        key = other_than(parts.state, self.num_states(parts.options), rng)
        return taps_inside(self._keys(parts)[parts.rows, key], rng)

    def _keys(self, parts: Parts) -> FloatArray:
        """Boxes `[m, 9, 4]` of the keys."""
        below = parts.boxes + np.array([0.0, self.display, 0.0, 0.0])
        return cell_boxes(below, parts.options[:, 0], parts.options[:, 1], self.most, self.gap)


class Menu(Widget):
    """State i is closed with item i chosen, 3 + i is open with item i chosen."""

    kind = "menu"
    smallest, largest = (84.0, 108.0), (140.0, 144.0)  # a head and three items
    items = 3
    count = 2 * items

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A long press on a closed menu's head opens it; a tap on an open one's item chooses."""
        rows, is_open = self._rows(parts), parts.state >= self.items
        opens = gestures.long_pressed & ~is_open & (cell_under(gestures.start, rows) == 0)
        tapped = tapped_cell(gestures, rows)
        state = np.where(opens, parts.state + self.items, parts.state)
        return np.where(is_open & (tapped > 0), tapped - 1, state)

    def draw(self, parts: Parts) -> Rectangles:
        """A framed head in the chosen item's colour; below it, while open, the items' colours."""
        rows, is_open = self._rows(parts), parts.state >= self.items
        palette = parts.colors[:, KEYS][:, [0, 3, 6]]
        return Rectangles.of(
            (np.where(is_open[:, None], parts.boxes, 0.0), parts.colors[:, SURFACE]),
            (rows[:, 0], parts.colors[:, INK]),
            (shrunk(rows[:, 0], 5.0), palette[parts.rows, parts.state % self.items]),
            (np.where(is_open[:, None, None], rows[:, 1:], 0.0), palette),
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A long press where closed; where open, a tap on an item that is not chosen."""
        is_open = parts.state >= self.items
        item = other_than(parts.state % self.items, self.items, rng)
        box = self._rows(parts)[parts.rows, np.where(is_open, 1 + item, 0)]
        taps = taps_inside(box, rng)
        return Strokes(taps.start, taps.end, None, ~is_open)

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """Opening is one gesture, choosing another; an open menu closes by choosing."""
        opened, wanted_open = state >= self.items, other >= self.items
        same_item = state % self.items == other % self.items
        to_closed = np.where(opened, 1, np.where(same_item, 0, 2))
        to_open = np.where(same_item, np.where(opened, 0, 1), np.where(opened, 2, 3))
        return np.where(wanted_open, to_open, to_closed).astype(np.float64)

    def _rows(self, parts: Parts) -> FloatArray:
        """Boxes `[m, 4, 4]` of the head and the items."""
        most = 1 + self.items
        return cell_boxes(parts.boxes, np.full(len(parts.state), most), 1, most)


class Twin(Widget):
    """State 0 is off, 1 is on; between the two buttons, where their average lies, is the lamp."""

    kind = "twin"
    smallest, largest = (150.0, 36.0), (228.0, 52.0)
    count = 2
    multimodal = True
    button = 0.24  # width of a button in widths of the box

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one button."""
        switches = tapped_cell(gestures, self._buttons(parts)) >= 0
        return np.where(switches, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Rectangles:
        """A panel, two framed buttons, and the lamp between them."""
        left, top, right, bottom = parts.boxes.T
        buttons, width = self._buttons(parts), parts.widths * (self.button + 0.06)
        return Rectangles.of(
            (parts.boxes, parts.colors[:, SURFACE]),
            (buttons, parts.colors[:, INK]),
            (shrunk(buttons, 4.0), parts.colors[:, KNOB]),
            (
                stack_boxes(left + width, top + 5.0, right - width, bottom - 5.0),
                np.where(parts.state == 1, parts.colors[:, ACCENT], parts.colors[:, MUTED]),
            ),
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on one of the buttons, each as likely."""
        side = rng.integers(2, size=len(parts.state))
        return taps_inside(self._buttons(parts)[parts.rows, side], rng)

    def _buttons(self, parts: Parts) -> FloatArray:
        """Boxes `[m, 2, 4]` of the buttons."""
        left, top, right, bottom = parts.boxes.T
        width = parts.widths * self.button
        buttons = (
            stack_boxes(left + 2.0, top + 2.0, left + width, bottom - 2.0),
            stack_boxes(right - width, top + 2.0, right - 2.0, bottom - 2.0),
        )
        return np.stack(buttons, axis=1)


class Panel(Widget):
    """A dead area: it looks like something, and nothing changes it; options are lines of text."""

    kind = "panel"
    max_count = 2
    choices = ((1, 0), (2, 0), (3, 0))
    count = 1
    active = False
    most = 3

    def size_range(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """48 to 130 wide, lines of 16 to 22 pixels."""
        lines = options[:, :1] + 0.0
        return lines * (0.0, 16.0) + (48.0, 8.0), lines * (0.0, 22.0) + (130.0, 8.0)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """Nothing."""
        return parts.state

    def draw(self, parts: Parts) -> Rectangles:
        """A panel with lines on it."""
        left, top, right, bottom = (edge[:, None] for edge in parts.boxes.T)
        lines, count = np.arange(self.most), parts.options[:, :1]
        middle = top + (lines + 0.5) * (bottom - top) / count
        text = stack_boxes(left + 6.0, middle - 3.0, right - 6.0 - 8.0 * (lines % 2), middle + 3.0)
        return Rectangles.of(
            (parts.boxes, parts.colors[:, SURFACE]),
            (np.where((lines < count)[..., None], text, 0.0), parts.colors[:, MUTED]),
        )

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on it, which changes nothing."""
        return taps_inside(parts.boxes, rng)
