"""`vj2-ddim data generate` and `vj2-ddim data inspect`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.files import write_json
from vj2_ddim_training.data.describe import DataDescription, describe_data
from vj2_ddim_training.data.generate import GESTURE_KINDS, write_gestures
from vj2_ddim_training.data.picture import plot_description
from vj2_ddim_training.plots import save_figure

__all__ = ["app"]

app = typer.Typer(help="Make gestures, and see what a data set holds.", no_args_is_help=True)

MAX_PROBLEMS = 30  # printed; all of them are in the JSON


@app.command()
def generate(
    output_dir: Path = typer.Option(..., "--output-dir", "--output_dir", help="Folder to make."),
    num_sequences: int = typer.Option(
        5000, "--num-sequences", "--num_sequences", help="Sequences in all."
    ),
    action_type: str = typer.Option(
        "mixed", "--action-type", "--action_type", help=f"One of {', '.join(GESTURE_KINDS)}."
    ),
    min_delta_t_pct: float = typer.Option(
        0.02, "--min-delta-t-pct", "--min_delta_t_pct", help="Shortest press, share of a sequence."
    ),
    max_delta_t_pct: float = typer.Option(
        0.3, "--max-delta-t-pct", "--max_delta_t_pct", help="Longest press, share of a sequence."
    ),
    sequence_length: int = typer.Option(
        250, "--sequence-length", "--sequence_length", help="Steps in a sequence."
    ),
    sequences_per_file: int = typer.Option(
        100, "--sequences-per-file", "--sequences_per_file", help="Sequences in a file."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="The same seed makes the same gestures."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an earlier data set."),
) -> None:
    """Write random clicks and swipes in VJ2-GUI's flat `*_actions.npy` format."""
    files = write_gestures(
        output_dir,
        num_sequences,
        kind=action_type,
        min_duration_share=min_delta_t_pct,
        max_duration_share=max_delta_t_pct,
        sequence_length=sequence_length,
        sequences_per_file=sequences_per_file,
        overwrite=overwrite,
        rng=np.random.default_rng(seed),
    )
    typer.echo(f"{num_sequences} sequences in {len(files)} files: {output_dir}")


@app.command()
def inspect(
    path: Path = typer.Argument(..., help="A folder of *_actions.npy, or one such file."),
    picture: Path | None = typer.Option(None, "--picture", help="Draw a picture into this file."),
    json_file: Path | None = typer.Option(None, "--json", help="Write all of it to this file."),
    sequence_length: int = typer.Option(
        250, "--sequence-length", "--sequence_length", help="Steps in a sequence."
    ),
) -> None:
    """Say what a data set holds and what is wrong with it; exit 1 if anything is."""
    spec = _spec_of_length(sequence_length)
    description = describe_data(path, spec)
    console = Console()
    console.print(_table(description))
    if json_file is not None:
        write_json(json_file, description.to_dict())
    if picture is not None:
        save_figure(plot_description(description, spec), picture)
    if description.problems:
        num = len(description.problems)
        console.print(f"{num} problem{'s' if num > 1 else ''}:", style="bold red")
        for problem in description.problems[:MAX_PROBLEMS]:
            console.print(f"- {problem}", markup=False, highlight=False, soft_wrap=True)
        if num > MAX_PROBLEMS:
            console.print(f"... and {num - MAX_PROBLEMS} more; --json FILE lists all")
        raise typer.Exit(1)


def _spec_of_length(sequence_length: int) -> ActionSpec:
    """VJ2-GUI's actions, for sequences of any length; a press may last as long as it likes."""
    return ActionSpec(
        action_block=sequence_length,
        min_press_steps=1,
        max_press_steps=None,
        representation="raw",
    )


def _table(description: DataDescription) -> Table:
    """The description as a table of two columns."""
    table = Table(title=Text(description.path), show_header=False)
    seconds = description.sequence_length / description.rate_hz
    table.add_row("files", str(description.num_files))
    table.add_row("sequences", str(description.num_sequences))
    table.add_row("sequence length", f"{description.sequence_length} steps, {seconds:g} s")
    for name, (low, high) in description.channel_ranges.items():
        table.add_row(f"range of {name}", f"{low:.4g} to {high:.4g}")
    durations = description.durations
    if durations:
        table.add_row(
            "press duration",
            f"{durations['shortest']} to {durations['longest']} steps, median "
            f"{durations['median']:g}, mean {durations['mean']:.1f}",
        )
    for name, count in description.gesture_types.items():
        table.add_row(f"gesture type {name}", str(count))
    table.add_row("valid gestures", f"{100 * description.valid_share:.1f} %")
    table.add_row("fingerprint", description.data_fingerprint)
    return table
