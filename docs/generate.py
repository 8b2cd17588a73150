"""Pages of the reference that are made from the code: commands with their options, and settings."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

import click
import mkdocs_gen_files
import typer

import vj2_ddim_export
import vj2_ddim_plugin
import vj2_ddim_training
from vj2_ddim_plugin.cli import build_app
from vj2_ddim_plugin.settings import Settings, declared

PACKAGES = (vj2_ddim_plugin, vj2_ddim_training, vj2_ddim_export)


def command_pages(name: str, command: click.Command, parent: click.Context | None) -> Iterator[str]:
    """A command and everything below it, as Markdown."""
    context = click.Context(command, info_name=name, parent=parent)
    yield f"## `{context.command_path}`\n\n{(command.help or '').strip()}\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.resolve_command(context, [each])[1]
            if found is not None:
                yield from command_pages(each, found, context)
        return
    yield f"```\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield "| option | default | |\n| --- | --- | --- |"
    for parameter in command.get_params(context):
        if parameter.name != "help":
            yield row(parameter)
    yield ""


def row(parameter: click.Parameter) -> str:
    """One line of a table of options."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(parameter, click.Argument):
        names = f"`{parameter.human_readable_name}`"
    default = "required" if parameter.required else shown(parameter.default)
    return f"| {names} | {default} | {cell(getattr(parameter, 'help', '') or '')} |"


def shown(value: Any) -> str:  # noqa: ANN401
    """A default as a table shows it."""
    return "" if value is None or callable(value) else f"`{value}`"


def cell(text: str) -> str:
    """Text that stays within its cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def settings_classes() -> list[type[Settings]]:
    """Every class of settings, once, in the order of the packages."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".adapters." not in module.name:
                importlib.import_module(module.name)
    found: list[type[Settings]] = []
    waiting = list(Settings.__subclasses__())
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(tuple(package.__name__ for package in PACKAGES)):
            found.append(kind)
    return found


def settings_section(kind: type[Settings]) -> Iterator[str]:
    """One class of settings, as Markdown."""
    yield f"## `{kind.__name__}`\n\n`{kind.__module__}`. {(kind.__doc__ or '').splitlines()[0]}\n"
    yield "| setting | type | default | range | |\n| --- | --- | --- | --- | --- |"
    hints, rules = get_type_hints(kind), declared(kind)
    for field in fields(kind):
        hint = hints[field.name]
        type_name = cell(hint.__name__ if isinstance(hint, type) else str(hint))
        default = "required" if field.default is MISSING else f"`{field.default!r}`"
        rule = rules[field.name]
        yield f"| `{field.name}` | `{type_name}` | {default} | {rule.range} | {cell(rule.help)} |"
    yield ""


def write(page: str, title: str, opening: str, lines: Iterator[str]) -> None:
    """Write one generated page."""
    with mkdocs_gen_files.open(f"reference/{page}.md", "w") as stream:
        stream.write("\n".join((f"# {title}\n", f"{opening}\n", *lines)))


write(
    "commands",
    "Commands",
    "Every option may be written with dashes or underscores.",
    command_pages("vj2-ddim", typer.main.get_command(build_app()), None),
)
write(
    "settings",
    "Settings",
    "A setting is declared once in the code; this page, the command line and the constructors read "
    "it there.",
    (line for kind in settings_classes() for line in settings_section(kind)),
)
