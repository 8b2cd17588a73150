"""Adapters by name, one host planner a file; torch and the host are imported when one is loaded.

A package adds its own by an entry point of the group `vj2_ddim_plugin.adapters` that leads to an
`Adapter`. It is imported when adapters are listed, so it should import nothing heavy.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["GROUP", "Adapter", "FoundAdapter", "find_adapters", "load_adapter"]

GROUP = "vj2_ddim_plugin.adapters"


@dataclass(frozen=True)
class Adapter(Settings):
    """One host planner, and what stands in its place."""

    host: str = setting(help="The host's name.")
    replaces: str = setting(help="What of the host it takes the place of.")
    units: str = setting(help="The units it plans in.")
    usage: str = setting(help="One line of use.")
    target: str = setting(help="module:name of the planner, imported only when loaded.")
    requires: tuple[str, ...] = setting(("torch",), "Modules needed besides the runtime's.")
    package: str = setting("", "The host's module, if it can be installed; it is not imported.")

    def check(self) -> None:
        """Refuse what could not be listed or loaded."""
        module, _, name = self.target.partition(":")
        if not module or not name:
            raise ConfigError(f"target of an Adapter must be 'module:name'; found {self.target!r}")
        if "" in self.requires:
            raise ConfigError(f"requires must name modules; found {self.requires!r}")

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of `requires` that are not installed here; nothing is imported to know it."""
        return tuple(name for name in self.requires if not _is_installed(name))

    @property
    def host_is_here(self) -> bool:
        """Whether the host's package is installed here; True where it is only a repository."""
        return not self.package or _is_installed(self.package)

    def load(self) -> Any:  # noqa: ANN401
        """Import the planner; `ConfigError` where it, or what it needs, is not there or fails."""
        if self.missing:
            raise ConfigError(
                f"the adapter for {self.host} needs {', '.join(self.missing)}, which is not "
                f"installed. Install it, or run this in the host's environment"
            )
        module, _, name = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the adapter for {self.host} has no planner at {self.target!r}: {error}"
            ) from error
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"the adapter for {self.host} does not load: importing {self.target!r} raised "
                f"{_told(error)}"
            ) from error


@dataclass(frozen=True)
class FoundAdapter:
    """An entry point, where it points to, and the adapter there, or why it is broken."""

    name: str
    value: str
    adapter: Adapter | None
    error: str = ""


def find_adapters() -> dict[str, FoundAdapter]:
    """Every adapter installed here by name, broken ones too; of two of one name ours stands."""
    found: dict[str, FoundAdapter] = {}
    for point in sorted(
        entry_points(group=GROUP),
        key=lambda each: (each.name, not each.value.startswith(__name__ + "."), each.value),
    ):
        found.setdefault(point.name, _follow(point))
    return found


def load_adapter(name: str) -> Any:  # noqa: ANN401
    """The planner of an adapter, by name; `ConfigError` where there is none or it is broken."""
    found = find_adapters()
    if name not in found:
        raise ConfigError(f"there is no adapter {name!r}; found are {', '.join(found) or 'none'}")
    adapter = found[name].adapter
    if adapter is None:
        raise ConfigError(
            f"the adapter {name!r} ({found[name].value}) is broken: {found[name].error}. Ask the "
            f"package that installed it"
        )
    return adapter.load()


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (Exception, SystemExit):  # of a package that a dotted name is in
        return False


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _follow(point: EntryPoint) -> FoundAdapter:
    """Import what an entry point leads to; whatever goes wrong there is reported, not raised."""
    try:
        adapter = point.load()
    except (Exception, SystemExit) as error:
        return FoundAdapter(point.name, point.value, None, _told(error))
    if isinstance(adapter, Adapter):
        return FoundAdapter(point.name, point.value, adapter)
    fault = f"it is of type {type(adapter).__name__}, not Adapter"
    return FoundAdapter(point.name, point.value, None, fault)
