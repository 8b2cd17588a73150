"""Keeping a deadline: how long each operation is expected to take, and what still fits.

An operation cannot be interrupted, so it is begun only when it is expected to end in time. What is
expected is what the same operation took lately, and how much that varied: other processes slow it
down too. What was not begun is doubted less each time, so that one stall is forgotten. What was
measured a single time may be a stall itself, as a cost that compiles when it is first called: where
that missed the deadline, or there was none, it is measured once more, and the quicker one holds.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from typing import NamedTuple

from vj2_ddim_plugin.process import tell_of_forks

__all__ = ["Deadline", "Pace"]

MEMORY = 10  # measurements that the moving averages reach back over
CAUTION = 2.0  # mean deviations above the mean that an operation is expected to take
OUTLIER = 4.0  # a measurement counts as at most so many mean deviations above the mean
WASTE = 0.1  # share of a deadline that is not left unused without doubting why
SLICE_S = 0.004  # no operation that can be cut into parts is begun to take longer than this
FINISH_S = 0.001  # kept back for choosing and returning the plan


class _Seen(NamedTuple):
    """Moving averages of an operation's seconds, and how sure they are."""

    mean: float
    deviation: float
    times: int

    @property
    def expected(self) -> float:
        return self.mean + CAUTION * self.deviation


def _moved(seen: _Seen, seconds: float) -> _Seen:
    """The averages with one more measurement."""
    count = min(seen.times + 1, MEMORY)
    plausible = OUTLIER * max(seen.deviation, seen.mean / 10)
    error = min(seconds - seen.mean, plausible)
    deviation = seen.deviation + (abs(error) - seen.deviation) / max(count, 4)
    return _Seen(seen.mean + error / count, deviation, count)


class Pace:
    """Seconds that operations took lately, by name and number of rows. Thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, _Seen]] = defaultdict(dict)
        self._doubted: dict[tuple[str, int], float] = {}  # seconds, measured once
        self._lock = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Another thread may have held the lock."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Pace], tuple[()]]:
        """What another process measures is its own: a copy starts empty."""
        return Pace, ()

    def record(self, name: str, rows: int, seconds: float, *, doubt: bool = False) -> None:
        """Take in how long `rows` rows took; slower ones count as far as they are plausible.

        With `doubt`, the first measurement of an operation is not believed alone.
        """
        with self._lock:
            seen = self._seen[name]
            if rows in seen:
                seen[rows] = _moved(seen[rows], seconds)
                return
            doubted = self._doubted.pop((name, rows), None)
            more = [other.expected for size, other in seen.items() if size > rows]
            plausible = OUTLIER * max([self._between(seen, rows), *more])
            if doubted is None and (doubt if plausible == 0.0 else seconds > plausible):
                self._doubted[name, rows] = seconds
                return
            seconds, times = (seconds, 1) if doubted is None else (min(seconds, doubted), 2)
            seen[rows] = _Seen(seconds, seconds / 4, times)

    def relax(self, name: str, rows: int) -> None:
        """After an operation was not begun: expect less, the faster the fewer times it was seen."""
        with self._lock:
            if (seen := self._seen[name].get(rows)) is not None:
                left = 1.0 - 0.5 / max(1, seen.times - 1) ** 1.5
                self._seen[name][rows] = _Seen(seen.mean * left, seen.deviation * left, seen.times)

    def forget(self, name: str) -> None:
        """Drop what is known of an operation."""
        with self._lock:
            self._seen.pop(name, None)

    def expected(self, name: str, rows: int) -> float:
        """Seconds that `rows` rows should take; 0 for an operation never seen.

        Interpolated between two numbers of rows that were seen, in proportion to the nearest
        outside of them: too much for more rows, too little for fewer, which are soon measured.
        """
        with self._lock:
            return self._between(self._seen[name], rows)

    @staticmethod
    def _between(seen: dict[int, _Seen], rows: int) -> float:
        if rows in seen:
            return seen[rows].expected
        if not seen:
            return 0.0
        known = sorted(seen)
        if not known[0] < rows < known[-1]:
            nearest = known[0] if rows < known[0] else known[-1]
            return seen[nearest].expected * rows / nearest
        place = bisect_left(known, rows)
        low, high = known[place - 1], known[place]
        share = (rows - low) / (high - low)
        return (1.0 - share) * seen[low].expected + share * seen[high].expected

    def known(self, name: str, rows: int | None = None) -> bool:
        """Whether the operation was ever measured, with this number of rows or with any."""
        return bool(self._seen[name]) if rows is None else rows in self._seen[name]


class Deadline:
    """The time left to one plan."""

    def __init__(self, seconds: float | None, pace: Pace) -> None:
        self.started = time.perf_counter()
        self._seconds = None if seconds is None or math.isinf(seconds) else seconds
        self._pace, self._cut_short = pace, False

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._seconds is not None

    def record(self, name: str, rows: int, seconds: float) -> None:
        """Tell the pace; without a deadline only what it does not know yet, which is quicker."""
        if self._seconds is not None or not self._pace.known(name, rows):
            doubt = self.remaining() < 0.0 if self.is_set else name == "cost"
            self._pace.record(name, rows, seconds, doubt=doubt)

    @property
    def mattered(self) -> bool:
        """Whether something was left out to keep it, or it was not kept."""
        return self._cut_short or self.remaining() < 0.0

    def remaining(self) -> float:
        """Seconds left for operations; infinite without a deadline."""
        if self._seconds is None:
            return math.inf
        return self._seconds - FINISH_S - (time.perf_counter() - self.started)

    def allows(self, *operations: tuple[str, int, int]) -> bool:
        """Whether `(name, rows, times)` operations are expected to fit; a no is remembered."""
        if self._seconds is None:
            return True
        wanted = sum(self._pace.expected(name, rows) * times for name, rows, times in operations)
        fits = self.remaining() > wanted
        if not fits:
            self._cut_short = True
            if self.remaining() > WASTE * self._seconds:
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
        self,
        num_candidates: int,
        num_steps: int,
        batch: int,
        *,
        names: tuple[str, str] = ("denoise", "project"),
        ranked: bool,
        num_ranked: int | None = None,
    ) -> tuple[int, int]:
        """How many candidates, in how many steps, there is time for.

        Time to ask for their cost is kept back, at most half. Few candidates in enough steps beat
        many in too few; but candidates are given up only for steps.
        """
        if self._seconds is None:
            return num_candidates, num_steps
        enough, best = min(4, num_steps), (1, 0)
        candidates = num_candidates
        while candidates:
            asked = min(candidates, num_ranked or candidates) * batch if ranked else 0
            steps = self._steps_for(candidates * batch, num_steps, names, asked)
            if min(steps, enough) > min(best[1], enough) or best[1] == 0:
                best = candidates, steps
            if steps >= enough:
                break
            self._pace.relax(names[0], candidates * batch)
            candidates //= 2
        self._cut_short |= best != (num_candidates, num_steps)
        return best[0], max(1, best[1])

    def _steps_for(self, rows: int, num_steps: int, names: tuple[str, str], asked: int) -> int:
        """Steps of `rows` rows that fit before the cost of `asked` rows, up to `num_steps`."""
        step, budget = self._pace.expected(names[0], rows), self.remaining()
        if step == 0.0:
            return num_steps
        if asked:
            known = self._pace.known("cost")
            budget -= min(self._pace.expected("cost", asked), budget / 2) if known else budget / 2
        budget -= self._pace.expected(names[1], rows) + self._pace.expected("rank", rows)
        return max(0, min(num_steps, int(budget / step)))
