"""`vj2-ddim train`, `train-ranker`, `distill` and `evaluate`.

Torch and all that needs it are imported when work begins: help and usage errors come at once.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vj2_ddim_plugin.cli.console import print_findings, print_table, progress_bars, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import declared
from vj2_ddim_training.by_name import COSTS, JUDGES, find_by_name
from vj2_ddim_training.config import (
    BY_NAME,
    DataSettings,
    DistillConfig,
    EvaluationSettings,
    JudgeSettings,
    ModelConfig,
    RankerConfig,
    TrainingConfig,
)
from vj2_ddim_training.config_file import read_config
from vj2_ddim_training.data.settings import ReadingSettings

__all__ = ["distill", "evaluate", "train", "train_ranker"]

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
LongestGoal = Annotated[int | None, typer.Option(help="As the model's if not told.", min=1)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="Torch's; 0 leaves its choice.", min=0, max=1024)]
Judge = Annotated[str | None, typer.Option(help=f"Measures success, chooses the epoch: {BY_NAME}.")]
SPREAD = ("mean_snr_db", "mse")  # shown with their standard deviation over the sequences


def _told_by(context: typer.Context, file: Path | None) -> Path | None:
    """Let a file say what the command line does not."""
    if file is not None:
        context.default_map = {
            name: ",".join(map(str, value)) if isinstance(value, list) else value
            for name, value in read_config(file).items()
        }
    return file


@options
def train(
    context: typer.Context,
    data: DataSettings,
    model: ModelConfig,
    training: TrainingConfig,
    schedule: NoiseSchedule,
    judging: JudgeSettings,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file of settings, by these names with underscores; what is told here wins.",
            is_eager=True,
            callback=_told_by,
        ),
    ] = None,
) -> None:
    """Train a denoiser; takes the original script's arguments under their names.

    --architecture minimal is the original script's in all that is not said otherwise.
    """
    from vj2_ddim_training.run import settings_of_run, settings_of_start, train_run

    groups = (data, model, training, schedule, judging)
    told = {
        name: getattr(group, name)
        for group in groups
        for name in declared(type(group))
        if (source := context.get_parameter_source(name))
        and source.name in ("COMMANDLINE", "DEFAULT_MAP")
    }
    settings = settings_of_run(data.save_dir, told) if data.resume else settings_of_start(told)
    with progress_bars() as progress:
        checkpoint = train_run(settings, partial(progress, "training"), report=say)
    _print_results({key: of for key, of in checkpoint.metrics.items() if isinstance(of, dict)})
    parameters = sum(weight.numel() for weight in checkpoint.model.parameters())
    say(
        f"{parameters:,} parameters; the checkpoint, report.html, metrics.jsonl and pictures are "
        f"in {data.save_dir}"
    )


@options
def train_ranker(
    checkpoint: Annotated[Path, typer.Argument(help="The model that it ranks for.")],
    data: Annotated[Path, typer.Argument(help="Training data of the model's kind.")],
    config: RankerConfig,
    reading: ReadingSettings,
    cost: Annotated[str, typer.Option(help=f"The planner's cost: {BY_NAME}.")],
    judge: Judge = None,
    out: Annotated[Path | None, typer.Option(help="ranker.pt beside it unless told.")] = None,
    longest_goal: LongestGoal = None,
    device: Device = "auto",
    num_threads: Threads = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a ranker.")] = False,
) -> None:
    """Train a ranker for a checkpoint; stopped halfway, the same command goes on.

    Without a judge, the share of held-out problems whose cheapest candidate is picked chooses.
    """
    from vj2_ddim_training import resumable
    from vj2_ddim_training.ranker import training as ranker_training
    from vj2_ddim_training.ranker.network import save_ranker

    file = out or checkpoint.with_name("ranker.pt")
    _require_new(file, overwrite)
    loaded, examples = _of_kind(checkpoint, data, reading, longest_goal, device, num_threads)
    resume_file = file.with_name(f"{file.name}.resume")
    success = None if judge is None else find_by_name(JUDGES, judge, "judge")
    of = find_by_name(COSTS, cost, "cost")
    how: Any = {"keep_best": True, "success": success, "resume_file": resume_file}
    with progress_bars() as progress:
        trained = ranker_training.train_ranker(loaded.model, examples, of, config, progress, **how)
    save_ranker(trained, file)
    resumable.forget(resume_file)
    print_findings({name: f"{value:.3f}" for name, value in trained.metrics.items()})
    say(f"the ranker is in {file}")


def _require_new(file: Path, overwrite: bool) -> None:
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} is there already; pass overwrite=True, or name another with out")


def _of_kind(
    checkpoint: Path, data: Path, reading: ReadingSettings, longest_goal: int | None,
    device: str, num_threads: int,
) -> tuple[Any, Any]:  # fmt: skip
    """A checkpoint, its model on the device, and training examples of its kind."""
    import torch

    from vj2_ddim_training.checkpoint import load_checkpoint
    from vj2_ddim_training.devices import choose_device
    from vj2_ddim_training.examples import open_examples, require_same_norm

    if num_threads:
        torch.set_num_threads(num_threads)
    loaded = load_checkpoint(checkpoint)
    model = loaded.model.to(choose_device(device))
    goal = longest_goal or loaded.training.get("config", {}).get("longest_goal", 1)
    of_kind = model.action_spec, model.config.condition
    examples = open_examples(data, *of_kind, longest_goal=goal, reading=reading)
    require_same_norm(loaded.provenance.get("layer_normed"), examples, data)
    return loaded, examples


@options
def distill(
    checkpoint: Annotated[Path, typer.Argument(help="The teacher.")],
    data: Annotated[Path, typer.Argument(help="Training data of the teacher's kind.")],
    out: Annotated[Path, typer.Option(help="The student's folder.")],
    config: DistillConfig,
    reading: ReadingSettings,
    judge: Judge = None,
    ranker: Annotated[
        Path | None,
        typer.Option(help="The teacher's; the student gets it, and --kept-share asks it."),
    ] = None,
    longest_goal: LongestGoal = None,
    device: Device = "auto",
    num_threads: Threads = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a student.")] = False,
) -> None:
    """Make a student that samples in a step or two; stopped halfway, the same command goes on."""
    from vj2_ddim_training import distillation
    from vj2_ddim_training.ranker import network

    file = out / "checkpoint.pt"
    _require_new(file, overwrite)
    teacher, examples = _of_kind(checkpoint, data, reading, longest_goal, device, num_threads)
    trained = None if ranker is None else network.load_ranker(ranker, teacher.model)
    success = None if judge is None else find_by_name(JUDGES, judge, "judge")
    with progress_bars() as progress:
        how = config, out, progress, trained, success
        student = distillation.distill_to(teacher, examples, *how)
    print_findings({name: f"{value:.3f}" for name, value in student.metrics.items()})
    say(f"the student is {file}, for {config.num_inference_steps} step(s) unless a plan says else")


@options
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Ours, or the original script's.")],
    data: Annotated[Path, typer.Argument(help="Held-out data, as the model was trained on.")],
    settings: EvaluationSettings,
    reading: ReadingSettings,
    steps: Annotated[list[int], typer.Option(help="Denoiser steps N; may be repeated.")] = [10],
    train_data: Annotated[Path | None, typer.Option(help="To measure memorisation.")] = None,
    split: Annotated[str, typer.Option(help="Of a folder with a manifest.")] = "validation",
    nhead: Annotated[int | None, typer.Option(help="Of original checkpoints.", min=1)] = None,
    num_threads: Threads = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all measures here.")
    ] = None,
    compare: Annotated[
        list[Path], typer.Option(help="Measure this checkpoint too; may be repeated.")
    ] = [],
    plots: Annotated[
        Path | None,
        typer.Option(help="A folder for pictures: by timestep, gesture type, epoch, model size."),
    ] = None,
) -> None:
    """Measure recreation and generation, by protocol, for several numbers of denoiser steps."""
    import torch

    from vj2_ddim_training.analysis import Analysis
    from vj2_ddim_training.checkpoint import load_checkpoint
    from vj2_ddim_training.run_folder import finite

    if num_threads:
        torch.set_num_threads(num_threads)
    analysis, found = Analysis(settings, steps[0]), {}
    measured = partial(_measured, data, split, reading, train_data, steps, settings)
    for path, loaded in {
        path: load_checkpoint(path, nhead) for path in (checkpoint, *compare)
    }.items():
        held_out, found[path] = measured(loaded, f"{path}, " if compare else "")
        if plots is not None:
            analysis.add(path, loaded.model, held_out, found[path])
    for path, results in found.items():
        _print_results(results, title=str(path) if compare else "")
    others = {"compared": {str(path): found[path] for path in compare}} if compare else {}
    write_json(json_file, finite({**found[checkpoint], **others}))
    if plots is not None:
        say(f"{', '.join(analysis.plot(plots))} are in {plots}")


def _measured(
    data: Path,
    split: str,
    reading: ReadingSettings,
    train_data: Path | None,
    steps: list[int],
    settings: EvaluationSettings,
    loaded: Any,  # noqa: ANN401
    name: str,
) -> tuple[Any, Any]:
    """Held-out examples for a checkpoint, and all measures of it."""
    from vj2_ddim_training.data.gesture_files import read_flat_actions
    from vj2_ddim_training.evaluation import evaluate as evaluate_model
    from vj2_ddim_training.examples import open_examples, require_same_norm

    model, condition = loaded.model, loaded.model.config.condition
    held_out = open_examples(data, model.action_spec, condition, split, reading=reading)
    require_same_norm(loaded.provenance.get("layer_normed"), held_out, data)
    seen = None
    if train_data is not None:
        own = replace(reading, manifest=None)
        seen = read_flat_actions(train_data, model.action_spec, reading=own).actions

    def report(line: str) -> None:
        say(f"measuring {name}{line}", style="dim")

    how: dict[str, Any] = {"training": seen, "report": report}
    return held_out, evaluate_model(model, held_out, steps, settings, **how)


def _print_results(results: Mapping[str, Any], title: str = "") -> None:
    """The measures that matter most, some with their spread; --json has all of them."""
    rows = [
        (protocol, steps, *(_cell(of, name) for name in COLUMNS.values()))
        for protocol, by_steps in results.items()
        for steps, of in by_steps.items()
    ]
    print_table(rows, ("protocol", "N", *COLUMNS), title=title, numbers=True)


def _cell(of: Mapping[str, float], name: str) -> str:
    if name not in of:
        return ""
    spread = f" ±{of[f'{name}_std']:.2g}" if name in SPREAD and f"{name}_std" in of else ""
    return f"{of[name]:.3g}{spread}"
