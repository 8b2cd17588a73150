"""`vj2-ddim report`: the tables and pictures of a run again, from its raw results alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vj2_ddim_benchmark.chains.records import CHAINS_DIR, ChainRecord
from vj2_ddim_benchmark.chains.summary import summarise_chains
from vj2_ddim_benchmark.chains.tables import chain_section
from vj2_ddim_benchmark.protocol.curves import draw_curves, draw_success_against_time
from vj2_ddim_benchmark.protocol.document import Section
from vj2_ddim_benchmark.protocol.gather import RESULTS
from vj2_ddim_benchmark.protocol.json_lines import read_json_lines
from vj2_ddim_benchmark.protocol.report import rich_table, write_report
from vj2_ddim_benchmark.protocol.run_folder import read_run_folder
from vj2_ddim_benchmark.protocol.study_report import report_studies
from vj2_ddim_benchmark.protocol.summary import Row, summarise, write_summary
from vj2_ddim_plugin.files import atomic_path

__all__ = ["rebuild_report", "report"]

DRAWN_BY_THE_BENCHMARK = (
    "landscape.png",
    "plans.png",
    "chain.gif",
)  # they need the world model and the planners


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder, of vj2-ddim benchmark.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; the run's folder unless told.")
    ] = None,
) -> None:
    """Rebuild a run's tables and pictures from its raw results: Markdown and one HTML page."""
    target = run if out is None else out
    rows = rebuild_report(run, target)
    Console().print(rich_table(rows))
    typer.echo(f"wrote {target / 'report.md'} and {target / 'report.html'}")


def rebuild_report(run: Path, out: Path) -> list[Row]:
    """Write `report.md`, `report.html`, `pictures/`, and `summary.json`, of the studies too.

    Neither the world model nor the planners are needed. Success against time is drawn anew, as
    curves where the run has several budgets; the pictures that only the benchmark can draw are
    taken as they are, where they are.

    Args:
        run: The folder of the raw results.
        out: Where to write; may be the same.

    Returns:
        The rows of `summary.json`.

    Raises:
        DataError: A file of the run is missing or damaged.
    """
    found = read_run_folder(run)
    rows = summarise(found.records, found.cold)
    several = len({row["budget_ms"] for row in rows}) > 1
    drawn = out / "pictures" / ("curves.png" if several else "success_against_time.png")
    (draw_curves if several else draw_success_against_time)(drawn, rows)
    pictures = [drawn, *_taken(run / "pictures", out / "pictures")]
    write_summary(out / "summary.json", rows)
    sections = [*_chains(run, out), *report_studies(run, out)]
    write_report(out / "report.md", rows, found.records, found.setup, pictures, sections)
    return rows


def _chains(run: Path, out: Path) -> list[Section]:
    """What the page says of the run's chains, where it has some; also writes their summary."""
    path = run / CHAINS_DIR / RESULTS
    if not path.exists():
        return []
    rows = summarise_chains(read_json_lines(path, ChainRecord))
    write_summary(out / CHAINS_DIR / "summary.json", rows)
    return [chain_section(rows)]


def _taken(source: Path, target: Path) -> list[Path]:
    """Pictures of the benchmark that are there, copied unless they are in place already."""
    pictures = [target / name for name in DRAWN_BY_THE_BENCHMARK if (source / name).exists()]
    if source.resolve() != target.resolve():
        for path in pictures:
            with atomic_path(path) as temporary:
                shutil.copyfile(source / path.name, temporary)
    return pictures
