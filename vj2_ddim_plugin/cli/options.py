"""Options of a command, made from the settings that it takes.

```python
@options
def train(model: ModelConfig, training: TrainingConfig, resume: bool = False) -> None: ...
```

Each parameter whose type is a `Settings` class becomes one option for each of its fields, with the
default, the range and the help that are declared there; the function is called with the settings
put together. A field that several classes share is one option, given to each.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Setting, Settings, declared

__all__ = ["options"]


def options(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer, in place of one that takes whole settings."""
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters
    groups = {name: hints[name] for name in given if _is_settings(hints[name])}
    expanded: dict[str, inspect.Parameter] = {}
    for name, parameter in given.items():
        if name in groups:
            expanded |= {key: o for key, o in _options_of(groups[name]).items() if key not in given}
        else:
            expanded[name] = parameter.replace(annotation=hints[name])

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401
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
    hints, rules, made = get_type_hints(kind), declared(kind), {}
    for each in fields(kind):
        hint, rule = hints[each.name], rules[each.name]
        default: Any = inspect.Parameter.empty if each.default is MISSING else each.default
        if _is_sequence(hint):  # one option, with commas between
            hint, default = str, ",".join(f"{value}" for value in default)
        option = typer.Option(_flag(each.name, rule, hint), help=_help(rule))
        annotation: Any = Annotated[hint, option]
        made[each.name] = inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
    return made


def _flag(name: str, rule: Setting, hint: Any) -> str:  # noqa: ANN401
    flag = rule.option or "--" + name.replace("_", "-")
    return f"{flag}/--no-{flag[2:]}" if hint is bool else flag


def _help(rule: Setting) -> str:
    return f"{rule.help} ({rule.range})" if rule.range else rule.help


def _is_sequence(hint: Any) -> bool:  # noqa: ANN401
    return get_origin(hint) is tuple


def _settings_from(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    hints = get_type_hints(kind)
    return kind(
        **{
            each.name: _sequence(each.name, values[each.name], hints[each.name])
            if _is_sequence(hints[each.name]) and isinstance(values[each.name], str)
            else values[each.name]
            for each in fields(kind)
        }
    )


def _sequence(name: str, text: str, hint: Any) -> tuple[Any, ...]:  # noqa: ANN401
    kind = next(each for each in get_args(hint) if each is not NoneType)
    words = [word.strip() for word in text.split(",")]
    try:
        return tuple(kind(word) for word in words)
    except ValueError as error:
        raise ConfigError(
            f"{name} must be {'numbers' if kind in (int, float) else 'words'} with commas between; "
            f"found {text!r}"
        ) from error
