"""`vj2-ddim benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vj2_ddim_benchmark.assets import Assets, AssetSettings, build_assets, shipped_assets
from vj2_ddim_benchmark.chains.tables import rich_chain_table
from vj2_ddim_benchmark.planners.registry import entries_of
from vj2_ddim_benchmark.progress import Progress, progress_bars
from vj2_ddim_benchmark.protocol.benchmark import Benchmark
from vj2_ddim_benchmark.protocol.executors import import_ray
from vj2_ddim_benchmark.protocol.options import budgets_of, names_of, studies_from
from vj2_ddim_benchmark.protocol.report import rich_table
from vj2_ddim_benchmark.protocol.studies import DEFAULT_PLANNERS, STUDIES
from vj2_ddim_benchmark.protocol.summary import write_summary
from vj2_ddim_benchmark.protocol.tuning import TUNED_DIR, read_tuned
from vj2_ddim_benchmark.protocol.variants import Variant

__all__ = ["benchmark"]

CHAIN_PLANNERS = (
    "ddim-16-robust-2",
    "ddim-16",
    "ddim-1",
    "regression",
    "gradient-descent-adam-10-x16",
    "gesture-cem-8x16",
)

Planners = Annotated[
    list[str] | None, typer.Option(help="Names, repeated or with commas between; all unless told.")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch and of ONNX Runtime alike.")]
Seed = Annotated[int, typer.Option(min=0)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the rows here.")]


def benchmark(
    out: Annotated[Path, typer.Option(help="The run's folder; a run that was cut short resumes.")],
    bundle: Annotated[Path | None, typer.Option(help="Another denoiser than the shipped.")] = None,
    world_model: Annotated[
        Path | None, typer.Option(help="Another world model than the shipped.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Make anew all that is shipped, and use that.")
    ] = False,
    small_sampler: Annotated[
        bool,
        typer.Option("--small-sampler", help="First train and export a small one, to race too."),
    ] = False,
    num_problems: Annotated[int | None, typer.Option(min=1, help="600; 60 if quick.")] = None,
    split: Annotated[str, typer.Option(help="Whose screens: test, or validation.")] = "test",
    seed: Seed = 0,
    planners: Planners = None,
    threads: Threads = 2,
    budget_ms: Annotated[
        list[float] | None,
        typer.Option(
            min=0, help="Deadline of a plan; repeat it to race under each. None: full plans."
        ),
    ] = None,
    full_plan: Annotated[
        bool, typer.Option("--full-plan", help="With budgets: also race without.")
    ] = False,
    tuned: Annotated[Path, typer.Option(help="The folder of the recorded sweeps.")] = TUNED_DIR,
    latents: Annotated[
        Path | None, typer.Option(help="The denoiser's training data, for retrieval.")
    ] = None,
    regression: Annotated[
        Path | None, typer.Option(help="The amortised regression's file.")
    ] = None,
    gaussian: Annotated[Path | None, typer.Option(help="The amortised Gaussian's file.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Problems solved at once, each in a process.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Solve them on this Ray cluster: its address, auto, or local to start one."
        ),
    ] = None,
    chains: Annotated[
        int | None, typer.Option(min=0, help="Chains of gestures; 150, 10 if quick.")
    ] = None,
    chain_planners: Annotated[
        list[str] | None,
        typer.Option(help=f"Who goes through them; {', '.join(CHAIN_PLANNERS)} unless told."),
    ] = None,
    study: Annotated[
        list[str] | None, typer.Option(help=f"Also study: {', '.join(STUDIES)}; repeatable.")
    ] = None,
    study_planners: Annotated[
        list[str] | None,
        typer.Option(
            help=f"For goal-noise and world-model; {', '.join(DEFAULT_PLANNERS)} unless told."
        ),
    ] = None,
    study_problems: Annotated[
        int | None, typer.Option(min=1, help="The first so many problems; all unless told.")
    ] = None,
    study_world_model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: another one, for the study world-model; repeatable."),
    ] = None,
    study_bundle: Annotated[
        list[str] | None,
        typer.Option(help="NAME=DIR: another denoiser, for the study denoisers; repeatable."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer problems and planners.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Compare planners on unseen touch screens, with the shipped trained parts unless told."""
    entries = entries_of(names_of(planners), quick=quick, latents=latents is not None)
    for entry in entries:
        read_tuned(tuned, entry)  # what is not there is better found out before training
    chain_entries = entries_of(names_of(chain_planners) or CHAIN_PLANNERS)
    num_chains = (10 if quick else 150) if chains is None else chains
    if ray is not None:
        import_ray()
    studies, chosen = studies_from(study_planners, study_world_model, study_bundle), names_of(study)
    for name in chosen:
        studies.variants(name)
    with progress_bars() as progress:
        assets = _assets(out, retrain, progress, threads)
        world_model, bundle = world_model or assets.world_model, bundle or assets.bundle
        small = [_small_sampler(out, world_model, progress, threads)] if small_sampler else []
        settings = Benchmark(
            world_model,
            bundle,
            num_problems=num_problems or (60 if quick else 600),
            split=split,
            seed=seed,
            threads=threads,
            budgets=budgets_of(budget_ms, full_plan),
            tuned=tuned,
            latents=latents,
            regression=regression or assets.regression,
            gaussian=gaussian or assets.gaussian,
            workers=workers,
            ray=ray,
        )
        rows = settings.run(out, entries, progress, small)
        gone = settings.chains(out, chain_entries, num_chains, progress) if num_chains else []
        if chosen:
            rows = settings.study(out, chosen, studies, study_problems, progress)
    if json_file is not None:
        write_summary(json_file, rows)
    Console().print(rich_table(rows))
    if gone:
        Console().print(rich_chain_table(gone))
    typer.echo(f"report, pictures and raw results in {out}")


def _assets(out: Path, retrain: bool, progress: Progress, threads: int) -> Assets:
    """What is shipped, or the same made anew in the run's folder."""
    if not retrain:
        return shipped_assets()
    return build_assets(out / "assets", AssetSettings.full(), progress, threads)


def _small_sampler(out: Path, world_model: Path, progress: Progress, threads: int) -> Variant:
    """A small denoiser, trained here, beside the one that is raced."""
    settings = AssetSettings.small()
    made = build_assets(out / "small", settings, progress, threads, world_model)
    return Variant("ddim-16-small", "ddim-16", bundle=made.bundle)
