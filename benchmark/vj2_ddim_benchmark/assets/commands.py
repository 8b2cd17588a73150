"""`vj2-ddim benchmark-denoiser`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_benchmark.assets.files import shipped_assets
from vj2_ddim_benchmark.assets.provenance import read_best
from vj2_ddim_benchmark.assets.variant import build_variant
from vj2_ddim_benchmark.progress import progress_bars

__all__ = ["benchmark_denoiser"]


def benchmark_denoiser(
    out: Annotated[Path, typer.Option(help="Its folder; a training that was cut short goes on.")],
    data_share: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Share of the shipped one's trajectories.")
    ] = 1.0,
    representation: Annotated[
        str, typer.Option(help="What is diffused: raw, held, path, or auto.")
    ] = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 3000,
    threads: Annotated[int, typer.Option(min=1, help="Torch's threads.")] = 1,
    world_model: Annotated[
        Path | None, typer.Option(help="Another world model than the shipped.")
    ] = None,
) -> None:
    """Train and export a denoiser as the shipped one, on less data or in another representation.

    `vj2-ddim benchmark --study denoisers --study-bundle NAME=OUT/bundle` compares them.
    """
    with progress_bars() as progress:
        bundle = build_variant(
            out,
            world_model or shipped_assets().world_model,
            data_share=data_share,
            representation=representation,
            num_steps=steps,
            threads=threads,
            progress=progress,
        )
    best = read_best(out / "denoiser")
    typer.echo(f"one sample reaches {best['success']:.1%} of validation goals; bundle in {bundle}")
