"""Options of a command, made from the settings that it takes.

```python
@options
def train(model: ModelConfig, training: TrainingConfig, resume: bool = False) -> None: ...
```

Each parameter whose type is a `Settings` class becomes one option for each of its fields, with the
default, the range and the help that are declared there; the function is called with the settings
put together. A field that several classes share is one option, given to each. A sequence is one
option with commas between, a mapping one that may be repeated, `--option KEY=VALUE`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Setting, Settings, declared

__all__ = ["options"]


def options(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer, in place of one that takes whole settings.

    A parameter of its own that has the name of a field stands in place of the field's option. Two
    classes that share a field must agree on its default.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters
    groups = {name: hints[name] for name in given if _is_settings(hints[name])}
    expanded: dict[str, inspect.Parameter] = {}
    for name, parameter in given.items():
        if name not in groups:
            expanded[name] = parameter.replace(annotation=hints[name])
            continue
        for key, option in _options_of(groups[name]).items():
            shared = expanded.get(key, option)
            if key not in given and shared.default != option.default:
                raise TypeError(f"{key} has two defaults, {shared.default!r}, {option.default!r}")
            if key not in given:
                expanded[key] = shared

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401
        values = {each.name: each.default for each in expanded.values()} | values
        settings = {name: _settings_from(kind, values) for name, kind in groups.items()}
        command(**settings, **{name: values[name] for name in given if name not in groups})

    ordered = sorted(
        expanded.values(), key=lambda each: each.default is not inspect.Parameter.empty
    )
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in ordered]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in ordered}
    del run.__wrapped__  # Typer would look through it
    return run


def _is_settings(hint: Any) -> bool:  # noqa: ANN401
    return isinstance(hint, type) and issubclass(hint, Settings)


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
        option = typer.Option(_flag(each.name, rule, hint), help=_help(rule))
        made[each.name] = inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[hint, option],
        )
    return made


def _flag(name: str, rule: Setting, hint: Any) -> str:  # noqa: ANN401
    flag = rule.option or "--" + name.replace("_", "-")
    return f"{flag}/--no-{flag[2:]}" if hint is bool else flag


def _help(rule: Setting) -> str:
    return f"{rule.help} ({rule.range})" if rule.range else rule.help


def _bare(hint: Any) -> Any:  # noqa: ANN401
    """A type without the None that it may be besides."""
    if isinstance(hint, UnionType):
        return next(each for each in get_args(hint) if each is not NoneType)
    return hint


def _origin(hint: Any) -> Any:  # noqa: ANN401
    return get_origin(_bare(hint))


def _settings_from(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    hints = get_type_hints(kind)
    return kind(
        **{
            each.name: _value(each.name, values[each.name], hints[each.name])
            for each in fields(kind)
        }
    )


def _value(name: str, given: Any, hint: Any) -> Any:  # noqa: ANN401
    """What a field holds, from what its option was given."""
    if _origin(hint) is tuple and isinstance(given, str):
        return _sequence(name, given, get_args(_bare(hint))[0])
    if _origin(hint) in (Mapping, dict) and isinstance(given, list):
        return _mapping(name, given)
    return given


def _sequence(name: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(word.strip()) for word in text.split(",") if text.strip())
    except ValueError as error:
        raise ConfigError(
            f"{name} must be {'numbers' if kind in (int, float) else 'words'} with commas between; "
            f"found {text!r}"
        ) from error


def _mapping(name: str, entries: Sequence[str]) -> dict[str, str]:
    for entry in entries:
        if not entry.partition("=")[0] or "=" not in entry:
            raise ConfigError(f"{name} must be KEY=VALUE; found {entry!r}")
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}
