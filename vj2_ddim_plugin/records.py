"""SHIM: what `vj2_ddim_plugin.settings.Settings` does, for dataclasses that are none yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from vj2_ddim_plugin.errors import VJ2DDIMError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)

__all__ = ["from_plain", "to_plain"]


def to_plain(record: DataclassInstance) -> dict[str, Any]:
    """The fields as values that JSON and `torch.load(weights_only=True)` can hold."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(record).items()
    }


def from_plain(kind: type[Record], values: Mapping[str, Any], error: type[VJ2DDIMError]) -> Record:
    """The inverse of `to_plain`: a missing or an unknown field raises `error`, by name."""
    names = {f.name for f in fields(kind)}
    if set(values) != names:
        raise error(
            f"{kind.__name__} has missing fields {sorted(names - set(values))} and unknown fields "
            f"{sorted(set(values) - names)}"
        )
    for name, hint in get_type_hints(kind).items():
        if not _is_a(values[name], hint):
            raise error(f"{kind.__name__}: field {name!r} must be {hint}; found {values[name]!r}")
    return kind(**values)


def _is_a(value: object, hint: Any) -> bool:  # noqa: ANN401
    """Whether a plain value can be a field of this type; an int can be a float, a bool no int."""
    if isinstance(hint, UnionType):
        return any(_is_a(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_is_a(v, get_args(hint)[0]) for v in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)
