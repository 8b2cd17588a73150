"""A page as plain data: what it says, apart from how Markdown or HTML spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Block", "Document", "Picture", "Section", "Table"]


@dataclass(frozen=True)
class Table:
    """A table of text; its first column names the rows.

    Attributes:
        columns: Heads of the columns.
        rows: One text a column.
        marks: By row and column (counted from 0), `ahead` or `behind`: cells to be coloured.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    path: Path
    caption: str


Block = str | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        title: The heading.
        blocks: Paragraphs, tables and pictures, in order.
        wide: Whether it is too wide for Markdown, which then leaves it out.
    """

    title: str
    blocks: tuple[Block, ...]
    wide: bool = False


@dataclass(frozen=True)
class Document:
    """A whole page: its title, what comes before the first heading, and the sections."""

    title: str
    opening: tuple[str, ...]
    sections: tuple[Section, ...]
