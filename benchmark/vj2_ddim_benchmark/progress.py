"""Progress bars on the terminal, for commands whose work comes in phases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TaskID

__all__ = ["Progress", "progress_bars"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, how much of it is done, and how much there is."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """One bar a phase, made when the phase first reports."""
    with Bars(console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield update
