"""Which device torch trains on; one asked for by name and not there is an error."""

from __future__ import annotations

import torch

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["choose_device"]


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU.

    Raises:
        ConfigError: The name is unknown, or CUDA was asked for and is not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        build = torch.version.cuda
        raise ConfigError(
            f"device 'cuda' was asked for and torch {torch.__version__} sees no GPU "
            f"({'built without CUDA' if build is None else f'built for CUDA {build}'}). Install a "
            f"CUDA build of torch, or use 'auto' or 'cpu'"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
