"""Frozen dataclasses to plain values and back, with every field accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

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
    return kind(**values)
