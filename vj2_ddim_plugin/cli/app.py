"""The `vj2-ddim` command: a Typer app whose subcommands are imported only when called.

Each entry of `COMMANDS` names where a command is, beside the code it runs, and what to install
where that is missing. `benchmark` is of another distribution: it, and commands of any other, are
found by the entry points of the group `vj2_ddim_plugin.commands`.

The library's errors speak Python (`num_threads=1`); here they are put into the words of the command
that ran (`--num-threads 1`).
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vj2_ddim_plugin.errors import ConfigError, OutputError, VJ2DDIMError, escaped

if TYPE_CHECKING:
    import typer

__all__ = ["COMMANDS", "Command", "build_app", "find_commands", "in_options", "lazy_app", "main"]

OUTPUTS = {"json_file", "out", "picture"}  # whose files are written, in every command
TRACEBACK = "VJ2_DDIM_TRACEBACK"
GROUP = "vj2_ddim_plugin.commands"


@dataclass(frozen=True)
class Command:
    """One subcommand: a function or a Typer app, imported only when it is called."""

    target: str  # module:name; empty where no installed distribution has it
    install: str  # what pip is to be told where a module is missing
    help: str


TRAINING, EXPORT, CLI = "vj2_ddim_training", "vj2_ddim_export", "vj2_ddim_plugin.cli"
COMMANDS = {
    name: Command(target, f"'vj2-ddim-plugin[{extra}]'" if extra else "vj2-ddim-benchmark", words)
    for name, target, extra, words in (
        ("data", f"{TRAINING}.data.commands:app", "train", "Make and inspect gesture data."),
        ("train", f"{TRAINING}.commands:train", "train", "Train a denoiser."),
        ("train-ranker", f"{TRAINING}.commands:train_ranker", "train", "Train a ranker for it."),
        ("distill", f"{TRAINING}.commands:distill", "train", "Make a student of one or two steps."),
        ("evaluate", f"{TRAINING}.commands:evaluate", "train", "Measure a checkpoint."),
        ("export", f"{EXPORT}.commands:export", "export", "Make an ONNX bundle of a checkpoint."),
        ("inspect", f"{CLI}.commands:inspect", "cli", "Say all there is to know about a bundle."),
        ("plan", f"{CLI}.commands:plan", "cli", "Plan from the shell with a bundle."),
        ("serve", f"{CLI}.commands:serve", "serve", "Serve a bundle to many planners."),
        ("doctor", f"{CLI}.commands:doctor", "cli", "Say what runs here, and why CUDA does not."),
        ("adapters", f"{CLI}.commands:adapters", "cli", "List the hosts that it can stand in for."),
        ("benchmark", "", "", "Compare planners on unseen touch screens."),
    )
}


def find_commands() -> dict[str, Command]:
    """`COMMANDS`, with those that installed distributions add; ours cannot be taken by others."""
    found = dict(COMMANDS)
    for point in entry_points(group=GROUP):
        known = found.get(point.name, Command("", "", f"Added by {point.value.partition(':')[0]}."))
        if not known.target:
            install = known.install or (point.dist.name if point.dist else point.value)
            found[point.name] = Command(point.value, install, known.help)
    return found


def _load(words: str, command: Command) -> Any:  # noqa: ANN401
    """The function or Typer app behind a subcommand; where it is missing, what to install."""
    module, _, attribute = command.target.partition(":")
    if not module:
        raise ConfigError(f"'{words}' is not installed. Run: pip install {command.install}")
    with _what_to_install(words, command):
        return getattr(importlib.import_module(module), attribute)


@contextmanager
def _what_to_install(words: str, command: Command) -> Iterator[None]:
    """A module that is missing, when a subcommand is imported or runs, as an error that says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        package, dot, _ = (error.name or "").partition(".")
        if dot and package == command.target.partition(".")[0]:
            raise  # a part of the package itself: no install brings it
        raise ConfigError(
            f"'{words}' needs the module {error.name!r}, which is not installed. Run: "
            f"pip install {command.install}"
        ) from error


def lazy_app(commands: Mapping[str, Command], help: str) -> typer.Typer:
    """A Typer app whose subcommands, which may be such apps too, stand in by name until called."""
    import typer
    from typer.core import TyperGroup

    class LazyGroup(TyperGroup):
        """Replaces the stand-in of a subcommand by the real one when it is to run."""

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
            """Import the subcommand; its line of help needs no import."""
            name, stand_in, rest = super().resolve_command(ctx, args)
            if name is None or stand_in is None:
                return name, stand_in, rest
            words = f"{ctx.command_path} {name}"
            target = _load(words, commands[name])
            if not isinstance(target, typer.Typer):
                wrapper = typer.Typer(add_completion=False)
                wrapper.command(name=name)(target)
                target = wrapper
            command = typer.main.get_command(target)
            command.name = name
            for each in _all_commands(command):
                each.rich_markup_mode = None  # plain: literal, quick, as wide as what it says
                if not hasattr(each, "commands"):
                    each.invoke = _speaking_options(each, _what_to_install(words, commands[name]))
            return name, command, rest

    app = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=help,
    )
    for name, command in commands.items():
        app.command(name, help=command.help)(lambda: None)
    return app


