"""Widgets that are dragged: slider, tray, and detour, whose piece must go around a wall."""

import numpy as np

from vj2_ddim_benchmark.world.painting import Color, Layers, shrunk, stack_boxes
from vj2_ddim_benchmark.world.touch import MARGIN, PAGE, Gestures, Mask, points_inside
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget, other_than
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray


class Slider(Widget):
    """The state is the place of the knob in hundredths of the track; it counts within 6 of them."""

    kind = "slider"
    max_count = 2
    smallest, largest = (150.0, 24.0), (228.0, 36.0)
    last = 100  # the state at the right end
    count = last + 1
    tolerance = 6
    half_knob = 9.0  # half the knob's width, and the track's distance from the box, in page pixels
    stray = 48.0  # page pixels above or below the track where lifting the finger cancels
    least_change = 12  # of scripted gestures

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """The knob goes where the finger is lifted, unless that is far above or below."""
        first, length = self._track(parts)
        share = (gestures.end[:, 0] - first) / length
        middle = (parts.boxes[:, 1] + parts.boxes[:, 3]) / 2
        follows = np.abs(gestures.end[:, 1] - middle) <= self.stray
        place = np.rint(self.last * np.clip(share, 0.0, 1.0)).astype(int)
        return np.where(follows, place, parts.state)

    def draw(self, parts: Parts) -> Layers:
        """A thin track, coloured up to a framed knob."""
        left, top, right, bottom = parts.boxes.T
        middle, knob = (top + bottom) / 2, self._knob(parts)
        frame = stack_boxes(knob - self.half_knob, top, knob + self.half_knob, bottom)
        return [
            (stack_boxes(left, middle - 4.0, right, middle + 4.0), Color.MUTED),
            (stack_boxes(left, middle - 4.0, knob, middle + 4.0), Color.ACCENT),
            (frame, Color.INK),
            (shrunk(frame, 3.0), Color.KNOB),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """The knob dragged to a place clearly elsewhere, or that place tapped."""
        num, least, count = len(parts.state), self.least_change, self.count
        place = (parts.state + least + rng.integers(count - 2 * least, size=num)) % count
        near = np.abs(place - parts.state) < least
        place = np.where(near, (place + self.last // 2) % count, place)
        first, length = self._track(parts)
        top, bottom = parts.boxes[:, 1] + MARGIN, parts.boxes[:, 3] - MARGIN
        end = np.stack([first + place / self.last * length, rng.uniform(top, bottom)], axis=1)
        grip = self._knob(parts) + rng.uniform(-6.0, 6.0, num)
        knob = np.stack([grip, rng.uniform(top, bottom)], axis=1)
        tapped = rng.random((num, 1)) < 0.5
        return Strokes(np.where(tapped, end, knob), np.clip(end, 0.0, PAGE))

    def _track(self, parts: Parts) -> tuple[FloatArray, FloatArray]:
        """Where the knob's centre begins and how far it goes, `[m]` each."""
        return parts.boxes[:, 0] + self.half_knob, parts.widths - 2 * self.half_knob

    def _knob(self, parts: Parts) -> FloatArray:
        first, length = self._track(parts)
        return np.asarray(first + parts.state / self.last * length)


class Tray(Widget):
    """Rows and columns of slots: the state is the slot that holds the piece, row by row."""

    kind = "tray"
    choices = ((1, 3), (1, 4), (2, 2), (2, 3))
    smallest, largest = (40.0, 40.0), (54.0, 54.0)

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A drag that starts on the piece and ends in a slot moves it there."""
        slots = self.cells(parts)
        target, holds = gestures.ends_on(slots), gestures.starts_on(slots) == parts.state
        return np.where(gestures.dragged & holds & (target >= 0), target, parts.state)

    def draw(self, parts: Parts) -> Layers:
        """A panel, the slots, and the piece, framed, in its own."""
        slots = self.cells(parts)
        own = parts.one_of(slots)
        return [
            (parts.boxes, Color.SURFACE),
            (slots, Color.MUTED),
            (shrunk(own, 4.0), Color.INK),
            (shrunk(own, 9.0), Color.ACCENT),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """The piece dragged, straight, onto any other slot."""
        slots = shrunk(self.cells(parts), 4.0)
        target = other_than(parts.state, self.num_states(parts.options), rng)
        grip = points_inside(parts.one_of(slots), rng)
        return Strokes(grip, points_inside(parts.one_of(slots, target), rng))


class Detour(Widget):
    """State 0 is the piece at home on the left, 1 on the right; a drag into the wall fails."""

    kind = "detour"
    smallest, largest = (160.0, 84.0), (228.0, 116.0)
    count = 2
    multimodal = True
    side = 40.0  # sides of the two homes, in page pixels
    half_wall = 8.0  # half the wall's width
    wall_share = 0.26  # half the wall's height in heights of the box
    clearance = (18.0, 34.0)  # how far above or below the wall scripted drags pass

    def touch(self, parts: Parts, gestures: Gestures) -> IntArray:
        """A drag from the piece to the other home moves it, unless its path meets the wall."""
        homes = self._homes(parts)
        goes = gestures.starts_on(homes) == parts.state
        arrives = gestures.ends_on(homes) == 1 - parts.state
        moves = gestures.dragged & goes & arrives
        moves[moves] = ~paths_meet(gestures.path[moves], self._wall(parts)[moves])
        return np.where(moves, 1 - parts.state, parts.state)

    def draw(self, parts: Parts) -> Layers:
        """A panel, the homes, the wall, and the piece, framed, in one home."""
        homes = self._homes(parts)
        own = parts.one_of(homes)
        return [
            (parts.boxes, Color.SURFACE),
            (homes, Color.MUTED),
            (self._wall(parts), Color.INK),
            (shrunk(own, 5.0), Color.INK),
            (shrunk(own, 10.0), Color.ACCENT),
        ]

    def strokes(self, parts: Parts, rng: np.random.Generator) -> Strokes:
        """The piece dragged past the wall, above or below."""
        homes, num = shrunk(self._homes(parts), 6.0), len(parts.state)
        start = points_inside(parts.one_of(homes), rng)
        end = points_inside(parts.one_of(homes, 1 - parts.state), rng)
        left, top, right, bottom = self._wall(parts).T
        above = rng.random(num) < 0.5
        clearance = rng.uniform(*self.clearance, num)
        y = np.where(above, top - clearance, bottom + clearance)
        x = (left + right) / 2 + rng.uniform(-6.0, 6.0, num)
        return Strokes(start, end, np.stack([x, np.clip(y, 0.0, PAGE)], axis=1))

    def _homes(self, parts: Parts) -> FloatArray:
        left, top, right, bottom = parts.boxes.T
        y, side = (top + bottom) / 2, self.side
        x, y = np.stack([left + 3, right - side - 3], axis=1), y[:, None]
        return stack_boxes(x, y - side / 2, x + side, y + side / 2)

    def _wall(self, parts: Parts) -> FloatArray:
        left, top, right, bottom = parts.boxes.T
        x, y, half = (left + right) / 2, (top + bottom) / 2, self.wall_share * (bottom - top)
        return stack_boxes(x - self.half_wall, y - half, x + self.half_wall, y + half)


def paths_meet(paths: FloatArray, walls: FloatArray) -> Mask:
    """Whether paths `[m, T, 2]`, straight between their points, touch boxes `[m, 4]`, as `[m]`.

    A segment meets a box if the parts of it that lie within the box's range of x and of y overlap
    (the slab method).
    """
    begin, step = paths[:, :-1], np.diff(paths, axis=1)
    still = step == 0
    along = np.where(still, 1.0, step)
    low, high = (walls[:, None, :2] - begin) / along, (walls[:, None, 2:] - begin) / along
    low, high = np.minimum(low, high), np.maximum(low, high)
    between = (begin >= walls[:, None, :2]) & (begin <= walls[:, None, 2:])
    low = np.where(still, np.where(between, 0.0, 2.0), low).max(axis=-1)
    high = np.where(still, np.where(between, 1.0, -1.0), high).min(axis=-1)
    return np.asarray((np.maximum(low, 0.0) <= np.minimum(high, 1.0)).any(axis=1))
