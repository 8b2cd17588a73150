"""What a word on the command line or in a file stands for: a function that is looked up."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["COSTS", "JUDGES", "find_by_name"]

JUDGES, COSTS = "vj2_ddim_training.judges", "vj2_ddim_training.costs"  # groups of entry points


def find_by_name(group: str, text: str, option: str) -> Callable[..., Any]:
    """What a word on the command line stands for: `NAME` or `MODULE:FUNCTION`, and `=ARGUMENT`.

    The name is of an entry point of the group. The function named is called with the argument, or
    with the empty text, and returns what is asked for.
    """
    name, _, argument = text.partition("=")
    known = {point.name: point for point in entry_points(group=group)}
    if name not in known and ":" not in name:
        raise ConfigError(
            f"{option} {name!r} is unknown; use MODULE:FUNCTION, or one of those installed: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    try:
        make = known.get(name, EntryPoint(name, name, group)).load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{option} {name!r} cannot be loaded: {error}") from error
    found: Callable[..., Any] = make(argument)
    return found
