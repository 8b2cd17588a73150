"""The `vj2-ddim` command: a Typer app whose subcommands are imported only when called.

Each entry of `COMMANDS` names the module that holds the command, beside the code it runs, and the
extra it needs; where that is missing, the error names the exact install.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vj2_ddim_plugin.errors import ConfigError, VJ2DDIMError

if TYPE_CHECKING:
    import typer

__all__ = ["COMMANDS", "Command", "build_app", "main"]


@dataclass(frozen=True)
class Command:
    """One subcommand: its module, the function or app in it, its extra, and a line of help."""

    module: str
    attribute: str
    extra: str
    help: str


COMMANDS = {
    "data": Command(
        "vj2_ddim_training.data.commands", "app", "train", "Generate and inspect gesture data."
    ),
    "train": Command(
        "vj2_ddim_training.commands", "train", "train", "Train a denoiser on gestures or latents."
    ),
    "evaluate": Command(
        "vj2_ddim_training.commands", "evaluate", "train", "Measure a checkpoint, by protocol."
    ),
    "export": Command(
        "vj2_ddim_export.commands", "export", "export", "Turn a checkpoint into an ONNX bundle."
    ),
    "inspect": Command(
        "vj2_ddim_plugin.commands", "inspect", "cli", "Say all there is to know about a bundle."
    ),
    "doctor": Command(
        "vj2_ddim_plugin.commands",
        "doctor",
        "cli",
        "Say what this machine can do, and why CUDA did not load.",
    ),
    "adapters": Command(
        "vj2_ddim_plugin.adapters.commands",
        "adapters",
        "cli",
        "List the host planners this can stand in for.",
    ),
    "plan": Command("vj2_ddim_training.plan", "plan", "cli", "Plan from the shell with a bundle."),
    "world": Command(
        "vj2_ddim_benchmark.world_model.commands",
        "app",
        "benchmark",
        "Collect touch-screen data and train the world model.",
    ),
    "benchmark": Command(
        "vj2_ddim_benchmark.commands",
        "benchmark",
        "benchmark",
        "Compare planners on unseen touch screens.",
    ),
    "report": Command(
        "vj2_ddim_benchmark.protocol.report_command",
        "report",
        "benchmark",
        "Rebuild a benchmark run's tables and pictures, as Markdown and HTML.",
    ),
    "latency": Command(
        "vj2_ddim_benchmark.latency_commands",
        "latency",
        "benchmark",
        "Time one plan against the original script's torch sampler.",
    ),
    "pressure": Command(
        "vj2_ddim_benchmark.pressure_commands",
        "pressure",
        "benchmark",
        "Measure overhead, deadlines under load, memory and threads.",
    ),
    "scale": Command(
        "vj2_ddim_benchmark.scale.commands",
        "scale",
        "benchmark",
        "Time one plan through a predictor of VJ2-GUI's size.",
    ),
    "two-room": Command(
        "vj2_ddim_benchmark.two_room.commands",
        "two_room",
        "benchmark",
        "Compare with stable-worldmodel's solvers, in its own world and evaluation.",
    ),
    "benchmark-denoiser": Command(
        "vj2_ddim_benchmark.assets.commands",
        "benchmark_denoiser",
        "benchmark",
        "Train a denoiser on less data, or in another representation.",
    ),
    "benchmark-tune": Command(
        "vj2_ddim_benchmark.tune_commands",
        "benchmark_tune",
        "benchmark",
        "Tune the planners on validation screens.",
    ),
}


def _load(name: str) -> Any:  # noqa: ANN401
    """The function or Typer app behind a subcommand.

    Raises:
        ConfigError: Its extra is not installed.
    """
    command = COMMANDS[name]
    try:
        return getattr(importlib.import_module(command.module), command.attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"'vj2-ddim {name}' needs the module {error.name!r}, which is not installed. Run: "
            f"pip install 'vj2-ddim-plugin[{command.extra}]'"
        ) from error


def build_app() -> typer.Typer:
    """The Typer app. Subcommands stand in by name until one is called."""
    import typer
    from typer.core import TyperGroup

    class LazyGroup(TyperGroup):
        """Replaces the stand-in of a subcommand by the real one when it is to run."""

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
            """Import the subcommand; its line of help needs no import."""
            name, stand_in, rest = super().resolve_command(ctx, args)
            if name is None or stand_in is None:
                return name, stand_in, rest
            target = _load(name)
            if not isinstance(target, typer.Typer):
                wrapper = typer.Typer(add_completion=False)
                wrapper.command(name=name)(target)
                target = wrapper
            command = typer.main.get_command(target)
            command.name = name
            return name, command, rest

    app = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Train, export, run and benchmark a DDIM optimizer for latent world-model planners.",
    )
    for name, command in COMMANDS.items():
        app.command(name, help=command.help)(lambda: None)

    @app.callback(invoke_without_command=True)
    def version(
        show: bool = typer.Option(False, "--version", help="Print the version and exit."),
    ) -> None:
        if show:
            from vj2_ddim_plugin import __version__

            typer.echo(f"vj2-ddim-plugin {__version__}")
            raise typer.Exit

    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the project's errors end it with one readable message and status 1.

    Options may be spelled with dashes or underscores, as the original script's are.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        build_app()(args=[_with_dashes(word) for word in arguments], prog_name="vj2-ddim")
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(
            f"vj2-ddim needs {error.name!r}, which is not installed. Run: "
            f"pip install 'vj2-ddim-plugin[cli]'"
        )
    except (VJ2DDIMError, OSError) as error:  # OSError: a full disk, a folder without permission
        sys.stderr.write(f"vj2-ddim: error: {error}\n")
        sys.exit(1)


def _with_dashes(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
