"""`vj2-ddim benchmark`: its commands and their options; the work is imported when it begins."""

from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_benchmark.assets.settings import AmortiseSettings, RivalSettings
from vj2_ddim_benchmark.settings import (
    AMORTISED,
    SHIPPED_PAGES,
    TUNED_DIR,
    ComparisonSettings,
    CostSettings,
    EncoderStudySettings,
    LatencySettings,
    PredictorSize,
    PressureSettings,
    RaceSettings,
    ReadingSpeedSettings,
    RecreationSettings,
    ScaleSettings,
    ServingSettings,
    TuneSettings,
)
from vj2_ddim_benchmark.studies import StudySettings
from vj2_ddim_plugin.cli.app import Command, lazy_app
from vj2_ddim_plugin.cli.console import progress_bars, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.files import write_json

HERE, INSTALL = "vj2_ddim_benchmark", "vj2-ddim-benchmark"
COMMANDS = {
    name: Command(f"{HERE}.{target}", INSTALL, words)
    for name, target, words in (
        ("run", "commands:run", "Race planners on unseen touch screens, and write a report."),
        ("report", "commands:report", "Rebuild a run's tables and pictures."),
        ("tune", "commands:tune", "Tune the planners on validation screens."),
        ("world", "world_model.commands:app", "Collect data and train the world model."),
        ("assets", "assets.commands:app", "Make the trained parts anew, or other denoisers."),
        ("latency", "commands:latency", "Time a plan against the original's sampler."),
        ("pressure", "commands:pressure", "Overhead, deadlines under load, memory."),
        ("reading", "commands:reading", "Read latents against loading whole files."),
        ("serving", "commands:serving", "Time served plans, and kill replicas meanwhile."),
        ("scale", "commands:scale", "Time a plan through a predictor of VJ2-GUI's size."),
        ("training", "commands:training", "Time training against the original's algorithm."),
        ("recreation", "commands:recreation", "Recreate gestures: chance, a VAE, denoisers."),
        ("encoder", "commands:encoder", "See screens through an encoder of others."),
        ("two-room", "commands:two_room", "Compare in stable-worldmodel's own world."),
        ("browser", "browser_commands:app", "Touch pages of a UI kit in a real browser."),
        ("rivals", "commands:rivals", "Train amortised planners and ours alike, by seeds."),
        ("amortise", "commands:amortise", "Train one amortised planner, to race on pages."),
    )
}

app = lazy_app(COMMANDS, help="Compare planners on unseen touch screens.")

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
Bundle = Annotated[Path, typer.Argument(help="The bundle to plan with.")]


