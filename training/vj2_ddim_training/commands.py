"""`vj2-ddim train` and `vj2-ddim evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.flat import read_flat_actions
from vj2_ddim_training.examples import open_examples
from vj2_ddim_training.protocols import Evaluation, Results
from vj2_ddim_training.protocols import evaluate as evaluate_model
from vj2_ddim_training.run import RunSettings, train_run
from vj2_ddim_training.strict_json import strict_json

__all__ = ["evaluate", "train"]

console = Console()
COLUMNS = {  # heading: measure
    "SNR dB": "mean_snr_db",
    "mse": "mse",
    "press": "press_accuracy",
    "iou": "temporal_iou",
    "space": "spatial_accuracy",
    "type": "gesture_type_accuracy",
    "tv": "gesture_type_distance",
    "valid": "validity_before_projection",
    "degen": "degenerate",
}


def train(
    data_dir: Annotated[Path, typer.Option(help="Training data: a folder of *_actions.npy files, or of trajectories for --condition latents.")],
    val_data_dir: Annotated[Path, typer.Option(help="Validation data, in the same format.")],
    batch_size: Annotated[int, typer.Option(help="Examples in one step.")] = 32,
    num_epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 50,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-4,
    d_model: Annotated[int, typer.Option(help="Width of the denoiser.")] = 128,
    num_layers: Annotated[int, typer.Option(help="Layers of the denoiser.")] = 4,
    nhead: Annotated[int, typer.Option(help="Attention heads; must divide --d-model.")] = 4,
    wandb_project: Annotated[str, typer.Option(help="Weights & Biases project.")] = "vj2-ddim",
    save_dir: Annotated[Path, typer.Option(help="The run's folder.")] = Path("checkpoints"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    architecture: Annotated[str, typer.Option(help="dit, or minimal (the original script's).")] = "dit",
    condition: Annotated[str, typer.Option(help="none, sketch, latents; auto is sketch for dit.")] = "auto",
    representation: Annotated[str, typer.Option(help="raw, held, path; auto is the best that inverts exactly.")] = "auto",
    prediction_type: Annotated[str, typer.Option(help="epsilon, sample, v_prediction; auto fits the architecture.")] = "auto",
    beta_schedule: Annotated[str, typer.Option(help="linear, cosine, zero_terminal_snr; auto fits the architecture.")] = "auto",
    timestep_spacing: Annotated[str, typer.Option(help="linspace, leading, trailing; auto fits the architecture.")] = "auto",
    patch_size: Annotated[int, typer.Option(help="Rows of the diffused array in one token; 0 chooses.")] = 0,
    sequence_length: Annotated[int, typer.Option(help="Actions in one sequence.")] = 250,
    channels: Annotated[str, typer.Option(help="Names of an action's channels, by commas; without one named press, actions are not touches.")] = "x,y,press",
    action_low: Annotated[str, typer.Option(help="Lower bounds, one for each channel, by commas.")] = "0,0,0",
    action_high: Annotated[str, typer.Option(help="Upper bounds, one for each channel, by commas.")] = "1,1,1",
    condition_dropout: Annotated[float, typer.Option(help="Share of examples trained without their condition.")] = 0.2,
    noises_per_example: Annotated[int, typer.Option(help="Timesteps and noises drawn for each example of a step.")] = 1,
    longest_goal: Annotated[int, typer.Option(help="How many later states of a trajectory serve as goals for each; more than 1 for chains.")] = 1,
    epoch_share: Annotated[float, typer.Option(help="Share of the data in an epoch, drawn anew for each.")] = 1.0,
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.999,
    weight_decay: Annotated[float, typer.Option(help="AdamW's weight decay.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of weights, data order, timesteps and noise.")] = 0,
    evaluate_every: Annotated[int, typer.Option(help="Epochs between validations.")] = 1,
    picture_every: Annotated[int, typer.Option(help="Epochs between pictures.")] = 10,
    num_validation: Annotated[int, typer.Option(help="Validation sequences measured after an epoch.")] = 128,
    num_threads: Annotated[int, typer.Option(help="Torch's threads; 0 leaves its choice.")] = 0,
    wandb: Annotated[str, typer.Option(help="offline, online or disabled.")] = "offline",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
) -> None:  # fmt: skip
    """Train a denoiser; takes the original script's arguments under their names."""
    minimal = architecture == "minimal"
    settings = RunSettings(
        data_dir=data_dir,
        val_data_dir=val_data_dir,
        save_dir=save_dir,
        model=ModelConfig(
            architecture=architecture,
            d_model=d_model,
            num_layers=num_layers,
            nhead=nhead,
            condition=_choose(condition, "none" if minimal else "sketch"),
        ),
        training=TrainingConfig(
            num_epochs=num_epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            ema_decay=ema_decay,
            condition_dropout=condition_dropout,
            noises_per_example=noises_per_example,
            longest_goal=longest_goal,
            epoch_share=epoch_share,
            seed=seed,
            evaluate_every=evaluate_every,
            picture_every=picture_every,
            num_validation=num_validation,
            device=device,
            num_threads=num_threads or None,
            wandb_project=wandb_project,
            wandb_mode=wandb,
        ),
        schedule=NoiseSchedule(
            beta_schedule=_choose(beta_schedule, "linear" if minimal else "cosine"),
            prediction_type=_choose(prediction_type, "epsilon" if minimal else "v_prediction"),
            timestep_spacing=_choose(timestep_spacing, "linspace" if minimal else "trailing"),
        ),
        representation=_choose(representation, "raw" if minimal else "auto"),
        sequence_length=sequence_length,
        patch_size=patch_size,
        channels=tuple(channels.split(",")),
        action_low=_numbers("--action-low", action_low),
        action_high=_numbers("--action-high", action_high),
        resume=resume,
        overwrite=overwrite,
    )
    with _progress() as bar:
        task = bar.add_task("training", total=None, line="")
        checkpoint = train_run(
            settings,
            progress=lambda done, total, line: bar.update(
                task, completed=done, total=total, line=line
            ),
        )
    _report(checkpoint, save_dir)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, ours or the original script's.")],
    data: Annotated[Path, typer.Argument(help="Held-out data, in a format the model was trained on.")],
    steps: Annotated[list[int], typer.Option("--steps", help="Denoiser steps N; may be repeated.")] = [10],
    train_data: Annotated[Path | None, typer.Option(help="Its training gestures, to measure memorisation.")] = None,
    split: Annotated[str, typer.Option(help="Split of a folder with a manifest.")] = "validation",
    num_sequences: Annotated[int, typer.Option(help="Held-out sequences to use; 0 for all.")] = 0,
    num_generated: Annotated[int, typer.Option(help="Sequences to generate.")] = 2000,
    nhead: Annotated[int, typer.Option(help="Head count of an original checkpoint.")] = 0,
    seed: Annotated[int, typer.Option(help="Of all noise.")] = 0,
    clip: Annotated[bool, typer.Option(help="Clip x0 to the action bounds while sampling.")] = True,
    num_threads: Annotated[int, typer.Option(help="Torch's threads; 0 leaves its choice.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write {protocol: {num_inference_steps: {measure: value}}}.")] = None,
) -> None:  # fmt: skip
    """Measure recreation and generation, by protocol, for several numbers of denoiser steps."""
    if num_threads < 0:
        raise ConfigError(f"num_threads must be at least 0; found {num_threads}")
    if num_threads:
        torch.set_num_threads(num_threads)
    loaded = load_checkpoint(checkpoint, nhead or None)
    model = loaded.model
    held_out = open_examples(data, model.action_spec, model.config.condition, split)
    training = None
    if train_data is not None:
        training = read_flat_actions(train_data, model.action_spec).actions
    evaluation = Evaluation(
        held_out, training, num_sequences or None, num_generated=num_generated, seed=seed, clip=clip
    )
    results = evaluate_model(
        model, evaluation, steps, report=lambda line: console.print(f"[dim]measuring {line}[/dim]")
    )
    _print_table(results)
    if json_file is not None:
        _write_json(results, json_file)


