"""`vj2-ddim benchmark browser`: what is installed, whether it repeats itself, and its data.

The browser's parts are imported when work begins.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_benchmark.settings import (
    SHIPPED_PAGES,
    BrowserCheckSettings,
    BrowserCollectSettings,
    BrowserFiles,
    BrowserRaceSettings,
    BrowserTuneSettings,
    BrowserWatchSettings,
)
from vj2_ddim_plugin.cli.console import print_findings, print_table, progress_bars, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.files import write_json

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Pages of a mobile UI kit, or of MiniWoB++, in a headless browser."
)

SHIPPED = "the shipped one"
Bundle = Annotated[Path, typer.Argument(help="A denoiser trained on pages.", show_default=SHIPPED)]
Model = Annotated[
    Path, typer.Argument(help="Trained on them too; all plan through it.", show_default=SHIPPED)
]
Tuned = Annotated[
    Path, typer.Option(help="The folder of the recorded sweeps.", show_default=SHIPPED)
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]


@app.command()
def doctor(
    install: Annotated[bool, typer.Option("--install", help="Install what is missing, as far as this user may.")] = False,
) -> None:  # fmt: skip
    """Say what is here of browser, kit, MiniWoB++ and text detector, and how to install the rest.

    Without the last two only their pages, and the shipped world model, cannot be had.
    """
    from vj2_ddim_benchmark.browser import miniwob
    from vj2_ddim_benchmark.browser.kit import Installation, install_package
    from vj2_ddim_benchmark.world_model import text_detector

    installed = Installation.find()
    optional = {
        "miniwob": (miniwob.installed_html, miniwob.INSTALL),
        "text detector": (text_detector.installed_graph, text_detector.INSTALL),
    }
    if install:
        installed.install()
        for find, command in optional.values():
            if find() is None:
                install_package(command)
    missing = installed.missing()
    told = {
        name: find() or f"not installed (may be left out); run: {command}"
        for name, (find, command) in optional.items()
    }
    print_findings({"browser": installed.binary, "kit": installed.kit, **told})
    for what, words in missing.items():
        say(f"{what}; run: {' '.join(words)}")
    if missing:
        raise typer.Exit(1)
    say("all is here")


@app.command()
@options
def check(settings: BrowserCheckSettings, json_file: JsonFile = None) -> None:
    """Repeat gestures on every kind of widget or task, and count what is equal to a new browser's."""
    from vj2_ddim_benchmark.browser import check as gate

    with progress_bars() as progress:
        found = gate.check(settings, progress)
    rows = [
        (kind, *each.values()) for kind, each in {**found["kinds"], "all": found["total"]}.items()
    ]
    headings = ("kind", *(name.replace("_", " ") for name in gate.COUNTS))
    print_table(rows, headings, numbers=True)
    for browsers, speed in found["speed"].items():
        say(
            f"{speed['per_second']:.1f} transitions a second by {browsers} at once, {speed['lost']} lost"
        )
    say(f"{found['browser_mb']:.0f} MB a browser; load {found['load_before'][0]:.1f}")
    write_json(json_file, found)
    total = found["total"]
    if not total["repeats"] - total["lost"] == total["equal_states"] == total["equal_pixels"]:
        raise typer.Exit(1)


@app.command()
@options
def collect(
    out: Annotated[Path, typer.Option(help="The HDF5 file to write.")],
    settings: BrowserCollectSettings,
) -> None:
    """Touch pages with scripted and random gestures and write what happened.

    Stopped halfway, the same command goes on with what is in OUT.parts.
    """
    from vj2_ddim_benchmark.browser.collect import collect_pages
    from vj2_ddim_benchmark.world.collect import save_transitions

    with progress_bars() as progress:
        parts = Path(f"{out}.parts")
        transitions, report = collect_pages(settings, progress, parts)
    save_transitions(out, transitions, {"world": "browser", **settings.to_dict()})
    shutil.rmtree(parts)
    say(
        f"{report['transitions']} transitions in {out}, {report['per_second']:.1f} a second; {report['lost']} were lost and made again"
    )


@app.command()
@options
def race(
    settings: BrowserRaceSettings,
    files: BrowserFiles,
    bundle: Bundle = SHIPPED_PAGES / "bundle",
    world_model: Model = SHIPPED_PAGES / "world_model.pt",
    tuned: Tuned = SHIPPED_PAGES / "tuned",
    json_file: JsonFile = None,
) -> None:
    """Race planners on unseen pages, which they touch for real."""
    from vj2_ddim_benchmark.browser import race as pages

    with progress_bars() as progress:
        found = pages.race_on_pages(
            bundle, world_model, settings, progress, tuned=tuned, files=files
        )
    rows = [
        (
            name,
            f"{of['success']:.1%}",
            f"{of['low']:.0%} to {of['high']:.0%}",
            f"{of['p50_ms']:.1f}",
        )
        for name, of in found["planners"].items()
    ]
    print_table(rows, ("planner", "reached", "95 %", "p50 ms"), numbers=True)
    if found["moved_by_mouse"]:
        say(f"moved by a mouse, no touch moves them: {', '.join(found['moved_by_mouse'])}")
    chains = [
        (name, length, f"{of['success']:.1%}", f"{of['low']:.0%} to {of['high']:.0%}")
        for name, lengths in found["chains"].items()
        for length, of in lengths.items()
    ]
    if chains:
        print_table(chains, ("planner", "gestures", "reached", "95 %"), numbers=True)
    write_json(json_file, found)


@app.command()
@options
def tune(
    settings: BrowserTuneSettings,
    files: BrowserFiles,
    out: Annotated[Path, typer.Option(help="The folder to write the sweeps to.")],
    bundle: Bundle = SHIPPED_PAGES / "bundle",
    world_model: Model = SHIPPED_PAGES / "world_model.pt",
) -> None:
    """Tune planners on validation pages, which they touch for real, and record the sweeps."""
    from vj2_ddim_benchmark.browser.tune import tune_on_pages
    from vj2_ddim_benchmark.planners.sweep import tell

    with progress_bars() as progress:
        found = tune_on_pages(bundle, world_model, settings, out, progress, files)
    tell(found)


@app.command()
@options
def watch(
    settings: BrowserWatchSettings,
    bundle: Bundle = SHIPPED_PAGES / "bundle",
    world_model: Model = SHIPPED_PAGES / "world_model.pt",
    tuned: Tuned = SHIPPED_PAGES / "tuned",
    out: Annotated[Path | None, typer.Option(help="Write .gif, .webp or .png (animated); unless told, show it in a window.")] = None,
) -> None:  # fmt: skip
    """Watch a planner plan and touch on unseen pages, as a film or in a window."""
    from vj2_ddim_benchmark.browser import film
    from vj2_ddim_benchmark.browser.watch import watch_pages

    shots: list[film.Shot] = []
    if out is not None:
        film.checked_format(out)
    show = film.Window().play if out is None else shots.extend
    with progress_bars() as progress:
        reached = watch_pages(bundle, world_model, settings, show, progress, tuned=tuned)
    if out is not None:
        film.save_film(out, shots)
    say(f"{reached} of {settings.num_goals} goals reached" + (f"; see {out}" if out else ""))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder of the pictures.")],
    num: Annotated[int, typer.Option(min=1, help="Goals.")] = 10,
    split: Annotated[str, typer.Option(help="train, validation or test: whose pages.")] = "test",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Reach goals by scripted gestures, and draw it."""
    from vj2_ddim_benchmark.browser.demo import draw_goals

    reached = draw_goals(out, num=num, split=split, seed=seed)
    say(f"{reached} of {num} goals reached; pictures in {out}")
