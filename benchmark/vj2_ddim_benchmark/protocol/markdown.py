"""A `Document` as Markdown, its pictures linked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vj2_ddim_benchmark.protocol.document import Block, Document, Picture, Table

__all__ = ["to_markdown"]


def to_markdown(document: Document, folder: Path) -> str:
    """The page in Markdown; sections that are too wide for it are left out.

    Args:
        document: What to write.
        folder: Where the page will be, to which the links to pictures are relative.
    """
    parts = [f"# {document.title}", *document.opening]
    for section in document.sections:
        if not section.wide:
            parts += [f"## {section.title}", *(_block(block, folder) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Table):
        lines = [block.columns, ["---"] + ["---:"] * (len(block.columns) - 1), *block.rows]
        return "\n".join(_line(cells) for cells in lines)
    if isinstance(block, Picture):
        link = block.path.relative_to(folder).as_posix()
        return f"![{block.path.stem}]({link})\n\n*{block.caption}*"
    return block


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
