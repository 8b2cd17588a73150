"""`vj2-ddim data generate`, `inspect`, `split` and `convert`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vj2_ddim_plugin.cli.console import print_findings, print_table, progress_bars, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.settings import (
    GestureSettings,
    ManifestSettings,
    ReadingSettings,
    SplitSettings,
)

__all__ = ["app"]

app = typer.Typer(
    help="Make gestures, see what a data set holds, split it, convert it.", no_args_is_help=True
)

MAX_LINES = 30  # printed; all of them are in the JSON


@app.command()
@options
def generate(
    settings: GestureSettings,
    output_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    num_sequences: Annotated[int, typer.Option(min=1, max=10**7, help="Sequences in all.")] = 5000,
    sequences_per_file: Annotated[
        int, typer.Option(min=1, max=10**7, help="Sequences in a file.")
    ] = 100,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="The same seed, the same gestures.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set.")] = False,
) -> None:
    """Write random clicks and swipes in VJ2-GUI's flat `*_actions.npy` format."""
    import numpy as np

    from vj2_ddim_training.data.generate import write_gestures

    write = partial(write_gestures, sequences_per_file=sequences_per_file, overwrite=overwrite)
    files = write(output_dir, num_sequences, settings, rng=np.random.default_rng(seed))
    say(f"{num_sequences} sequences in {len(files)} files: {output_dir}")


@app.command()
@options
def inspect(
    path: Annotated[Path, typer.Argument(help="A folder of data of any format, or one file.")],
    settings: ManifestSettings,
    picture: Annotated[Path | None, typer.Option(help="Draw a picture into this file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all of it here.")] = None,
    sequence_length: Annotated[int, typer.Option(help="Steps in a sequence.")] = 250,
) -> None:
    """Say what a data set holds and what is wrong with it; exit 1 if anything is."""
    from vj2_ddim_training.data.inspect import describe_data, plot_description

    if picture is not None:
        from vj2_ddim_plugin.cli.pictures import require_picture, save_figure

        require_picture(picture)
    spec = ActionSpec(  # a press may last as long as it likes
        action_block=sequence_length, min_press_steps=1, max_press_steps=None, representation="raw"
    )
    with progress_bars() as progress:
        description = describe_data(path, spec, settings, partial(progress, "looking"))
    findings = {name.replace("_", " "): _words(of) for name, of in description.facts.items()}
    print_findings(findings, title=findings.pop("path"))
    write_json(json_file, description.to_dict())
    if picture is not None:
        save_figure(plot_description(description, spec), picture)
    _list_some("note", description.notes)
    if description.faults:
        _list_some("fault", description.faults, style="bold red")
        raise typer.Exit(1)


def _list_some(word: str, lines: list[str], style: str = "bold") -> None:
    if not lines:
        return
    say(f"{len(lines)} {word}{'s' if len(lines) > 1 else ''}:", style=style)
    for line in lines[:MAX_LINES]:
        say(f"- {line}")
    if len(lines) > MAX_LINES:
        say(f"... and {len(lines) - MAX_LINES} more; --json FILE lists all")


@app.command()
@options
def split(
    folder: Annotated[Path, typer.Argument(help="A folder of data of any format.")],
    settings: SplitSettings,
    layer_normed: Annotated[
        bool | None,
        typer.Option(
            "--layer-normed/--not-layer-normed",
            help="Record whether the embeddings were; as before where there is a manifest.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest.")] = False,
) -> None:
    """Write a manifest: which recordings are for training, validation and test."""
    from vj2_ddim_training.data.split import split_data

    path, found = split_data(folder, settings, layer_normed=layer_normed, overwrite=overwrite)
    heading = ("split", "recordings", "files", "bytes", "share")
    rows = [
        (name, *(f"{number:,}" for number in of[:3]), f"{of[3]:.1%}") for name, of in found.items()
    ]
    print_table(rows, heading, numbers=True)
    say(f"the splits are in {path}")


@app.command()
@options
def convert(
    source: Annotated[Path, typer.Argument(help="A folder of trajectories: pairs, .npz or .h5.")],
    output_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    reading: ReadingSettings,
    to: Annotated[
        str, typer.Option(help="pairs (memory-mapped), npz (uncompressed) or h5.")
    ] = "pairs",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set.")] = False,
) -> None:
    """Write trajectories in a format of which single steps are read; splits stay as they are."""
    from vj2_ddim_training.data.convert import convert_trajectories

    with progress_bars() as progress:
        how: Any = {"reading": reading, "overwrite": overwrite, "progress": progress}
        num = convert_trajectories(source, output_dir, to, **how)
    say(f"{num} trajectories as {to}: {output_dir}")


def _words(value: Any, inner: bool = False) -> Any:  # noqa: ANN401
    """A finding as it is printed: a pair is a range, and longer lists are in the JSON alone."""
    if isinstance(value, Mapping):
        short = {name: of for name, of in value.items() if not isinstance(of, list) or len(of) < 3}
        words = {name.replace("_", " "): _words(of, True) for name, of in short.items()}
        return ", ".join(f"{name} {of}" for name, of in words.items()) if inner else words
    if isinstance(value, list | tuple):
        return " to ".join(_words(each) for each in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not recorded" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
