"""`vj2-ddim benchmark`, `vj2-ddim benchmark-tune` and `vj2-ddim latency`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TaskID
from rich.table import Table

from vj2_ddim_benchmark.latency import measure_latency
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.registry import entries_of
from vj2_ddim_benchmark.protocol.benchmark import Benchmark
from vj2_ddim_benchmark.protocol.report import rich_table
from vj2_ddim_benchmark.protocol.run import Progress
from vj2_ddim_benchmark.protocol.setup import environment, use_threads
from vj2_ddim_benchmark.protocol.summary import write_summary
from vj2_ddim_benchmark.protocol.tune_planners import Judge, tune_planners
from vj2_ddim_benchmark.protocol.tuning import TUNED_DIR, read_tuned
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.files import sha256_of, write_json

__all__ = ["benchmark", "benchmark_tune", "latency"]

Planners = Annotated[
    list[str] | None, typer.Option(help="Names, repeated or with commas between; all unless told.")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch and of ONNX Runtime alike.")]
Seed = Annotated[int, typer.Option(min=0)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the rows here.")]


def benchmark(
    out: Annotated[Path, typer.Option(help="The run's folder; a run that was cut short resumes.")],
    bundle: Annotated[Path | None, typer.Option(help="The exported denoiser.")] = None,
    world_model: Annotated[Path | None, typer.Option(help="The world model's file.")] = None,
    num_problems: Annotated[int | None, typer.Option(min=1, help="300; 60 if quick.")] = None,
    split: Annotated[str, typer.Option(help="Whose screens: test, or validation.")] = "test",
    seed: Seed = 0,
    planners: Planners = None,
    threads: Threads = 2,
    budget_ms: Annotated[float | None, typer.Option(min=0, help="Deadline of a plan.")] = None,
    tuned: Annotated[Path, typer.Option(help="The folder of the recorded sweeps.")] = TUNED_DIR,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer problems and planners.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Compare planners on unseen touch screens; what is not given is trained first."""
    entries = entries_of(_names(planners), quick=quick)
    for entry in entries:
        read_tuned(tuned, entry)  # a planner that is not tuned is better found out before training
    with _progress() as progress:
        if world_model is None or bundle is None:
            made = _build_assets(out, quick, progress, threads)
            world_model, bundle = world_model or made[0], bundle or made[1]
        settings = Benchmark(
            world_model,
            bundle,
            num_problems=num_problems or (60 if quick else 300),
            split=split,
            seed=seed,
            threads=threads,
            budget_ms=budget_ms,
            tuned=tuned,
        )
        rows = settings.run(out, entries, progress)
    if json_file is not None:
        write_summary(json_file, rows)
    Console().print(rich_table(rows))
    typer.echo(f"report, pictures and raw results in {out}")


def benchmark_tune(
    world_model: Annotated[Path, typer.Option(help="The world model's file.")],
    out: Annotated[Path, typer.Option(help="The folder of the recorded sweeps.")] = TUNED_DIR,
    num_problems: Annotated[int, typer.Option(min=1, help="Validation problems.")] = 100,
    seed: Seed = 0,
    planners: Planners = None,
    threads: Threads = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Only planners of quick runs.")] = False,
) -> None:
    """Tune the planners that have settings to tune on validation screens, and record the sweep."""
    use_threads(threads)
    entries = [e for e in entries_of(_names(planners), quick=quick) if e.search_space]
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
    with _progress() as progress:
        assets = BuildAssets(ActionSpec(), None, threads, seed)
        sweeps = tune_planners(out, entries, assets, judge, provenance, progress)
    for name, sweep in sweeps.items():
        best = max(trial.success for trial in sweep.trials)
        edge = f"; at the edge of its range: {', '.join(sweep.at_edge)}" if sweep.at_edge else ""
        typer.echo(f"{name}: {dict(sweep.winner)}, success {best:.1%}{edge}")


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


def _names(planners: list[str] | None) -> list[str]:
    return [name for words in planners or [] for name in words.split(",") if name]


def _build_assets(out: Path, quick: bool, progress: Progress, threads: int) -> tuple[Path, Path]:
    """Train and export what is not there yet; the world model and the bundle."""
    from vj2_ddim_benchmark.assets import build_assets

    assets = build_assets(out, quick, progress, threads)
    return assets.world_model_path, assets.bundle_path


@contextmanager
def _progress() -> Iterator[Progress]:
    """One bar a phase, made when the phase first reports."""
    with Bars(console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield update
