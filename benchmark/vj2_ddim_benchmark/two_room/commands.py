"""`vj2-ddim two-room`: our solver and stable-worldmodel's own, in its world and its evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_benchmark.protocol.setup import use_threads
from vj2_ddim_benchmark.two_room.collect import recording_path
from vj2_ddim_benchmark.two_room.compare import Contest, compare
from vj2_ddim_benchmark.two_room.evaluation import choose_problems
from vj2_ddim_benchmark.two_room.prepare import Preparation, prepare
from vj2_ddim_benchmark.two_room.report import markdown_table, write_results
from vj2_ddim_benchmark.two_room.tuning import tune

__all__ = ["two_room"]


def two_room(
    out: Annotated[Path, typer.Option(help="The comparison's folder; a run that was cut short resumes.")],
    num_problems: Annotated[int, typer.Option(min=1, help="Test episodes.")] = 100,
    num_validation: Annotated[int, typer.Option(min=1, help="Validation episodes to tune on.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch and of ONNX Runtime alike.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything here.")] = None,
) -> None:  # fmt: skip
    """Collect, train, tune and compare on TwoRoom; needs requirements-hosts.txt installed."""
    use_threads(threads)
    what = Preparation()
    world_model, bundle = prepare(out, what, typer.echo)
    settings = what.evaluation
    validation = choose_problems(recording_path(out, "validation"), num_validation, settings)
    test = choose_problems(recording_path(out, "test"), num_problems, settings)
    tune(out / "tuning.json", world_model, validation, settings, typer.echo)
    rows = compare(Contest(out, bundle, world_model, test, settings), typer.echo)
    (out / "table.md").write_text(markdown_table(rows), encoding="utf-8")
    typer.echo(markdown_table(rows))
    if json_file is not None:
        write_results(json_file, rows, out, what, test, validation)
