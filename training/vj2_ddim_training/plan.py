"""`vj2-ddim plan`: plans from the shell, with a picture. Needs no torch, only the `cli` extra."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.files import atomic_path, write_json
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.plots import plot_plan, save_figure

__all__ = ["plan"]

console = Console()


def plan(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    conditions: Annotated[Path | None, typer.Option(help="An .npz with the bundle's context arrays, [B, ...] each; not needed for an unconditional bundle.")] = None,
    out: Annotated[Path, typer.Option(help="Where the actions go: an .npy of [B, L, A].")] = Path("plan.npy"),
    picture: Annotated[Path | None, typer.Option(help="Also draw the plans.")] = None,
    num_plans: Annotated[int, typer.Option(help="B, for an unconditional bundle.")] = 1,
    num_inference_steps: Annotated[int, typer.Option(help="DDIM steps N.")] = 10,
    eta: Annotated[float, typer.Option(help="0 is DDIM, 1 is DDPM.")] = 0.0,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is off.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Std of the starting noise; below 1, surer plans.")] = 1.0,
    provider: Annotated[str, typer.Option(help="auto, cpu or cuda; by name it is strict.")] = "auto",
    project: Annotated[bool, typer.Option(help="Project the plan onto valid gestures.")] = True,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write times and counts.")] = None,
) -> None:  # fmt: skip
    """Sample one plan a condition. There is no world model here, so nothing is ranked."""
    optimizer = DDIMOptimizer.from_bundle(
        bundle,
        provider=provider,
        num_inference_steps=num_inference_steps,
        eta=eta,
        guidance_scale=guidance_scale,
        temperature=temperature,
        project=project,
        seed=seed,
    )
    inputs = optimizer.model.condition.inputs
    if inputs and conditions is None:
        shapes = ", ".join(f"{name} [B, {', '.join(map(str, inputs[name]))}]" for name in inputs)
        raise ContextError(f"{bundle} plans from a condition: give {shapes} with --conditions")
    context = {} if conditions is None else _read_conditions(conditions)
    result = optimizer.optimize(PlanningProblem(context, batch_size=None if context else num_plans))
    with atomic_path(out) as temporary, open(temporary, "wb") as stream:
        np.save(stream, result.actions)
    if picture is not None:
        save_figure(plot_plan(result.actions, optimizer.action_spec), picture)
    summary = {
        "plans": len(result.actions),
        "provider": result.provider,
        "wall_time_ms": {name: 1e3 * seconds for name, seconds in result.wall_time_s.items()},
        "num_denoiser_evaluations": result.num_denoiser_evaluations,
        "projection_distance": [float(value) for value in result.projection_distance],
    }
    if json_file is not None:
        write_json(json_file, summary)
    total = result.wall_time_s["total"]
    console.print(
        f"{len(result.actions)} plans {result.actions.shape[1:]} in {1e3 * total:.1f} ms on "
        f"{result.provider}, written to {out}"
    )


def _read_conditions(path: Path) -> dict[str, FloatArray]:
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ContextError(
            f"{path}: cannot be read as an .npz of condition arrays ({error}). Write it with "
            f"numpy.savez(path, name=array, ...)"
        ) from error
