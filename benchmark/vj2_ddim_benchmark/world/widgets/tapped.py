"""Widgets that are tapped: switch, radio, keypad, menu, twin; and the panel, which is dead."""

import numpy as np

from vj2_ddim_benchmark.world.painting import Color, Layers, shrunk, stack_boxes
from vj2_ddim_benchmark.world.touch import Gestures, inside, points_inside
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, other_than
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray


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

    def draw(self, parts: Parts) -> Layers:
        """A track with cut corners and a knob half as wide."""
        left, top, right, bottom = parts.boxes.T
        corner, inset, on = self.corner, self.inset, parts.state == 1
        side = (right - left) / 2 - inset
        knob = np.where(on, right - inset - side, left + inset)
        return [
            (stack_boxes(left + corner, top, right - corner, bottom), parts.light),
            (stack_boxes(left, top + corner, right, bottom - corner), parts.light),
            (stack_boxes(knob, top + inset, knob + side, bottom - inset), Color.KNOB),
        ]


class _Choice(Widget):
    """The state is one of the cells."""

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one cell selects it."""
        cell = gestures.tapped_on(self.cells(parts))
        return np.where(cell >= 0, cell, parts.state)

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on any cell but the selected one."""
        cell = other_than(parts.state, self.num_states(parts.options), rng)
        point = points_inside(parts.one_of(self.cells(parts), cell), rng)
        return Strokes(point, point)


class Radio(_Choice):
    """A column of options: the state is the selected one, from the top."""

    kind = "radio"
    choices = ((3, 0), (4, 0), (5, 0))
    smallest, largest = (72.0, 25.0), (120.0, 34.0)
    gap = 1.0

    def draw(self, parts: Parts) -> Layers:
        """A panel; in each row a button, ringed and filled where selected, and a label."""
        rows = self.cells(parts)
        left, top, right, bottom = np.moveaxis(rows, -1, 0)
        side = np.minimum(bottom - top - 6.0, 20.0)
        middle = (top + bottom) / 2
        buttons = stack_boxes(left + 4.0, middle - side / 2, left + 4.0 + side, middle + side / 2)
        labels = stack_boxes(left + side + 14.0, middle - 3.0, right - 6.0, middle + 3.0)
        there = (rows[..., 2] > 0)[..., None]
        selected = np.arange(rows.shape[1]) == parts.state[:, None]
        colors = parts.colors[..., None]
        edge = np.where(selected, colors[:, Color.INK], colors[:, Color.MUTED])
        fill = np.where(selected, colors[:, Color.ACCENT], colors[:, Color.SURFACE])
        return [
            (parts.boxes, Color.SURFACE),
            (there * buttons, edge),
            (there * shrunk(buttons, 4.0), fill),
            (there * labels, edge),
        ]


class Keypad(_Choice):
    """Rows and columns of keys under a display: the state is the selected key, row by row."""

    kind = "keypad"
    choices = ((2, 3), (3, 2), (3, 3))
    smallest, largest = (32.0, 32.0), (48.0, 48.0)
    padding = (0.0, 20.0)  # the display
    ring = 5.0  # width of the ring around the selected key

    def draw(self, parts: Parts) -> Layers:
        """A panel, the display in the selected key's colour, a ring behind that key, the keys."""
        keys, palette, gap = self.cells(parts), parts.colors[:, Color.KEYS], self.gap
        left, top, right, _ = parts.boxes.T
        display = stack_boxes(left + gap, top + gap, right - gap, top + self.padding[1] - gap)
        faces = shrunk(keys, self.ring * (np.arange(keys.shape[1]) == parts.state[:, None]))
        return [
            (parts.boxes, Color.SURFACE),
            (display, parts.one_of(palette)),
            (parts.one_of(keys), Color.INK),
            (faces, palette),
        ]


