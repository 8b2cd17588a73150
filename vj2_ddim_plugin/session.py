"""ONNX Runtime, and nothing else: which provider really runs, with how many threads.

ONNX Runtime lists CUDA as available on machines without a GPU and falls back to the CPU in silence.
So a session is made first and asked afterwards; a provider asked for by name and not running is an
error. CUDA code here is written for real and tested as far as a CPU allows; it was not measured.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vj2_ddim_plugin.errors import BundleError, ConfigError, ProviderError

__all__ = ["PROVIDERS", "OnnxGraph", "why_cuda_cannot_load"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

logger = logging.getLogger(__name__)


def _requested(provider: str, options: Mapping[str, Any] | None) -> list[Any]:
    """The provider list for a session, best first, TF32 off unless the options turn it on."""
    if provider != "auto" and provider not in PROVIDERS:
        raise ConfigError(
            f"provider {provider!r} is unknown; use 'auto', {', '.join(map(repr, PROVIDERS))}"
        )
    cpu = PROVIDERS["cpu"]
    available = onnxruntime.get_available_providers()
    if provider == "cpu" or (provider == "auto" and PROVIDERS["cuda"] not in available):
        return [cpu]
    return [(PROVIDERS["cuda"], {"use_tf32": "0", **(options or {})}), cpu]


def why_cuda_cannot_load() -> str:
    """What keeps the CUDA provider from loading, in one line; empty when its library loads."""
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return "this ONNX Runtime was built without CUDA; install onnxruntime-gpu in its place"
    folder = Path(onnxruntime.__file__).parent / "capi"
    for library in sorted(folder.glob("*onnxruntime_providers_cuda*")):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return str(error)
    return ""


def _create(path: Path, options: Any, requested: list[Any], may_fall_back: bool) -> Any:  # noqa: ANN401
    """A session. ONNX Runtime's own way to fall back prints; weights beside the file are refused.

    From bytes, because those are what was hashed: a path would also read unhashed files beside it.
    """
    graph = Path(path).read_bytes()
    try:
        return onnxruntime.InferenceSession(graph, options, providers=requested, enable_fallback=0)
    except Exception as error:
        if not may_fall_back or len(requested) == 1:
            raise
        logger.info("CUDA is not usable here, running on the CPU: %s", error)
        return onnxruntime.InferenceSession(
            graph, options, providers=requested[1:], enable_fallback=0
        )


class OnnxGraph:
    """One ONNX graph, ready to run.

    Args:
        path: The `.onnx` file.
        provider: `auto` takes CUDA if it really runs, else the CPU; `cpu` and `cuda` are strict.
        num_threads: Threads of one operator; None leaves ONNX Runtime's choice.
        provider_options: Passed to CUDA as they are, for example `{"gpu_mem_limit": "2147483648"}`.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
        ConfigError: The provider is unknown.
        ProviderError: The provider asked for is not the one that runs.
    """

    def __init__(
        self,
        path: Path,
        provider: str = "auto",
        num_threads: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
    ) -> None:
        requested = _requested(provider, provider_options)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Spinning threads of two runtimes on few cores slow each other down many times over.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        onnxruntime.set_default_logger_severity(4)  # a failed CUDA load is reported by us, below
        try:
            self._session = _create(path, options, requested, provider == "auto")
        except Exception as error:  # ONNX Runtime raises a dozen private types
            if provider == "cuda":
                raise ProviderError(f"CUDA was asked for and failed: {error}") from error
            raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        finally:
            onnxruntime.set_default_logger_severity(2)
        self.provider: str = self._session.get_providers()[0]
        if provider == "cuda" and self.provider != PROVIDERS["cuda"]:
            raise ProviderError(
                f"provider 'cuda' was asked for, but {self.provider} is running. Cause: "
                f"{why_cuda_cannot_load() or 'no usable GPU was found'}. Install the CUDA and "
                f"cuDNN versions that onnxruntime-gpu {onnxruntime.__version__} needs, or use "
                f"provider 'auto' or 'cpu'"
            )
        if len(requested) > 1 and self.provider == PROVIDERS["cpu"]:
            logger.info("CUDA is not usable here, running on the CPU: %s", why_cuda_cannot_load())
        inputs = self._session.get_inputs()
        self.input_names: Sequence[str] = [entry.name for entry in inputs]
        self.input_shapes: Mapping[str, Sequence[Any]] = {e.name: e.shape for e in inputs}
        self.output_names: Sequence[str] = [entry.name for entry in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """Run once: arrays by input name in, arrays in output order out."""
        outputs: list[np.ndarray[Any, Any]] = self._session.run(None, dict(feeds))
        return outputs
