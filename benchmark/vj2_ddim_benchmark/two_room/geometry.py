"""TwoRoom's walls for a disk that sweeps along its whole way, in pixels; no host is needed.

The distance from a point that moves along a line to a rectangle is convex in time. So where it is
least is one of a few times that are known in closed form, and where it first falls to a given value
is found by bisection before that time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GAP = 1e-3  # that the physics keep between disk and wall
TOLERANCE = 1e-4  # of what is still legal: positions are kept in 32 bits
BISECTIONS = 40
CONTACTS = 4  # of one move, at most
MODERATE_RADIUS, STRICT_RADIUS = 16.0, 8.0  # nearer than this to the goal is a success

Point = tuple[float, float]
Solid = tuple[float, float, float, float]  # x from, x to, y from, y to


@dataclass(frozen=True)
class Rooms:
    """A square that a vertical wall with one door divides; the host's, unless told otherwise."""

    radius: float = 7.0  # of the agent's disk
    size: float = 224.0
    border: float = 14.0  # of each side of the square
    wall: tuple[float, float] = (107.0, 117.0)  # x
    door: tuple[float, float] = (35.0, 63.0)  # y

    @property
    def middle(self) -> float:
        """The x at which one room ends and the other begins."""
        return sum(self.wall) / 2

    @property
    def solids(self) -> tuple[Solid, Solid]:
        """What is wall on either side of the door."""
        return (*self.wall, -math.inf, self.door[0]), (*self.wall, self.door[1], math.inf)

    def within(self, point: Sequence[float]) -> Point:
        """The nearest point at which the disk is within the square."""
        low, high = self.border + self.radius, self.size - self.border - self.radius
        return min(max(float(point[0]), low), high), min(max(float(point[1]), low), high)

    def side(self, point: Sequence[float]) -> bool:
        """Whether a point is in the right room."""
        return bool(point[0] > self.middle)

    def is_legal(self, start: Sequence[float], end: Sequence[float]) -> bool:
        """Whether the whole disk can go straight from start to end and touches no wall."""
        for point in (start, end):
            if math.dist(point, self.within(point)) > TOLERANCE:
                return False
        return all(
            _nearest(start, end, solid)[0] >= self.radius - TOLERANCE for solid in self.solids
        )

    def move(self, start: Sequence[float], wanted: Sequence[float]) -> Point:
        """Where the disk ends that is pushed straight to a place and slides along what it meets."""
        at, target = self.within(start), self.within(wanted)
        for _ in range(CONTACTS):
            contacts = list(self._contacts(at, target))
            if not contacts:
                return target
            when, solid = min(contacts)
            at = _between(at, target, when)
            normal = _away(at, solid)
            rest = (target[0] - at[0], target[1] - at[1])
            inward = min(0.0, rest[0] * normal[0] + rest[1] * normal[1])
            target = self.within(
                (at[0] + rest[0] - inward * normal[0], at[1] + rest[1] - inward * normal[1])
            )
        return at

    def _contacts(self, start: Point, end: Point) -> Iterator[tuple[float, Solid]]:
        """When a move first comes near each wall that it approaches, as a share of the move."""
        near = self.radius + GAP
        for solid in self.solids:
            least, high = _nearest(start, end, solid)
            if least >= near:
                continue
            normal = _away(start, solid)
            towards = (end[0] - start[0]) * normal[0] + (end[1] - start[1]) * normal[1]
            if _distance(start, solid) <= near:
                if towards < -1e-9:
                    yield 0.0, solid
                continue
            low = 0.0
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                if _distance(_between(start, end, middle), solid) > near:
                    low = middle
                else:
                    high = middle
            yield low, solid


def _between(start: Sequence[float], end: Sequence[float], share: float) -> Point:
    """The point at a share of the way."""
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _offset(point: Sequence[float], solid: Solid) -> Point:
    """From the solid's nearest point to this one; zero within."""
    (x, y), (left, right, top, bottom) = point, solid
    return min(x - left, 0.0) or max(x - right, 0.0), min(y - top, 0.0) or max(y - bottom, 0.0)


def _distance(point: Sequence[float], solid: Solid) -> float:
    """From a point to a solid; zero within."""
    return math.hypot(*_offset(point, solid))


def _away(point: Sequence[float], solid: Solid) -> Point:
    """The direction away from a solid, of length one; zero within."""
    x, y = _offset(point, solid)
    length = math.hypot(x, y) or 1.0
    return x / length, y / length


def _nearest(start: Sequence[float], end: Sequence[float], solid: Solid) -> tuple[float, float]:
    """The least distance along a move, and when it is reached.

    Between the times at which the point crosses the lines of the solid's edges, the nearest point
    of the solid is a corner, or moves along an edge. So the least is at such a time, at an end, or
    where the way passes a corner.
    """
    x, y = end[0] - start[0], end[1] - start[1]
    square, times = x * x + y * y, [0.0, 1.0]
    for edge in solid[:2]:
        times += [(edge - start[0]) / x] if x else []
        for other in filter(math.isfinite, solid[2:]):
            passing = (edge - start[0]) * x + (other - start[1]) * y
            times += [passing / square] if square else []
    times += [(edge - start[1]) / y for edge in solid[2:] if y and math.isfinite(edge)]
    return min(
        (_distance(_between(start, end, time), solid), time) for time in times if 0 <= time <= 1
    )
