"""Options made from settings: one a field, with its default, range and help; put together again."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.settings import Settings, declared, setting


@dataclass(frozen=True)
class Every(Settings):
    """One field of each kind."""

    count: int = setting(3, "How many.", low=1, high=9)
    share: float = setting(0.5, "How much.", above=0, below=1)
    name: str = setting("a", "Which.", choices=("a", "b"))
    folder: Path = setting(Path("here"), "Where.")
    tuned: bool = setting(True, "Whether it is tuned.")
    limit: int | None = setting(None, "How many at most.", low=1)
    widths: tuple[int, ...] = setting((1, 2), "How wide.")
    lows: tuple[float, ...] | None = setting(None, "How low.")
    words: tuple[str, ...] = setting((), "What is said.")
    extra: Mapping[str, Any] | None = setting(None, "Passed on.")
    table: bool = setting(False, "Printed as a table.", option="--as-table")


@dataclass(frozen=True)
class Seeded(Settings):
    """Shares a field with another."""

    seed: int = setting(0, "Of the noise.", low=0)
    rate: float = setting(1e-3, "How fast.", above=0)


@dataclass(frozen=True)
class AlsoSeeded(Settings):
    """Likewise."""

    seed: int = setting(0, "Of the data.", low=0)


@dataclass(frozen=True)
class Needed(Settings):
    """A field without a default."""

    folder: Path = setting(help="Where.")
    count: int = setting(1, "How many.")


class Runner:
    """A command line of one command, which remembers what it was called with."""

    def __init__(self, command):
        self.app = typer.Typer()
        self.app.command()(command)

    def __call__(self, *words):
        done = CliRunner().invoke(self.app, [str(word) for word in words], env={"COLUMNS": "300"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done


def of(*kinds):
    """A command of some settings classes, and the list of what it is given."""
    seen = []

    def command(**settings):
        seen.append(settings)

    hints = command.__annotations__ = {f"given_{n}": kind for n, kind in enumerate(kinds)}
    named = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    given = [named(name, annotation=kind) for name, kind in hints.items()]
    command.__signature__ = inspect.Signature(given)
    return Runner(options(command)), seen


def made(*words):
    run, seen = of(Every)
    done = run(*words)
    assert done.exit_code == 0, done.output
    return seen[0]["given_0"]


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ([], {}),
        (["--count", 5], {"count": 5}),
        (["--share", 0.25], {"share": 0.25}),
        (["--name", "b"], {"name": "b"}),
        (["--folder", "a/b [c]"], {"folder": Path("a/b [c]")}),
        (["--no-tuned"], {"tuned": False}),
        (["--tuned"], {}),
        (["--limit", 7], {"limit": 7}),
        (["--widths", "4, 5,6"], {"widths": (4, 5, 6)}),
        (["--widths", "4"], {"widths": (4,)}),
        (["--widths", ""], {"widths": ()}),
        (["--lows", "-1,2.5"], {"lows": (-1.0, 2.5)}),
        (["--words", "a,b c"], {"words": ("a", "b c")}),
        (["--extra", "a=1", "--extra", "b=x=y"], {"extra": {"a": "1", "b": "x=y"}}),
        (["--extra", "empty="], {"extra": {"empty": ""}}),
        (["--as-table"], {"table": True}),
        (["--no-as-table"], {}),
    ],
)
def test_an_option_sets_its_field_and_no_other(words, changes):
    assert made(*words) == Every(**changes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", 0], "count must be at least 1 and at most 9; found 0"),
        (["--share", 1.0], "share must be above 0 and below 1; found 1.0"),
        (["--share", "nan"], "share must be above 0 and below 1; found nan"),
        (["--name", "c"], "name 'c' is unknown; use one of a, b"),
        (["--limit", 0], "limit must be at least 1; found 0"),
        (["--widths", "1,x"], "widths must be numbers with commas between; found '1,x'"),
        (["--widths", "1,,2"], "widths must be numbers with commas between; found '1,,2'"),
        (["--lows", "low"], "lows must be numbers with commas between; found 'low'"),
        (["--extra", "alone"], "extra must be KEY=VALUE; found 'alone'"),
        (["--extra", "=1"], "extra must be KEY=VALUE; found '=1'"),
    ],
)
def test_what_is_wrong_is_said_in_the_settings_own_words(words, message):
    with pytest.raises(ConfigError) as raised:
        made(*words)
    assert str(raised.value) == message


def test_what_is_of_another_type_is_a_usage_error():
    run, seen = of(Every)
    assert run("--count", "many").exit_code == 2
    assert run("--table").exit_code == 2  # its option has another name
    assert seen == []


def test_the_help_is_what_is_declared():
    text = of(Every)[0]("--help").output
    for name, rule in declared(Every).items():
        assert rule.help in text
        assert rule.range in text
        assert (rule.option or f"--{name}") in text
    for default in ("3", "0.5", "here", "1,2"):
        assert f"default: {default}" in text


def test_a_field_that_two_classes_share_is_one_option_given_to_each():
    run, seen = of(Seeded, AlsoSeeded)
    assert run("--seed", 4, "--rate", 0.1).exit_code == 0
    assert seen == [{"given_0": Seeded(4, 0.1), "given_1": AlsoSeeded(4)}]
    assert run("--help").output.count("--seed") == 1


def test_a_shared_field_with_two_defaults_is_refused():
    @dataclass(frozen=True)
    class Other(Settings):
        seed: int = setting(1, "Of something else.")

    with pytest.raises(TypeError, match="seed has two defaults, 0, 1"):
        of(Seeded, Other)


def test_a_field_without_a_default_is_a_required_option(tmp_path):
    run, seen = of(Needed)
    done = run()
    assert done.exit_code == 2
    assert "--folder" in done.output
    assert run("--folder", tmp_path).exit_code == 0
    assert seen == [{"given_0": Needed(tmp_path)}]


def test_a_command_keeps_its_own_arguments_and_may_stand_in_for_a_field():
    seen = []

    @options
    def command(
        bundle: Annotated[Path, typer.Argument(help="A folder.")],
        search: Seeded,
        seed: Annotated[int, typer.Option(help="Of it all.")] = 7,
        json_file: Annotated[Path | None, typer.Option("--json")] = None,
    ) -> None:
        """What it does."""
        seen.append((bundle, search, seed, json_file))

    run = Runner(command)
    assert run("a", "--json", "b", "--rate", 0.5).exit_code == 0
    assert seen.pop() == (Path("a"), Seeded(7, 0.5), 7, Path("b"))
    assert run("a", "--seed", 2).exit_code == 0
    assert seen.pop() == (Path("a"), Seeded(2), 2, None)
    assert "What it does." in run("--help").output
    command(bundle=Path("c"), rate=0.25)  # and it is a function still
    assert seen.pop() == (Path("c"), Seeded(7, 0.25), 7, None)


@pytest.mark.parametrize("kind", [SearchSettings, SessionSettings])
def test_the_runtimes_own_settings_become_options(kind):
    run, seen = of(kind)
    assert run().exit_code == 0
    assert seen == [{"given_0": kind()}]
    text = run("--help").output
    for name in declared(kind):
        assert f"--{name.replace('_', '-')}" in text
