"""`vj2-ddim export`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_export import TOLERANCE
from vj2_ddim_plugin.cli.console import say

__all__ = ["export"]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, ours or the original script's .pth.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    nhead: Annotated[int, typer.Option(help="Head count of an original checkpoint, which does not hold it.")] = 0,
    ranker: Annotated[Path | None, typer.Option(help="A ranker.pt trained for this checkpoint; it goes into the bundle.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative error of the whole sampling loop.")] = TOLERANCE,
    seed: Annotated[int, typer.Option(help="Of the inputs of the parity gate.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:  # fmt: skip
    """Turn a checkpoint into an ONNX bundle, and prove that the two agree."""
    from vj2_ddim_export.export import export_bundle  # torch loads slowly

    make = partial(export_bundle, ranker=ranker, tolerance=tolerance, seed=seed)
    parity = make(checkpoint, out, nhead=nhead or None, overwrite=overwrite)
    ranked = "" if parity.ranker_error is None else f", of the ranker {parity.ranker_error:.2e}"
    say(
        f"parity over {parity.num_inference_steps} DDIM steps at batches "
        f"{', '.join(map(str, parity.batches))}: worst error {parity.worst_error:.2e}{ranked} "
        f"(tolerance {parity.tolerance:.0e}); the bundle is in {out}"
    )
