"""Why a GPU provider cannot run here: not built in, no driver, no device, a missing library.

ONNX Runtime is asked for a GPU only after this finds nothing wrong, because its own answer to a
GPU that is not there is several lines on the terminal and a silent fall to the CPU.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from vj2_ddim_plugin.engine.providers import PROVIDERS

__all__ = ["why_not"]

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_DEVICE = 100


def why_not(provider: str, available: Collection[str], folder: Path) -> str:
    """What keeps a GPU provider from running, in one line; empty when nothing was found.

    Args:
        provider: `cuda` or `tensorrt`.
        available: The providers that ONNX Runtime says it was built with.
        folder: Where ONNX Runtime's shared libraries lie.
    """
    if PROVIDERS[provider] not in available:
        return (
            f"this ONNX Runtime was built without {PROVIDERS[provider]}; install onnxruntime-gpu "
            f"in its place"
        )
    return "; ".join(filter(None, (_driver_problem(), _library_problem(provider, folder))))


def _driver_problem() -> str:
    """Ask the NVIDIA driver for its devices."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        return f"the NVIDIA driver is missing ({error})"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == NO_DEVICE or (status == 0 and count.value == 0):
        return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)"
    return f"the NVIDIA driver does not start (CUDA error {status})" if status else ""


def _library_problem(provider: str, folder: Path) -> str:
    """The library that the provider's own library needs and that is not there."""
    for library in sorted(folder.glob(f"libonnxruntime_providers_{provider}.so*")):
        try:
            _load_dependencies(str(library))
        except OSError as error:
            return str(error)
    return ""


@lru_cache  # which does not keep what was raised: a library may be installed meanwhile
def _load_dependencies(library: str) -> None:
    """Raise `OSError` naming the first dependency that is missing.

    The provider's library finds its host through a symbol of ONNX Runtime's. It must not be
    initialised before that host exists, and is not: until ONNX Runtime itself has loaded it, the
    symbol is undefined, so that loading stops there, after all dependencies were found.
    """
    try:
        ctypes.CDLL(library)
    except OSError as error:
        if "undefined symbol: Provider_" not in str(error):
            raise
