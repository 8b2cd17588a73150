"""`vj2-ddim train`, `vj2-ddim train-ranker` and `vj2-ddim evaluate`.

Torch and all that needs it are imported when work begins: help and usage errors come at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from vj2_ddim_plugin.cli.console import print_findings, print_table, progress_bars, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.settings import declared
from vj2_ddim_training.config import (
    ORIGINAL_TRAINING,
    DataSettings,
    EvaluationSettings,
    ModelConfig,
    RankerConfig,
    RunSettings,
    TrainingConfig,
)

__all__ = ["evaluate", "find_by_name", "train", "train_ranker"]

JUDGES, COSTS = "vj2_ddim_training.judges", "vj2_ddim_training.costs"  # groups of entry points
BY_NAME = "NAME or MODULE:FUNCTION, with =ARGUMENT after it where it takes one"
ELSE = "Without it, the share of held-out problems whose cheapest candidate is picked"
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


@options
def train(
    context: typer.Context,
    data: DataSettings,
    model: ModelConfig,
    training: TrainingConfig,
    schedule: NoiseSchedule,
    judge: Annotated[
        str | None, typer.Option(help=f"What measures success and keeps best.pt: {BY_NAME}.")
    ] = None,
) -> None:
    """Train a denoiser; takes the original script's arguments under their names.

    --architecture minimal is the original script's in all that is not said otherwise.
    """
    from vj2_ddim_training.run import settings_of_run, train_run

    told = {
        name: getattr(group, name)
        for group in (data, model, training, schedule)
        for name in declared(type(group))
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    if data.resume:
        settings = settings_of_run(data.save_dir, told)
    else:
        if model.architecture == "minimal":
            of_schedule = {name: told[name] for name in declared(NoiseSchedule) if name in told}
            schedule = replace(ORIGINAL_SCHEDULE, **of_schedule)
            usual = {name: of for name, of in ORIGINAL_TRAINING.items() if name not in told}
            training = replace(training, **usual)
        whole = {name: getattr(data, name) for name in declared(DataSettings)}
        settings = RunSettings(**whole, model=model, training=training, schedule=schedule)
    measure = None if judge is None else find_by_name(JUDGES, judge, "judge")
    with progress_bars() as progress:
        checkpoint = train_run(settings, partial(progress, "training"), measure, say)
    _print_results({key: of for key, of in checkpoint.metrics.items() if isinstance(of, dict)})
    parameters = sum(weight.numel() for weight in checkpoint.model.parameters())
    say(
        f"{parameters:,} parameters; the checkpoint, metrics.jsonl and pictures are in "
        f"{data.save_dir}"
    )


@options
def train_ranker(
    checkpoint: Annotated[Path, typer.Argument(help="The model that it ranks for.")],
    data: Annotated[Path, typer.Argument(help="Training data of the model's kind.")],
    config: RankerConfig,
    cost: Annotated[str, typer.Option(help=f"The planner's cost: {BY_NAME}.")],
    judge: Annotated[
        str | None, typer.Option(help=f"Measures success, chooses the epoch: {BY_NAME}. {ELSE}.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="ranker.pt beside it unless told.")] = None,
    longest_goal: Annotated[
        int | None, typer.Option(help="As the model's if not told.", min=1)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    num_threads: Annotated[
        int | None, typer.Option(help="Torch's threads.", min=1, max=1024)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a ranker.")] = False,
) -> None:
    """Train a ranker for a checkpoint; stopped halfway, the same command goes on."""
    import torch

    from vj2_ddim_training.checkpoint import load_checkpoint
    from vj2_ddim_training.examples import open_examples
    from vj2_ddim_training.loop import choose_device
    from vj2_ddim_training.ranker import training as ranker_training
    from vj2_ddim_training.ranker.network import save_ranker

    file = out or checkpoint.with_name("ranker.pt")
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} is there already; pass overwrite=True, or name another with out")
    if num_threads:
        torch.set_num_threads(num_threads)
    loaded = load_checkpoint(checkpoint)
    model = loaded.model.to(choose_device(device))
    goal = longest_goal or loaded.training.get("config", {}).get("longest_goal", 1)
    examples = open_examples(data, model.action_spec, model.config.condition, longest_goal=goal)
    resume_file = file.with_name(f"{file.name}.resume")
    success = None if judge is None else find_by_name(JUDGES, judge, "judge")
    of = find_by_name(COSTS, cost, "cost")
    best = partial(ranker_training.train_ranker, keep="best", success=success)
    with progress_bars() as progress:
        trained = best(model, examples, of, config, progress, resume_file=resume_file)
    save_ranker(trained, file)
    for left in (resume_file, ranker_training.candidates_file(resume_file)):
        left.unlink(missing_ok=True)
    print_findings({name: f"{value:.3f}" for name, value in trained.metrics.items()})
    say(f"the ranker is in {file}")


@options
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Ours, or the original script's.")],
    data: Annotated[Path, typer.Argument(help="Held-out data, as the model was trained on.")],
    settings: EvaluationSettings,
    steps: Annotated[list[int], typer.Option(help="Denoiser steps N; may be repeated.")] = [10],
    train_data: Annotated[Path | None, typer.Option(help="To measure memorisation.")] = None,
    split: Annotated[str, typer.Option(help="Of a folder with a manifest.")] = "validation",
    nhead: Annotated[int, typer.Option(help="Head count of an original checkpoint.")] = 0,
    num_threads: Annotated[int, typer.Option(help="Torch's threads; 0 leaves its choice.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all measures here.")
    ] = None,
) -> None:
    """Measure recreation and generation, by protocol, for several numbers of denoiser steps."""
    import torch

    from vj2_ddim_training.checkpoint import load_checkpoint
    from vj2_ddim_training.data.gesture_files import read_flat_actions
    from vj2_ddim_training.evaluation import evaluate as evaluate_model
    from vj2_ddim_training.examples import open_examples
    from vj2_ddim_training.run_folder import strict_json

    if not 0 <= num_threads <= 1024:
        raise ConfigError(f"num_threads must be 0 to 1024; found {num_threads}")
    if num_threads:
        torch.set_num_threads(num_threads)
    model = load_checkpoint(checkpoint, nhead or None).model
    held_out = open_examples(data, model.action_spec, model.config.condition, split)
    seen = None
    if train_data is not None:
        seen = read_flat_actions(train_data, model.action_spec).actions

    def report(line: str) -> None:
        say(f"measuring {line}", style="dim")

    results = evaluate_model(model, held_out, steps, settings, training=seen, report=report)
    _print_results(results)
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(strict_json(results, indent=2) + "\n", encoding="utf-8")


def find_by_name(group: str, text: str, option: str) -> Callable[..., Any]:
    """What a word on the command line stands for: `NAME` or `MODULE:FUNCTION`, and `=ARGUMENT`.

    The name is of an entry point of the group. The function named is called with the argument, or
    with the empty text, and returns what is asked for.
    """
    name, _, argument = text.partition("=")
    known = {point.name: point for point in entry_points(group=group)}
    if name not in known and ":" not in name:
        raise ConfigError(
            f"{option} {name!r} is unknown; use MODULE:FUNCTION, or one of those installed: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    try:
        make = known.get(name, EntryPoint(name, name, group)).load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{option} {name!r} cannot be loaded: {error}") from error
    found: Callable[..., Any] = make(argument)
    return found


def _print_results(results: Mapping[str, Any]) -> None:
    """The measures that matter most; --json has all of them."""
    rows = [
        (protocol, steps, *(f"{of[name]:.3g}" if name in of else "" for name in COLUMNS.values()))
        for protocol, by_steps in results.items()
        for steps, of in by_steps.items()
    ]
    print_table(rows, ("protocol", "N", *COLUMNS), numbers=True)
