"""Keeping a deadline: how long each operation is expected to take, and what still fits.

An operation cannot be interrupted, so it is begun only when it is expected to end in time. What is
expected is what the same operation took lately, and how much that varied: other processes slow it
down too.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict

__all__ = ["Deadline", "Pace"]

FOLLOW = 0.1  # share of the way that one measurement moves what is expected
CAUTION = 2.0  # mean deviations above the mean that an operation is expected to take
RELAX = 0.9  # what is left of the deviation after an operation was not begun because of it
SLICE_S = 0.004  # no operation that can be cut into parts is begun to take longer than this
FINISH_S = 0.001  # kept back for choosing and returning the plan


class Pace:
    """Seconds that operations took lately, by name and number of rows. Thread-safe."""

    def __init__(self) -> None:
        # name -> rows -> (mean, mean absolute deviation), both moving averages
        self._seconds: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Pace], tuple[()]]:
        """What another process measures is its own: a copy starts empty."""
        return Pace, ()

    def record(self, name: str, rows: int, seconds: float) -> None:
        """Take in how long `rows` rows took."""
        with self._lock:
            mean, deviation = self._seconds[name].get(rows, (seconds, seconds / 4))
            error = seconds - mean
            deviation += FOLLOW * (abs(error) - deviation)
            self._seconds[name][rows] = mean + FOLLOW * error, deviation

    def relax(self, name: str, rows: int) -> None:
        """After an operation was not begun: without a new measurement, doubt fades."""
        with self._lock:
            if rows in self._seconds[name]:
                mean, deviation = self._seconds[name][rows]
                self._seconds[name][rows] = mean, RELAX * deviation

    def forget(self, name: str) -> None:
        """Drop what is known of an operation."""
        with self._lock:
            self._seconds.pop(name, None)

    def expected(self, name: str, rows: int) -> float:
        """Seconds that `rows` rows should take; 0 for an operation never seen.

        Of an unseen number of rows, the nearest seen one speaks, in proportion when it is smaller.
        """
        with self._lock:
            seen = self._seconds[name]
            if not seen:
                return 0.0
            nearest = min(seen, key=lambda known: abs(known - rows))
            mean, deviation = seen[nearest]
            return (mean + CAUTION * deviation) * max(1.0, rows / nearest)

    def known(self, name: str, rows: int | None = None) -> bool:
        """Whether the operation was ever measured, with this number of rows or with any."""
        return bool(self._seconds[name]) if rows is None else rows in self._seconds[name]


class Deadline:
    """The time left to one plan.

    Args:
        seconds: From now on; None for no deadline.
        pace: What operations are expected to take.
    """

    def __init__(self, seconds: float | None, pace: Pace) -> None:
        self.started = time.perf_counter()
        self._seconds, self._pace = seconds, pace
        self.missed = False

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._seconds is not None

    def record(self, name: str, rows: int, seconds: float) -> None:
        """Tell the pace; without a deadline only what it does not know yet, which is quicker."""
        if self._seconds is not None or not self._pace.known(name, rows):
            self._pace.record(name, rows, seconds)

    def remaining(self) -> float:
        """Seconds left for operations; infinite without a deadline."""
        if self._seconds is None:
            return float("inf")
        return self._seconds - FINISH_S - (time.perf_counter() - self.started)

    def allows(self, *operations: tuple[str, int, int]) -> bool:
        """Whether `(name, rows, times)` operations are expected to fit; a no is remembered."""
        if self._seconds is None:
            return True
        wanted = sum(self._pace.expected(name, rows) * times for name, rows, times in operations)
        fits = self.remaining() > wanted
        if not fits:
            self.missed = True
            for name, rows, _ in operations:
                self._pace.relax(name, rows)
        return fits

    def largest_slice(self, name: str, rows: int, each: int) -> int:
        """How many of `rows` units of `each` rows to begin at once, at least 1.

        Without a deadline, all. With one, a slice takes no longer than `SLICE_S` or what is left,
        so that a machine that suddenly slows down makes the plan a little late, not very late.
        """
        if self._seconds is None:
            return rows
        if not self._pace.known(name):
            return 1
        limit = min(SLICE_S, self.remaining())
        size = rows
        while size > 1 and self._pace.expected(name, size * each) > limit:
            size = (size + 1) // 2
        return size

    def affordable(
        self, step: str, num_candidates: int, num_steps: int, batch: int, *, ranked: bool
    ) -> tuple[int, int]:
        """How many candidates, in how many steps, there is time to draw and `project`.

        Half of the time is kept for ranking. Few candidates in enough steps beat many in too few.
        """
        if self._seconds is None:
            return num_candidates, num_steps
        share = 0.5 if ranked else 0.9
        enough, candidates = min(4, num_steps), num_candidates
        while True:
            rows = candidates * batch
            budget = self.remaining() * share - self._pace.expected("project", rows)
            expected = self._pace.expected(step, rows)
            steps = num_steps if expected == 0.0 else min(num_steps, int(budget / expected))
            if steps >= enough or candidates == 1:
                break
            self._pace.relax(step, rows)
            candidates = (candidates + 1) // 2
        self.missed |= steps < num_steps or candidates < num_candidates
        return candidates, max(1, steps)
