"""`vj2-ddim scale`: what one plan takes where the predictor has hundreds of millions of weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vj2_ddim_benchmark.scale.measure import ScaleSettings, measure_scale
from vj2_ddim_benchmark.scale.predictor import PredictorSize
from vj2_ddim_plugin.files import write_json

__all__ = ["scale"]

PLANS = {
    "gradient_descent": "gradient descent, {num_iterations} iterations, weights frozen",
    "gradient_descent_trainable": "the same, weights left trainable",
    "ddim_one": "DDIM, 1 sample, no predictor",
    "ddim_ranked": "DDIM, {num_candidates} ranked by the predictor",
    "ddim_ranker_checked": "DDIM, a ranker picks 1 of {num_candidates}, the predictor checks it",
    "ddim_ranker": "DDIM, a ranker picks 1 of {num_candidates}",
}


def scale(
    bundle: Annotated[
        Path | None, typer.Option(help="A trained bundle; random weights if none.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Layers of the predictor.")] = 24,
    width: Annotated[int, typer.Option(help="Its width.")] = 1024,
    heads: Annotated[int, typer.Option(help="Its attention heads.")] = 16,
    tokens: Annotated[int, typer.Option(help="Its tokens: frames x (patches + 1).")] = 2056,
    frames: Annotated[int, typer.Option(help="States it sees.")] = 8,
    iterations: Annotated[int, typer.Option(help="Of gradient descent.")] = 10,
    num_candidates: Annotated[int, typer.Option(help="Candidates K of DDIM.")] = 16,
    num_inference_steps: Annotated[int, typer.Option(help="DDIM steps N.")] = 10,
    rows_per_chunk: Annotated[int, typer.Option(help="Candidates in one forward pass.")] = 1,
    turns: Annotated[int, typer.Option(help="Times that each pass is timed.")] = 3,
    num_plans: Annotated[int, typer.Option(help="DDIM plans timed in each turn.")] = 20,
    threads: Annotated[int, typer.Option(help="Threads of torch and of ONNX Runtime alike.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of all weights.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
) -> None:
    """Time one plan at VJ2-GUI's scale, by gradient descent and by DDIM, in turns."""
    settings = ScaleSettings(
        PredictorSize(depth, width, heads, frames, tokens),
        num_iterations=iterations,
        num_candidates=num_candidates,
        num_inference_steps=num_inference_steps,
        rows_per_chunk=rows_per_chunk,
        num_turns=turns,
        num_plans=num_plans,
        threads=threads,
        seed=seed,
        bundle=bundle,
    )
    console = Console()
    with console.status("turn 1"):
        measured = measure_scale(
            settings, lambda done, total: console.print(f"turn {done} of {total}")
        )
    measured["peak_memory_mb"] = _peak_memory_mb()
    console.print(_table(measured))
    console.print(f"ranking takes {measured['wall']['ranking_share']:.2%} of a ranked plan")
    if json_file is not None:
        write_json(json_file, measured)


def _table(measured: dict[str, Any]) -> Table:
    size = measured["settings"]["size"]
    title = (
        f"one plan through {measured['predictor_weights'] / 1e6:,.0f} million weights, depth "
        f"{size['depth']}, {size['num_tokens']:,} tokens, {measured['settings']['threads']} thread(s)"
    )
    table = Table(
        "plan", "seconds", "processor seconds", "descent takes x", "left trainable x",
        title=title, title_justify="left",
    )  # fmt: skip
    wall, processor = measured["wall"], measured["processor"]
    for name, label in PLANS.items():
        ratios = [ratio.get(name) for ratio in wall["ratios"].values()]
        table.add_row(
            label.format(**measured["settings"]),
            f"{wall['plans'][name]:,.4g}",
            f"{processor['plans'][name]:,.4g}",
            *("" if ratio is None else f"{ratio:,.4g}" for ratio in ratios),
        )
    return table


def _peak_memory_mb() -> float | None:
    """The most that this process ever held, or None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
