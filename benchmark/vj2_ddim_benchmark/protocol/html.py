"""A `Document` as one HTML file that needs nothing else: no script, no network, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vj2_ddim_benchmark.protocol.document import Block, Document, Picture, Table
from vj2_ddim_plugin.errors import DataError

__all__ = ["to_html"]

SIGNATURES = {"png": (b"\x89PNG\r\n\x1a\n",), "gif": (b"GIF87a", b"GIF89a")}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c1c1c; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin-bottom: 0.5rem; }
h2 { margin: 2.5rem 0 0.5rem; padding-bottom: 0.2rem; border-bottom: 1px solid #ccc; }
p { max-width: 50rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #e3e3e3; text-align: right; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody th { font-weight: normal; white-space: nowrap; }
tr > :first-child { text-align: left; }
td { overflow-wrap: anywhere; }
tbody tr:hover { background: #f4f4f4; }
td.ahead { background: #cdebcf; }
td.behind { background: #f8d0cc; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { max-width: 50rem; color: #555; font-size: 0.9rem; }
""".strip()


def to_html(document: Document) -> str:
    """The page in HTML5, pictures as base64.

    Raises:
        DataError: A picture is neither a PNG nor a GIF.
    """
    title = escape(document.title)
    body = [f"<h1>{title}</h1>", *(_block(text) for text in document.opening)]
    for section in document.sections:
        body += [f"<h2>{escape(section.title)}</h2>", *(_block(block) for block in section.blocks)]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{STYLE}\n</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        image = f'<img src="{_data_url(block.path)}" alt="{block.path.stem}">'
        return f"<figure>{image}<figcaption>{escape(block.caption)}</figcaption></figure>"
    return f"<p>{escape(block)}</p>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = [_row(table, index, cells) for index, cells in enumerate(table.rows)]
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _row(table: Table, index: int, cells: Sequence[str]) -> str:
    name, *values = cells
    line = f'<th scope="row">{escape(name)}</th>'
    for column, value in enumerate(values, start=1):
        mark = table.marks.get((index, column))
        line += f'<td class="{mark}">' if mark else "<td>"
        line += escape(value) + "</td>"
    return f"<tr>{line}</tr>"


def _data_url(path: Path) -> str:
    content = path.read_bytes()
    for kind, signatures in SIGNATURES.items():
        if content.startswith(signatures):
            return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    raise DataError(f"{path} is neither a PNG nor a GIF picture; remove it, or draw it again")
