"""Weights in half precision, which halves the files that are shipped."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["half_weights", "round_weights"]


def half_weights(module: nn.Module) -> dict[str, Tensor]:
    """The module's weights as a file holds them: on the CPU, in half precision."""
    return {name: value.cpu().half() for name, value in module.state_dict().items()}


def round_weights(module: nn.Module) -> None:
    """Round the weights to what `half_weights` keeps of them, so that a file loses nothing."""
    module.load_state_dict(half_weights(module))
