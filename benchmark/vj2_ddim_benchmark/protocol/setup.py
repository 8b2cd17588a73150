"""What a run was made with, in `RUN/run.json`; a folder holds the results of one setup only."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import write_json

__all__ = ["SETUP", "claim_folder", "environment", "use_threads"]

SETUP = "run.json"


def use_threads(num_threads: int) -> None:
    """Let torch use this many threads; ONNX Runtime gets the same number from `BuildAssets`."""
    if num_threads < 1:
        raise ConfigError(f"threads must be at least 1; found {num_threads}")
    torch.set_num_threads(num_threads)


def environment() -> dict[str, Any]:
    """Versions, machine and thread settings."""
    packages = ("vj2-ddim-plugin", "torch", "numpy")
    return {
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
    }


def claim_folder(out: Path, fixed: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
    """Write `run.json`, or check that the one that is there was made with the same settings.

    Args:
        out: The run's folder, created if missing.
        fixed: Settings that must be the same for results to be comparable.
        noted: Everything else worth knowing; replaced by the latest run's.

    Raises:
        ConfigError: The folder holds results of other settings.
        DataError: Its `run.json` is broken.
    """
    path = out / SETUP
    plain = json.loads(json.dumps(dict(fixed)))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["fixed"]
            differing = [name for name in plain if found.get(name) != plain[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: not a run's settings ({error!r}); use another folder"
            ) from error
        if differing:
            name = differing[0]
            raise ConfigError(
                f"{out} holds results of another run: its {name} is {found.get(name)!r}, here it "
                f"is {plain[name]!r}; use another folder, or the same settings to resume"
            )
    write_json(path, {"fixed": plain, "noted": dict(noted)})
