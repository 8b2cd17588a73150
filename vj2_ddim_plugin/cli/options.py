"""Options of a command, made from the settings that it takes.

@options
def train(model: ModelConfig, training: TrainingConfig, resume: bool = False) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, declared

__all__ = ["options"]


def options(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer, in place of one that takes whole settings.

    Each parameter whose type is a `Settings` class becomes one option for each of its fields, with
    the default, the range and the help that are declared there; the function is called with the
    settings put together. A sequence is one option with commas between, a mapping one that may be
    repeated, `--option KEY=VALUE`.

    A field that several classes share, with one default, is one option, given to each. A parameter
    of the command's own that has the name of a field stands in place of the field's option.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters
    kinds = {name: hints[name] for name in given if isinstance(hints[name], type)}
    groups = {name: kind for name, kind in kinds.items() if issubclass(kind, Settings)}
    expanded: dict[str, inspect.Parameter] = {}
    for name, parameter in given.items():
        if name not in groups:
            expanded[name] = parameter.replace(annotation=hints[name])
            continue
        for key, option in _options_of(groups[name]).items():
            if key in given:
                continue
            shared = expanded.setdefault(key, option)
            if shared.default != option.default:
                raise TypeError(f"{key} has two defaults, {shared.default!r}, {option.default!r}")

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401
        values = {each.name: each.default for each in expanded.values()} | values
        own = {name: values[name] for name in given if name not in groups}
        command(**own, **{name: _settings_from(kind, values) for name, kind in groups.items()})

    ordered = sorted(expanded.values(), key=lambda each: each.default is not each.empty)
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in ordered]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in ordered}
    del run.__wrapped__  # Typer would look through it
    return run


def _options_of(kind: type[Settings]) -> dict[str, inspect.Parameter]:
    """One parameter a field, by name."""
    hints, rules, made = get_type_hints(kind), declared(kind), {}
    for each in fields(kind):
        hint, rule = hints[each.name], rules[each.name]
        default: Any = inspect.Parameter.empty if each.default is MISSING else each.default
        if _origin(hint) is tuple:
            hint = str if type(None) not in get_args(hint) else str | None
            default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        elif _origin(hint) in (Mapping, dict):
            hint = list[str] | None
            pairs = default.items() if isinstance(default, Mapping) else ()
            default = [f"{key}={value}" for key, value in pairs] or None
        flag = rule.option or "--" + each.name.replace("_", "-")
        flag = f"{flag}/--no-{flag[2:]}" if hint is bool else flag
        option = typer.Option(flag, help=f"{rule.help} ({rule.range})" if rule.range else rule.help)
        made[each.name] = inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[hint, option],
        )
    return made


def _bare(hint: Any) -> Any:  # noqa: ANN401
    """A type without the None that it may be besides."""
    if isinstance(hint, UnionType):
        return next(each for each in get_args(hint) if each is not NoneType)
    return hint


def _origin(hint: Any) -> Any:  # noqa: ANN401
    return get_origin(_bare(hint))


def _settings_from(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)]
    return kind(**{name: _value(name, values[name], hints[name]) for name in names})


def _value(name: str, given: Any, hint: Any) -> Any:  # noqa: ANN401
    """What a field holds, from what its option was given."""
    if _origin(hint) in (Mapping, dict) and isinstance(given, list):
        pairs = [entry.partition("=") for entry in given]
        for key, equals, value in pairs:
            if not key or not equals:
                raise ConfigError(f"{name} must be KEY=VALUE; found {key + equals + value!r}")
        return {key: value for key, _, value in pairs}
    if _origin(hint) is not tuple or not isinstance(given, str):
        return given
    kind = get_args(_bare(hint))[0]
    try:
        return tuple(kind(word.strip()) for word in given.split(",") if given.strip())
    except ValueError as error:
        words = "numbers" if kind in (int, float) else "words"
        raise ConfigError(f"{name} must be {words} with commas between; found {given!r}") from error
