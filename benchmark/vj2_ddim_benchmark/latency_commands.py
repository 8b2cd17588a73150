"""`vj2-ddim latency`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vj2_ddim_benchmark.latency import measure_latency
from vj2_ddim_plugin.files import write_json

__all__ = ["latency"]

Threads = Annotated[int, typer.Option(min=1, help="Threads of torch and of ONNX Runtime alike.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the rows here.")]


def latency(
    bundle: Annotated[Path, typer.Argument(help="The bundle to time.")],
    num_plans: Annotated[int, typer.Option(min=1, help="Plans of each.")] = 200,
    num_inference_steps: Annotated[int, typer.Option(min=1, help="DDIM steps of both.")] = 10,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Time one plan at batch 1, in turns with the original script's torch sampler."""
    measured = measure_latency(bundle, num_plans, num_inference_steps, threads)
    Console().print(_latency_table(measured))
    typer.echo(
        f"the original takes {measured['ratio_p50']:.1f} times as long; the plugin's whole call is "
        f"{measured['overhead']:.2f} times its ONNX Runtime calls"
    )
    if json_file is not None:
        write_json(json_file, measured)


def _latency_table(measured: dict[str, Any]) -> Table:
    """One row a sampler."""
    plans, steps = measured["num_plans"], measured["num_inference_steps"]
    table = Table("sampler", title=f"one plan of {steps} steps, {plans} times")
    for column in ("p50 ms", "p95 ms"):
        table.add_column(column, justify="right")
    for name in ("plugin", "original"):
        times = measured[name]
        table.add_row(name, f"{times['p50_ms']:.2f}", f"{times['p95_ms']:.2f}")
    return table
