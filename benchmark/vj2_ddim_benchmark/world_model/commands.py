"""`vj2-ddim benchmark world`: collect touch screens, train a world model on them, measure it.

The screens and the world model are imported when work begins.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from timeit import repeat
from typing import Annotated, Any

import typer

from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_plugin.cli.console import print_table, progress_bars, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.files import write_json

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The touch screen world and its learned world model.")

Split = Annotated[str, typer.Option(help="train, validation or test: whose screens.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the report here.")]
DEFAULTS = WorldModelConfig()


@app.command()
def collect(
    out: Annotated[Path, typer.Option(help="The HDF5 file to write.")],
    num_trajectories: Annotated[int, typer.Option(min=1)] = DEFAULTS.num_trajectories,
    horizon: Annotated[int, typer.Option(min=1, help="Gestures in each.")] = DEFAULTS.horizon,
    split: Split = "train",
    seed: Seed = 0,
) -> None:
    """Touch screens with scripted and random gestures and write what happened."""
    from vj2_ddim_benchmark.world import collect as data

    total = num_trajectories * horizon
    with progress_bars() as progress:
        transitions = data.collect_transitions(
            num_trajectories, horizon=horizon, split=split, seed=seed, progress=progress
        )
    data.save_transitions(out, transitions, {"split": split, "seed": seed})
    say(f"{total} transitions in {out}")


@app.command()
def speed(
    num_screens: Annotated[int, typer.Option(min=1, help="Screens in the batch.")] = 512,
    size: Annotated[int, typer.Option(help="Pixels of the pictures, 32 to 256.")] = 64,
    num_repeats: Annotated[int, typer.Option(min=1, help="How often it is timed.")] = 9,
    json_file: JsonFile = None,
) -> None:
    """Measure the touch screen: transitions a second on one core, medians after a first run.

    CPU time tells on a busy machine how fast one core to itself would be.
    """
    import numpy as np

    from vj2_ddim_benchmark.environment import environment
    from vj2_ddim_benchmark.world.policies import mixed_policy
    from vj2_ddim_benchmark.world.screen import TouchScreen

    screens = TouchScreen.generate(num_screens, split="train", seed=0, size=size)
    actions = mixed_policy(screens, 0.7, np.random.default_rng(0))
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    repeats = {
        clock: repeat(lambda: screens.execute(actions).render(), "", now, num_repeats + 1, 1)[1:]
        for clock, now in clocks.items()
    }
    rates = {clock: num_screens / median(seconds) for clock, seconds in repeats.items()}
    say(
        f"{rates['wall']:.0f} transitions a second by the clock on the wall, "
        f"{rates['cpu']:.0f} a second of CPU time, at {size} x {size}"
    )
    asked = {"num_screens": num_screens, "size": size, "num_repeats": num_repeats, "seed": 0}
    measured = {**asked, "transitions_per_second": rates, "repeats": repeats}
    write_json(json_file, {**measured, "environment": environment()})


@app.command()
def picture(
    out: Annotated[Path, typer.Option(help="The PNG file to write.")],
    split: Split = "train",
    seed: Seed = 0,
) -> None:
    """Draw a one-gesture problem of every kind of widget."""
    from vj2_ddim_benchmark.world.pictures import draw_gallery

    draw_gallery(out, split=split, seed=seed)
    say(f"picture in {out}")


@app.command()
@options
def train(
    context: typer.Context,
    config: WorldModelConfig,
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")],
    start_from: Annotated[
        Path | None, typer.Option(help="A world model to train further; it keeps its encoder.")
    ] = None,
    transitions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Collected ones of any screens, instead of its own; a file, and again for others."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or a torch device.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Less data, fewer steps.")] = False,
) -> None:
    """Train a world model on screens it collects itself, and print how good it is.

    Stopped with Ctrl-C, the same command goes on where it was.
    """
    from vj2_ddim_benchmark.world_model.train import train_world_model

    if quick:  # what is asked for by name stays
        sources = {each.name: context.get_parameter_source(each.name) for each in fields(config)}
        asked = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
        kept = {name: getattr(config, name) for name in asked}
        config = replace(WorldModelConfig.quick(), **kept)
    with progress_bars() as progress:
        how: dict[str, Any] = {"device": device, "start": start_from, "recorded": transitions or ()}
        model = train_world_model(config, out, progress, **how)
    if model.report:
        _show(model.report)
    say(f"world model in {out}")


@app.command()
def report(
    checkpoint: Path,
    split: Split = "validation",
    num_problems: Annotated[int | None, typer.Option(min=1)] = None,
    transitions: Annotated[
        Path | None, typer.Option(help="Collected ones of any screens, instead of its own.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure a world model anew, and print what it measured."""
    from vj2_ddim_benchmark.world_model.embed import recorded_transitions
    from vj2_ddim_benchmark.world_model.model import WorldModel
    from vj2_ddim_benchmark.world_model.report import report_recorded, report_world_model

    model = WorldModel.load(checkpoint)
    with progress_bars() as bars:
        if transitions is None:
            how: dict[str, Any] = {"split": split, "num_problems": num_problems, "progress": bars}
            measured = report_world_model(model, **how)
        else:
            found = recorded_transitions(transitions, model.config)
            measured = report_recorded(model, found, num_problems)
    _show(measured)
    write_json(json_file, measured)


@app.command()
def embed(
    checkpoint: Path,
    transitions: Annotated[list[Path], typer.Argument(help="Collected screens to train on.")],
    out: Annotated[Path, typer.Option(help="The folder to write the trajectories to.")],
    validation: Annotated[Path | None, typer.Option(help="Screens to validate on.")] = None,
    test: Annotated[Path | None, typer.Option(help="Screens to test on.")] = None,
    changes_only: Annotated[
        bool, typer.Option("--changes-only", help="Leave out touches that change no state.")
    ] = False,
    num_moved: Annotated[
        int, typer.Option(min=0, help="Copies of what is trained on, moved over the screen.")
    ] = 0,
) -> None:
    """Encode collected screens into trajectories of latents, to train a denoiser on."""
    from vj2_ddim_benchmark.world_model.embed import embed_files
    from vj2_ddim_benchmark.world_model.model import WorldModel

    others = {"validation": validation, "test": test}
    files = {"train": transitions, **{name: [path] for name, path in others.items() if path}}
    how: dict[str, Any] = {"changes_only": changes_only, "num_moved": num_moved}
    with progress_bars() as progress:
        num = embed_files(WorldModel.load(checkpoint), files, out, progress=progress, **how)
    say(f"{num} trajectories in {out}")


def _show(measured: dict[str, Any]) -> None:
    """A table of measures, one row a kind of widget; it fits 80 columns."""
    measures = measured["measures"]
    names = list(measures["overall"])
    title = f"{measured['num_problems']} problems of the {measured['split']} split"
    rows = [
        (kind, *("" if (of := found.get(name)) is None else f"{of:.3f}" for name in names))
        for kind, found in measures.items()
    ]
    print_table(
        rows, ("kind", *(name.replace("_", " ") for name in names)), title=title, numbers=True
    )
