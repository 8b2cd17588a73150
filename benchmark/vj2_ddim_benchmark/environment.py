"""Versions, machine and threads: what every recorded figure is noted with."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from vj2_ddim_plugin.errors import ConfigError

PACKAGES = ("vj2-ddim-plugin", "torch", "numpy")


def use_threads(num_threads: int) -> None:
    """Let torch use this many threads; ONNX Runtime is given the same number with each planner."""
    if num_threads < 1:
        raise ConfigError(f"threads must be at least 1; found {num_threads}")
    torch.set_num_threads(num_threads)


def environment() -> dict[str, Any]:
    """Versions, machine and thread settings."""
    return {
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
    }
