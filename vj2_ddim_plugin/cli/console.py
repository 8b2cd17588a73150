"""What commands print: tables with whole values, lines of plain text, progress bars.

Text is shown as it is: brackets in a path or a message are never taken for Rich's markup, and what
no terminal shows, a name's bytes that are not UTF-8 or its control characters, is escaped. On a
terminal a long value is folded; in a pipe or a file nothing is folded or cut, and findings are
lines instead of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID

from vj2_ddim_plugin.errors import escaped

__all__ = ["Progress", "print_findings", "print_table", "progress_bars", "say", "silent"]

UNBOUNDED = 100_000  # columns; what is measured against it is never folded


class Progress(Protocol):
    """What a long piece of work reports to."""

    def __call__(self, phase: str, done: int, total: int, line: str = "", /) -> None:
        """So much of a phase is done, of so much in all; `line` is a word on the last step."""


def silent(phase: str, done: int, total: int, line: str = "", /) -> None:
    """A `Progress` that nobody looks at."""


def say(text: object, *, style: str = "", error: bool = False) -> None:
    """Print one line as it is, on the standard output or, with `error`, on the other."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=error).print(Text(escaped(str(text)), style=style), soft_wrap=True)


def print_findings(findings: Mapping[str, object], *, title: str = "") -> None:
    """Print what was found, by name: a table on a terminal, `name: value` a line elsewhere."""
    from rich.console import Console

    texts = {
        name: "\n".join(f"{key}: {of}" for key, of in value.items())
        if isinstance(value, Mapping)
        else str(value)
        for name, value in findings.items()
    }
    if Console().is_terminal:
        print_table(
            list(texts.items()), title=title, lines=any("\n" in of for of in texts.values())
        )
        return
    if title:
        say(title)
    for name, text in texts.items():
        of_several = isinstance(findings[name], Mapping)
        say(f"{name}:" + (f"\n{text}".replace("\n", "\n  ") if of_several else f" {text}"))


def print_table(
    rows: Iterable[Sequence[object]],
    headings: Sequence[str] = (),
    *,
    title: str = "",
    numbers: bool = False,
    lines: bool = False,
) -> None:
    """Print a table with whole values; None is an empty cell, `lines` part the rows.

    Of `numbers`, in all columns but the first: to the right, not folded whatever the terminal.
    """
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    texts = [[Text("" if cell is None else escaped(str(cell))) for cell in row] for row in rows]
    table = Table(show_header=bool(headings), show_lines=lines, box=HEAVY_HEAD)
    if numbers:
        table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    width = max([len(headings), *map(len, texts)])
    for number, heading in enumerate([*headings, *[""] * (width - len(headings))]):
        side: Literal["left", "right"] = "right" if numbers and number > 0 else "left"
        table.add_column(Text(heading), justify=side, overflow="fold", no_wrap=numbers)
    for row in texts:
        table.add_row(*row)
    console = Console()
    if numbers or not console.is_terminal:
        wide = console.options.update(max_width=UNBOUNDED)
        natural = console.measure(table, options=wide).maximum
        console = Console(width=max(natural, console.width), height=console.height)
    if title:  # beside the table: Rich would break it at the table's width
        say(title, style="italic")
    console.print(table)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """One bar a phase on the standard error, made when the phase first reports."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[line]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int, line: str = "", /) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(escaped(phase), total=total, line="")
            bars.update(tasks[phase], completed=done, total=total, line=escaped(line))

        yield update
