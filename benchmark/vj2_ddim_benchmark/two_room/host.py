"""stable-worldmodel as published, imported so that it also runs beside a CPU build of torch.

PyPI's torchvision is built against CUDA. Beside a CPU-only torch its compiled operators cannot
load, and the import stops at the first place that names one. Nothing of TwoRoom uses them, so their
names are declared here, without code behind them, and torchvision's own Python runs as published.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import Any

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["ENVIRONMENT", "import_host"]

ENVIRONMENT = "swm/TwoRoom-v1"
MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
NOISY = ("ale-py not found", ".*expecting a numpy array", ".*Casting input", ".*share an object")


@functools.cache
def import_host(module: str = "") -> Any:  # noqa: ANN401
    """The package `stable_worldmodel`, or a module of it.

    Args:
        module: Its name within the package, for example `wm.loss`.

    Raises:
        ConfigError: It, or something that its TwoRoom needs, is not installed.
    """
    try:
        _import_torchvision()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="ale-py not found")
            host = importlib.import_module(".".join(filter(None, ("stable_worldmodel", module))))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"TwoRoom needs the module {error.name!r}, which is not installed. Run: "
            f"pip install -r requirements-hosts.txt"
        ) from error
    for message in NOISY:  # the host's environments, at every reset and step
        warnings.filterwarnings("ignore", message=message)
    return host


@functools.cache
def _import_torchvision() -> Any:  # noqa: ANN401
    """Import torchvision; where its operators are missing, declare their names and try again.

    Returns:
        Whatever must stay alive for the names to stay declared.
    """
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in MISSING_OPERATORS:
        library.define(operator)  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision"), library
