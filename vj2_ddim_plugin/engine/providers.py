"""What a session is asked for: a provider by name, its options, threads and memory.

`auto` is CUDA where CUDA really runs, else the CPU. TensorRT builds an engine for minutes when it
starts, so it is taken only by name. The GPU options follow ONNX Runtime's documentation and were
not measured on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["PROVIDERS", "TF32_OVERRIDE", "SessionSettings"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"


@dataclass(frozen=True)
class SessionSettings:
    """How a graph is to be run.

    Attributes:
        provider: `auto`, or strictly `cpu`, `cuda` or `tensorrt`.
        num_threads: Threads of one operator on the CPU; None leaves ONNX Runtime's choice.
        provider_options: Passed to the GPU's provider as they are, for example
            `{"device_id": "1"}`; they win over what the settings below set.
        allow_tf32: Whether a GPU may round float32 products to 10 bits of mantissa. The sampling
            loop amplifies that error, so it is off.
        memory_limit_bytes: Device memory that the GPU's arena (TensorRT: its workspace too) may
            take, or None.
        cuda_graph: Whether a GPU records its kernels once a shape and replays them.

    Raises:
        ConfigError: A setting is unknown or out of range, or TensorRT would use TF32 unasked.
    """

    provider: str = "auto"
    num_threads: int | None = None
    provider_options: Mapping[str, Any] | None = None
    allow_tf32: bool = False
    memory_limit_bytes: int | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        if self.provider != "auto" and self.provider not in PROVIDERS:
            raise ConfigError(
                f"provider {self.provider!r} is unknown; use 'auto', "
                f"{', '.join(map(repr, PROVIDERS))}"
            )
        for name in ("num_threads", "memory_limit_bytes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a positive integer or None; found {value!r}")
        if (
            self.provider == "tensorrt"
            and not self.allow_tf32
            and os.environ.get(TF32_OVERRIDE) != "0"
        ):
            raise ConfigError(
                f"TensorRT uses TF32 and ONNX Runtime has no option to stop it. Set the "
                f"environment variable {TF32_OVERRIDE}=0 before the process starts, or pass "
                f"allow_tf32=True"
            )

    @property
    def wanted(self) -> str:
        """The provider to try first."""
        return "cuda" if self.provider == "auto" else self.provider

    @property
    def device_id(self) -> int:
        """Which GPU."""
        return int((self.provider_options or {}).get("device_id", 0))

    def requested(self, name: str) -> list[Any]:
        """ONNX Runtime's provider list, best first, for a provider of `PROVIDERS`."""
        if name == "cpu":
            return [PROVIDERS["cpu"]]
        limit, options = self.memory_limit_bytes, dict(self.provider_options or {})
        cuda: dict[str, Any] = {"use_tf32": str(int(self.allow_tf32))}
        if limit is not None:
            cuda["gpu_mem_limit"] = str(limit)
        if name == "cuda":
            if self.cuda_graph:
                cuda["enable_cuda_graph"] = "1"
            return [(PROVIDERS["cuda"], {**cuda, **options}), PROVIDERS["cpu"]]
        tensorrt: dict[str, Any] = {"trt_cuda_graph_enable": "1"} if self.cuda_graph else {}
        if limit is not None:
            tensorrt["trt_max_workspace_size"] = str(limit)
        if self.device_id:
            cuda["device_id"] = str(self.device_id)  # it runs what TensorRT leaves
        return [
            (PROVIDERS["tensorrt"], {**tensorrt, **options}),
            (PROVIDERS["cuda"], cuda),
            PROVIDERS["cpu"],
        ]
