"""`vj2-ddim adapters`: the host planners this installation can stand in for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vj2_ddim_plugin.adapters.registry import FoundAdapter, find_adapters
from vj2_ddim_plugin.files import write_json

__all__ = ["adapters"]


def adapters(
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it as JSON.")] = None,
) -> None:
    """List the adapters: host, units, what they replace, and whether they can run here."""
    rows = {name: _describe(found) for name, found in find_adapters().items()}
    table = Table(title="adapters", title_justify="left")
    for heading in ("name", "host", "units", "target", "here"):
        table.add_column(heading, overflow="fold")
    for name, row in rows.items():
        cells = (row["host"], row["units"], row["target"], row["here"])
        table.add_row(name, *(escape(cell) for cell in cells))
    Console().print(table)
    if json_file is not None:
        write_json(json_file, rows)


def _describe(found: FoundAdapter) -> dict[str, str]:
    """One row, all of it text."""
    adapter = found.adapter
    if adapter is None:
        texts = dict.fromkeys(("host", "replaces", "units", "usage"), "")
        return {**texts, "target": found.value, "here": f"broken: {found.error}"}
    here = "yes" if adapter.host_is_here else f"yes, without {adapter.package}"
    if adapter.missing:
        here = f"needs {', '.join(adapter.missing)}"
    return {
        "host": adapter.host,
        "replaces": adapter.replaces,
        "units": adapter.units,
        "usage": adapter.usage,
        "target": adapter.target,
        "here": here,
    }
