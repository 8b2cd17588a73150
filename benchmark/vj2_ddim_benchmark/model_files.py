"""Files of trained networks: one reader, and weights in half precision, half as large to ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_training.saved import open_saved

__all__ = ["half_weights", "read_model", "round_weights"]


def half_weights(module: nn.Module) -> dict[str, Tensor]:
    """The module's weights as a file holds them: on the CPU, in half precision."""
    return {name: value.cpu().half() for name, value in module.state_dict().items()}


def round_weights(module: nn.Module) -> None:
    """Round the weights to what `half_weights` keeps of them, so that a file loses nothing."""
    module.load_state_dict(half_weights(module))


def read_model(
    path: Path, named: str, fields: Mapping[str, type], hint: str = "train the model first"
) -> dict[str, Any]:
    """A file of the format `named`, with every field there and of its type.

    Raises:
        CheckpointError: It is missing, broken or of another kind; the message says what is wrong.
    """
    contents = open_saved(path, "model", hint)
    found = contents.get("format") if type(contents) is dict else type(contents).__name__
    if found != named:
        raise CheckpointError(f"{path}: found format {found!r}, expected {named!r}")
    for name, expected in fields.items():
        if not isinstance(contents.get(name), expected):
            raise CheckpointError(
                f"{path}: the field {name!r} is missing or no {expected.__name__}; train the model "
                f"again"
            )
    return dict(contents)