def _choose(value: str, automatic: str) -> str:
    return automatic if value == "auto" else value


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option} must be numbers with commas between; found {text!r}"
        ) from error


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[line]}"),
        console=console,
    )


def _report(checkpoint: Checkpoint, save_dir: Path) -> None:
    measured = {key: value for key, value in checkpoint.metrics.items() if isinstance(value, dict)}
    _print_table(measured)
    spec: ActionSpec = checkpoint.model.action_spec
    parameters = sum(weight.numel() for weight in checkpoint.model.parameters())
    console.print(
        f"{parameters:,} parameters, representation {spec.representation}; the checkpoint, "
        f"metrics.jsonl and pictures are in {save_dir}"
    )


def _print_table(results: Results) -> None:
    """Print at full width: a narrow terminal wraps lines, but no digit is cut off."""
    table = _table(results)
    natural = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(width=max(natural, console.width)).print(table)


def _table(results: Results) -> Table:
    """The measures that matter most; --json has all of them."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("protocol", no_wrap=True)
    for heading in ("N", *COLUMNS):
        table.add_column(heading, justify="right", no_wrap=True)
    for protocol, by_steps in results.items():
        for num_inference_steps, measures in by_steps.items():
            cells = (
                f"{measures[name]:.3g}" if name in measures else "" for name in COLUMNS.values()
            )
            table.add_row(protocol, num_inference_steps, *cells)
    return table


def _write_json(results: Results, path: Path) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(strict_json(results, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error})") from error
