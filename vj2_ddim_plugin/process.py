"""What belongs to one process: its share of the cores, its locks, its native objects.

A forked process inherits all memory and one thread. A lock that another thread held is never
released there, and native code that is freed waits for threads that do not exist. So what a fork
must not inherit is told of it, takes a new lock, and leaves native objects as they are, for ever.
"""

import ctypes
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

__all__ = ["Heir", "available_cores", "kept_handler", "leak", "tell_of_forks"]

PROC, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Heir(Protocol):
    """What has something that a fork must not inherit."""

    def after_fork(self) -> None:
        """Called in the forked process before anything else is done there."""


_heirs: WeakSet[Heir] = WeakSet()


def tell_of_forks(heir: Heir) -> None:
    """Have `heir.after_fork()` called in every process forked from now on, while it lives."""
    _heirs.add(heir)


def _after_fork() -> None:
    for heir in list(_heirs):
        heir.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def leak(native: object) -> None:
    """Never free an object, not at the interpreter's end either: freeing it would hang."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))


@contextmanager
def kept_handler(number: int) -> Iterator[None]:
    """Put the handler of a signal back after the block, whoever replaced it there."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_DFL if before is None else before)


def available_cores() -> int:
    """The cores this process may use: its affinity (`taskset`) and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, math.floor(_quota())))


def _quota() -> float:
    """Cores that the control groups of this process allow it; 2^20 where they set no limit.

    The first version has a quota and a period in files of their own, the second both in one. A
    container may see its own group as the root, or under the host's path.
    """
    least = 2.0**20
    for line in _words_of(PROC, "\n"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root, names = CGROUPS / controllers, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        if not controllers:
            root, names = CGROUPS, ["cpu.max"]
        group = root / path.strip("/")
        for folder in {root, group, *group.parents}:
            words = [word for name in names for word in _words_of(folder / name)]
            if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
                least = min(least, int(words[0]) / int(words[1]))
    return least


def _words_of(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text().split(separator)
    except (OSError, ValueError):
        return []