class Menu(Widget):
    """A head and three items. State i is closed with item i chosen, 3 + i open with item i."""

    kind = "menu"
    smallest, largest = (84.0, 27.0), (140.0, 36.0)
    items = 3
    count = 2 * items
    fixed_grid = (1 + items, 1)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A long press on a closed menu's head opens it; a tap on an open one's item chooses."""
        rows, is_open = self.cells(parts), parts.state >= self.items
        opens = gestures.long_pressed & ~is_open & (gestures.starts_on(rows) == 0)
        tapped = gestures.tapped_on(rows)
        state = np.where(opens, parts.state + self.items, parts.state)
        return np.where(is_open & (tapped > 0), tapped - 1, state)

    def draw(self, parts: Parts) -> Layers:
        """A framed head in the chosen item's colour; below it, while open, the items' colours."""
        rows, is_open = self.cells(parts), parts.state >= self.items
        palette = parts.colors[:, Color.KEYS][:, [0, 3, 6]]
        return [
            (np.where(is_open[:, None], parts.boxes, 0.0), Color.SURFACE),
            (rows[:, 0], Color.INK),
            (shrunk(rows[:, 0], 5.0), parts.one_of(palette, parts.state % self.items)),
            (np.where(is_open[:, None, None], rows[:, 1:], 0.0), palette),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A long press where closed; where open, a tap on an item that is not chosen."""
        is_open = parts.state >= self.items
        item = other_than(parts.state % self.items, self.items, rng)
        row = parts.one_of(self.cells(parts), np.where(is_open, 1 + item, 0))
        point = points_inside(row, rng)
        return Strokes(point, point, long=~is_open)

    def distance(self, state: IntArray, other: IntArray) -> FloatArray:
        """Opening is one gesture, choosing another; an open menu closes by choosing."""
        same_item = state % self.items == other % self.items
        # [open or not, wanted open or not, another item or the same]
        gestures = np.array([[[2, 0], [3, 1]], [[1, 1], [2, 0]]], np.float64)
        opened = (state >= self.items).astype(int), (other >= self.items).astype(int)
        return np.asarray(gestures[*opened, same_item.astype(int)])


class Twin(Widget):
    """State 0 is off, 1 is on; between the two buttons, where their average lies, is the lamp."""

    kind = "twin"
    smallest, largest = (150.0, 36.0), (228.0, 52.0)
    count = 2
    multimodal = True
    button = 0.24  # width of a button in widths of the box

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A tap that starts and ends on one button."""
        switches = gestures.tapped_on(self._buttons(parts)) >= 0
        return np.where(switches, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Layers:
        """A panel, two framed buttons, and the lamp between them."""
        left, top, right, bottom = parts.boxes.T
        buttons, width = self._buttons(parts), parts.widths * (self.button + 0.06)
        lamp = stack_boxes(left + width, top + 5.0, right - width, bottom - 5.0)
        return [
            (parts.boxes, Color.SURFACE),
            (buttons, Color.INK),
            (shrunk(buttons, 4.0), Color.KNOB),
            (lamp, parts.light),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """A tap on one of the buttons, each as likely."""
        side = rng.integers(2, size=len(parts.state))
        point = points_inside(parts.one_of(self._buttons(parts), side), rng)
        return Strokes(point, point)

    def _buttons(self, parts: Parts) -> FloatArray:
        left, top, right, bottom = parts.boxes.T
        width = parts.widths * self.button
        one = stack_boxes(left + 2.0, top + 2.0, left + width, bottom - 2.0)
        other = stack_boxes(right - width, top + 2.0, right - 2.0, bottom - 2.0)
        return np.stack([one, other], axis=1)


class Panel(Widget):
    """A dead area: it looks like lines of text, and nothing that is done to it changes it."""

    kind = "panel"
    max_count = 2
    choices = ((1, 0), (2, 0), (3, 0))
    smallest, largest = (48.0, 16.0), (130.0, 22.0)
    padding = (0.0, 8.0)
    count = 1
    active = False

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """Nothing."""
        return parts.state

    def draw(self, parts: Parts) -> Layers:
        """A panel with lines on it."""
        left, top, right, bottom = (edge[:, None] for edge in parts.boxes.T)
        lines, count = np.arange(3), parts.options[:, :1]
        middle = top + (lines + 0.5) * (bottom - top) / count
        text = stack_boxes(left + 6.0, middle - 3.0, right - 6.0 - 8.0 * (lines % 2), middle + 3.0)
        text = np.where((lines < count)[..., None], text, 0.0)
        return [(parts.boxes, Color.SURFACE), (text, Color.MUTED)]
