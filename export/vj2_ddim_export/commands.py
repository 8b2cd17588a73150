"""`vj2-ddim export`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_export import TOLERANCE
from vj2_ddim_plugin.cli.console import say
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.planning import SearchSettings

__all__ = ["export"]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, ours or the original script's .pth.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    nhead: Annotated[int | None, typer.Option(min=1, max=10**4, help="Head count of an original checkpoint, which does not hold it.")] = None,
    ranker: Annotated[Path | None, typer.Option(help="A ranker.pt trained for this checkpoint; it goes into the bundle.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative error of the whole sampling loop.")] = TOLERANCE,
    triton: Annotated[Path | None, typer.Option(help="Also write the whole DDIM loop as one graph into this Triton model repository.")] = None,
    num_inference_steps: Annotated[int | None, typer.Option(min=1, max=1000, help="DDIM steps of that graph; as many as the model recommends unless told.")] = None,
    guidance_scale: Annotated[float, typer.Option(min=0, max=100, help="Classifier-free guidance of that graph; 1 is off.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the inputs of the parity gate.")] = 0,
    half_weights: Annotated[bool, typer.Option("--half-weights", help="Store weights in half precision, half as large; may need a larger tolerance.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Keep checkpoint and bundle as artifacts of the Weights & Biases run that run.json names.")] = False,
) -> None:  # fmt: skip
    """Turn a checkpoint into an ONNX bundle, and prove that the two agree."""
    search = SearchSettings(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
    if triton is None and search != SearchSettings():
        raise ConfigError(
            "num_inference_steps and guidance_scale are of the graph that triton=DIR writes"
        )
    from vj2_ddim_export.export import export_bundle  # torch loads slowly

    if wandb:
        from vj2_ddim_training.artifacts import keep_artifacts, tracked_run

        tracked_run(checkpoint)  # before the work
    make = partial(export_bundle, ranker=ranker, tolerance=tolerance, seed=seed)
    parity = make(checkpoint, out, nhead=nhead, overwrite=overwrite, half_weights=half_weights)
    ranked = "" if parity.ranker_error is None else f", of the ranker {parity.ranker_error:.2e}"
    say(
        f"parity over {parity.num_inference_steps} DDIM steps at batches "
        f"{', '.join(map(str, parity.batches))}: worst error {parity.worst_error:.2e}{ranked} "
        f"(tolerance {parity.tolerance:.0e}); the bundle is in {out}"
    )
    if wandb:
        say(f"kept at Weights & Biases: {', '.join(keep_artifacts(checkpoint, out))}")
    if triton is not None:
        from vj2_ddim_export.triton import export_triton

        error = export_triton(out, triton, search, tolerance=tolerance, overwrite=overwrite)
        say(f"the whole loop as one graph differs by {error:.2e}; it is in {triton / out.name}")