@options
def run(
    settings: RaceSettings,
    studies: StudySettings,
    out: Annotated[Path, typer.Option(help="The run's folder; a run that was cut short resumes.")],
    retrain: Annotated[bool, typer.Option("--retrain", help="Make anew all that is shipped, and use that.")] = False,
    small_sampler: Annotated[bool, typer.Option("--small-sampler", help="First train and export a small one, to race too.")] = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Compare planners on unseen touch screens, with the shipped trained parts unless told."""
    from vj2_ddim_benchmark.benchmark import run as race
    from vj2_ddim_benchmark.report.page import print_rows

    measured = race(settings, studies, out, retrain=retrain, small_sampler=small_sampler)
    write_json(json_file, measured[0])
    for rows in measured:
        print_rows(rows)
    say(f"report, pictures and raw results in {out}")


def report(
    run: Annotated[
        Path, typer.Argument(help="The run's folder, or a summary.json, recorded results too.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes; the run's folder unless told.")
    ] = None,
) -> None:
    """Rebuild a run's tables and pictures from its raw results: Markdown and one HTML page."""
    from vj2_ddim_benchmark.report.page import print_rows, rebuild_report

    target = out or (run if run.is_dir() or not run.exists() else run.parent)
    rows = rebuild_report(run, target)
    print_rows(rows)
    say(f"wrote {target / 'report.md'} and {target / 'report.html'}")


@options
def tune(
    settings: TuneSettings,
    out: Annotated[Path, typer.Option(help="The folder of the recorded sweeps.")] = TUNED_DIR,
) -> None:
    """Tune the planners that have settings to tune on validation screens, and record the sweep."""
    from vj2_ddim_benchmark import tuning

    tuning.tune(settings, out)


@options
def latency(bundle: Bundle, settings: LatencySettings, json_file: JsonFile = None) -> None:
    """Time one plan at batch 1, in turns with the original script's torch sampler."""
    from vj2_ddim_benchmark.timing import latency

    latency.latency(bundle, settings, json_file)


@options
def pressure(
    bundle: Bundle,
    settings: PressureSettings,
    world_model: Annotated[Path | None, typer.Option(help="Whose cost ranks; a stand-in of 1 ms a candidate if none.")] = None,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure overhead, deadlines on a busy machine, memory over many plans, and many threads."""
    from vj2_ddim_benchmark.timing import pressure

    pressure.pressure(bundle, settings, world_model, json_file)


@options
def reading(settings: ReadingSpeedSettings, json_file: JsonFile = None) -> None:
    """Read shuffled transitions at V-JEPA 2's shapes, in turns with a plain loop over whole files."""
    from vj2_ddim_benchmark.timing import reading

    reading.reading(settings, json_file)


@options
def serving(bundle: Bundle, settings: ServingSettings, json_file: JsonFile = None) -> None:
    """Time served plans in turns with local ones, and count what killed replicas lose."""
    from vj2_ddim_benchmark.timing import serving

    serving.serving(bundle, settings, json_file)


@options
def scale(
    size: PredictorSize,
    settings: ScaleSettings,
    bundle: Annotated[Path | None, typer.Option(help="Trained; random weights if none.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Time one plan at VJ2-GUI's scale, by gradient descent and by DDIM, in turns."""
    from vj2_ddim_benchmark.timing import scale

    scale.scale(size, settings, bundle, json_file)


@options
def training(settings: CostSettings, json_file: JsonFile = None) -> None:
    """Time an epoch, and to equal quality, of the original's algorithm, minimal and dit in turns."""
    from vj2_ddim_benchmark.training_cost import training_cost

    with progress_bars() as progress:
        training_cost(settings, json_file, progress)


@options
def recreation(settings: RecreationSettings, json_file: JsonFile = None) -> None:
    """Recreate held-out gestures by chance, by a VAE, and by denoisers, under the same protocols."""
    from vj2_ddim_benchmark import recreation

    recreation.recreation(settings, json_file)


@options
def encoder(
    out: Annotated[Path, typer.Option(help="The study's folder; one that was cut short goes on.")],
    settings: EncoderStudySettings,
    json_file: JsonFile = None,
) -> None:
    """Train one denoiser on the world model's own latents and one on a text detector's."""
    from vj2_ddim_benchmark import encoder_study

    encoder_study.encoder_study(out, settings, json_file)


@options
def rivals(
    out: Annotated[Path, typer.Option(help="Its folder; one that was cut short goes on.")],
    settings: RivalSettings,
    json_file: JsonFile = None,
) -> None:
    """Train our denoiser and amortised planners with equal steps and data, and compare them by seeds."""
    from vj2_ddim_benchmark import rivals

    rivals.rivals(out, settings, json_file)


@options
def amortise(
    kind: Annotated[str, typer.Argument(help=f"What it predicts: one of {', '.join(AMORTISED)}.")],
    settings: AmortiseSettings,
    data_dir: Annotated[Path, typer.Option(help="The denoiser's training data, latents.")],
    out: Annotated[Path, typer.Option(help="Its file; a training cut short goes on by OUT.training.")],
    bundle: Annotated[Path, typer.Option(help="The denoiser whose actions it plans.", show_default="the shipped one of pages")] = SHIPPED_PAGES / "bundle",
) -> None:  # fmt: skip
    """Train one amortised planner on latents, as a denoiser of its size is trained."""
    from vj2_ddim_benchmark.assets.build import amortise

    with progress_bars() as progress:
        model = amortise(kind, data_dir, bundle, settings, out, progress)
    parameters = sum(weight.numel() for weight in model.parameters())
    say(f"{parameters:,} parameters; {out} races by --amortised {kind}={out}")


@options
def two_room(
    out: Annotated[Path, typer.Option(help="The comparison's folder; a run that was cut short resumes.")],
    settings: ComparisonSettings,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Collect, train and compare on TwoRoom; needs requirements-hosts.txt installed."""
    from vj2_ddim_benchmark.two_room import compare

    compare.two_room(out, settings, json_file)
