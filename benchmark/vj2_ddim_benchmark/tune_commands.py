"""`vj2-ddim benchmark-tune`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.registry import entries_of
from vj2_ddim_benchmark.progress import progress_bars
from vj2_ddim_benchmark.protocol.options import names_of
from vj2_ddim_benchmark.protocol.setup import environment, use_threads
from vj2_ddim_benchmark.protocol.tune_planners import Judge, tune_planners
from vj2_ddim_benchmark.protocol.tuning import TUNED_DIR
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.files import sha256_of

__all__ = ["benchmark_tune"]

Planners = Annotated[
    list[str] | None, typer.Option(help="Names, repeated or with commas between; all unless told.")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch and of ONNX Runtime alike.")]


def benchmark_tune(
    world_model: Annotated[
        Path | None, typer.Option(help="Another world model than the shipped.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the recorded sweeps.")] = TUNED_DIR,
    num_problems: Annotated[int, typer.Option(min=1, help="Validation problems.")] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    planners: Planners = None,
    threads: Threads = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Only planners of quick runs.")] = False,
) -> None:
    """Tune the planners that have settings to tune on validation screens, and record the sweep."""
    use_threads(threads)
    entries = [e for e in entries_of(names_of(planners), quick=quick) if e.search_space]
    assets = shipped_assets()
    world_model = world_model or assets.world_model
    model = WorldModel.load(world_model)
    problems = one_gesture_problems(
        num_problems, split="validation", seed=seed, size=model.config.screen_size
    )
    provenance = {
        "split": "validation",
        "seed": seed,
        "num_problems": num_problems,
        "world_model_sha256": sha256_of(world_model),
        "date": time.strftime("%Y-%m-%d"),
        **environment(),
    }
    judge = Judge(model, problems, seed)
    with progress_bars() as progress:
        spec = read_bundle(assets.bundle).action_spec
        parts = BuildAssets(
            spec, assets.bundle, threads, seed, None, assets.regression, assets.gaussian
        )
        sweeps = tune_planners(out, entries, parts, judge, provenance, progress)
    for name, sweep in sweeps.items():
        best = max(trial.success for trial in sweep.trials)
        edge = f"; at the edge of its range: {', '.join(sweep.at_edge)}" if sweep.at_edge else ""
        typer.echo(f"{name}: {dict(sweep.winner)}, success {best:.1%}{edge}")
