"""`vj2-ddim benchmark assets`: what is trained is imported when work begins."""

from pathlib import Path
from typing import Annotated

import typer

from vj2_ddim_benchmark.assets.settings import AssetSettings, VariantSettings
from vj2_ddim_plugin.cli.console import progress_bars, say
from vj2_ddim_plugin.cli.options import options

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Make the trained parts anew, or other denoisers.",
)


Out = Annotated[Path, typer.Option(help="Its folder; a training that was cut short goes on.")]


@app.command()
def build(
    out: Out,
    threads: Annotated[int, typer.Option(min=1, help="Torch's threads.")] = 1,
    small: Annotated[
        bool, typer.Option("--small", help="As small as in the demonstration.")
    ] = False,
) -> None:
    """Collect, train and export all that is shipped: world model, denoiser, ranker, amortised."""
    from vj2_ddim_benchmark.assets.build import best_of, build_assets

    with progress_bars() as progress:
        settings = AssetSettings.small() if small else AssetSettings()
        assets = build_assets(out, settings, progress, threads)
    say(
        f"one sample reaches {best_of(assets.denoiser)['success']:.1%} of validation goals; in {out}"
    )


@app.command()
@options
def denoiser(
    settings: VariantSettings,
    out: Out,
    world_model: Annotated[
        Path | None, typer.Option(help="Another world model than the shipped.")
    ] = None,
) -> None:
    """Train and export a denoiser as the shipped one, on less data or in another representation.

    `vj2-ddim benchmark run --study denoisers --study-bundle NAME=OUT/bundle` compares them.
    """
    from vj2_ddim_benchmark.assets import shipped_assets
    from vj2_ddim_benchmark.assets.build import best_of, build_variant

    with progress_bars() as progress:
        model = world_model or shipped_assets().world_model
        bundle = build_variant(out, settings, model, progress)
    success = best_of(out / "denoiser")["success"]
    say(f"one sample reaches {success:.1%} of validation goals; bundle in {bundle}")