def build_app() -> typer.Typer:
    """The Typer app of `vj2-ddim`."""
    import typer

    words = "Train, export, run and benchmark a DDIM optimizer for latent world-model planners."
    app = lazy_app(find_commands(), help=words)

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
    """Run the command line; whatever goes wrong ends it with one readable line.

    Status 1 is an error that the project knows, 2 a wrong use, 130 Ctrl-C, 70 a fault of the
    program: with the environment variable `VJ2_DDIM_TRACEBACK` set that one is shown in full. Where
    Python calls this with arguments, a fault is raised as it is.

    Options may be spelled with dashes or underscores, as the original script's are.
    """
    words = [
        re.sub("^--[^=]+", lambda option: option[0].replace("_", "-"), word)
        for word in (sys.argv[1:] if arguments is None else arguments)
    ]
    _make_streams_safe()
    try:
        build_app()(args=words, prog_name="vj2-ddim")
    except SystemExit as stop:
        _flush()
        raise stop from None
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        _stop(
            f"vj2-ddim needs {error.name!r}, which is not installed. Run: "
            f"pip install 'vj2-ddim-plugin[cli]'"
        )
    except BrokenPipeError:
        _flush()
        sys.exit(1)
    except VJ2DDIMError as error:
        _stop(f"vj2-ddim: error: {error}")
    except OSError as error:  # a full disk, a folder without permission
        about = f"{error.filename}: " if error.filename else ""
        _stop(f"vj2-ddim: error: {about}{error.strerror or error}")
    except KeyboardInterrupt:
        _stop("vj2-ddim: stopped", 130)
    except MemoryError:
        _stop("vj2-ddim: error: there is not enough memory for this; ask for less at once")
    except Exception as error:
        if arguments is not None or os.environ.get(TRACEBACK):
            raise
        _stop(_fault(error), 70)


def _fault(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"vj2-ddim: fault: {type(error).__name__}: {error} ({where.filename}, line "
        f"{where.lineno}). This is a fault of the program, please report it with what is shown "
        f"when {TRACEBACK}=1 is set"
    )


def _make_streams_safe() -> None:
    """Output that is closed goes nowhere; a character that an encoding lacks is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write what is still to be written; where nobody reads it any more, in silence."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stop(message: str, status: int = 1) -> NoReturn:
    """End with one line on the standard error."""
    with suppress(OSError):
        sys.stderr.write(escaped(re.sub(r"\s*\n\s*", " ", message)) + "\n")
    _flush()
    sys.exit(status)


def _all_commands(command: Any) -> Iterator[Any]:  # noqa: ANN401
    """A command, and where it is a group of others, all of those."""
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from _all_commands(each)


def _speaking_options(
    command: Any,  # noqa: ANN401
    installed: AbstractContextManager[None],
) -> Callable[[Any], Any]:
    """A command's `invoke`, whose errors name its options instead of Python's names."""
    invoke: Callable[[Any], Any] = command.invoke
    options = [each for each in command.params if each.param_type_name == "option"]
    flags = {each.name: each.opts[0] for each in options}
    off = {each.name: each.secondary_opts[0] for each in options if each.secondary_opts}

    def translated(ctx: Any) -> Any:  # noqa: ANN401
        try:
            _check_outputs(ctx.params)
            with installed:
                return invoke(ctx)
        except VJ2DDIMError as error:
            error.args = (in_options(str(error), flags, off),)
            raise

    return translated


def _check_outputs(values: Mapping[str, Any]) -> None:
    """Refuse, before any work, an output that is also what is read, another output, or a folder."""
    named = {name: path for name, path in values.items() if isinstance(path, Path)}
    places = {name: os.path.realpath(path) for name, path in named.items()}
    for name in sorted(OUTPUTS & set(places)):
        if name != "out" and os.path.isdir(named[name]):
            raise OutputError(f"{named[name]} is a folder; name a file")
        same = [other for other, place in places.items() if other != name and place == places[name]]
        if same and (os.path.isfile(named[name]) or not os.path.exists(named[name])):
            raise ConfigError(
                f"{name}={str(named[name])!r} is the same file as "
                f"{same[0]}={str(named[same[0]])!r}; name another"
            )


# In this order: `name=value`; what is quoted, which stays; a name alone.
_WORDS = re.compile(
    r"""(?<![\w./\\?&-])(?P<name>[a-z]\w*)=(?P<value>'[^']*'|"[^"]*"|\([^()]*\)|[-./~]*\w(?:[\w.+/-]*\w)?)
    | (?<!\w)(?:'[^'\n]*'|"[^"\n]*")(?!\w)
    | (?<![\w./\\=-])(?P<alone>[a-z]\w*)(?![\w/\\=(\[-]|\.\w)""",
    re.VERBOSE,
)
_IS_A_SETTING = re.compile(r"\s+(must\b|is unknown\b|['\"(\[]|-?\.?\d|(is|was|of) -?\.?\d)")


def in_options(message: str, flags: Mapping[str, str], off: Mapping[str, str] = {}) -> str:
    """A message of the library in the words of a command, its options by Python's name.

    `name='value'` becomes `--name value`, for any name where the value is quoted, for an option of
    the command where it is not. A name alone is one where it cannot be a plain word: with an
    underscore in it, or at the beginning and followed by what is said of a setting. What is quoted,
    and what is part of a path, stays. `off` are the options that say false.
    """

    def spoken(match: re.Match[str]) -> str:
        name, value, alone = match["name"], match["value"], match["alone"]
        if name is not None and (name in flags or value[0] in "'\""):
            return _assigned(name, value, flags, off)
        if alone in flags and (
            "_" in alone or (match.start() == 0 and _IS_A_SETTING.match(message, match.end()))
        ):
            return flags[alone]
        return match[0]

    return _WORDS.sub(spoken, message)


def _assigned(name: str, value: str, flags: Mapping[str, str], off: Mapping[str, str]) -> str:
    flag = flags.get(name, "--" + name.replace("_", "-"))
    if name in flags and value in ("True", "False", "None"):
        return flag if value == "True" else off.get(name, f"no {flag}")
    bare = value.strip("'\"()")
    return f"{flag} {bare.replace(', ', ',') if value[0] == '(' else bare}"
