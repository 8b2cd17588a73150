"""stable-worldmodel's TwoRoom: its world, its world model, its evaluation; its solvers and ours."""

import functools
import importlib
import sys
import warnings
from typing import Any

from vj2_ddim_plugin.errors import ConfigError

ENVIRONMENT = "vj2_ddim/TwoRoomSwept-v0"  # `swept.SweptTwoRoom`
IMAGE_SHAPE = (64, 64)
MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
NOISY = ("ale-py not found", ".*expecting a numpy array", ".*Casting input", ".*share an object")


@functools.cache
def import_stable_worldmodel(module: str = "") -> Any:  # noqa: ANN401
    """The package, or a module of it, for example `wm.loss`."""
    try:
        _import_torchvision()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="ale-py not found")
            found = importlib.import_module(".".join(filter(None, ("stable_worldmodel", module))))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"TwoRoom needs the module {error.name!r}, which is not installed. Run: pip install -r "
            f"requirements-hosts.txt"
        ) from error
    import gymnasium

    if ENVIRONMENT not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT, "vj2_ddim_benchmark.two_room.swept:SweptTwoRoom")
    for message in NOISY:  # its environments, at every reset and step
        warnings.filterwarnings("ignore", message=message)
    return found


@functools.cache
def _import_torchvision() -> Any:  # noqa: ANN401
    """Import it, also beside a CPU build of torch; what is returned keeps it importable.

    PyPI's torchvision is built against CUDA. Beside a CPU-only torch its compiled operators cannot
    load, and the import stops at the first that is named. Nothing of TwoRoom uses them, so their
    names are declared here, without code behind them; torchvision's own Python runs as published.
    """
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if f"{name}.".startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in MISSING_OPERATORS:
        library.define(operator)  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision"), library
