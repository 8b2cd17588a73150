"""ONNX Runtime: what it is asked for, where it really runs, and rows that do not mix.

`auto` is CUDA where CUDA really runs, else the CPU. TensorRT builds an engine for minutes when it
starts, so it is taken only by name. The GPU options follow ONNX Runtime's documentation and were
not measured on a GPU.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["PROVIDERS", "TF32_OVERRIDE", "SessionSettings"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"


@dataclass(frozen=True)
class SessionSettings(Settings):
    """How a bundle's graphs are run.

    Raises:
        ConfigError: A setting is unknown or out of range, or TensorRT would use TF32 unasked.
    """

    provider: str = setting(
        "auto", "Where to run; by name it is strict.", choices=("auto", *PROVIDERS)
    )
    num_threads: int | None = setting(
        None, "Threads of one operator on the CPU; None leaves ONNX Runtime's choice.", low=1
    )
    provider_options: Mapping[str, Any] | None = setting(
        None,
        "Passed to the GPU's provider as they are, for example {'device_id': '1'}; they win over "
        "what the settings below set.",
    )
    allow_tf32: bool = setting(
        False,
        "Whether a GPU may round float32 products to 10 bits of mantissa; the sampling loop "
        "amplifies that error.",
    )
    memory_limit_bytes: int | None = setting(
        None, "Device memory that each graph's arena (TensorRT: its workspace too) may take.", low=1
    )
    cuda_graph: bool = setting(
        False, "Whether a GPU records its kernels once a shape and replays them."
    )

    def check(self) -> None:
        """TensorRT has no option against TF32."""
        unasked = self.provider == "tensorrt" and not self.allow_tf32
        if unasked and os.environ.get(TF32_OVERRIDE) != "0":
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
        tensorrt: dict[str, Any] = {"trt_cuda_graph_enable": "1"} if self.cuda_graph else {}
        if limit is not None:
            cuda["gpu_mem_limit"] = tensorrt["trt_max_workspace_size"] = str(limit)
        if name == "cuda":
            graph = {"enable_cuda_graph": "1"} if self.cuda_graph else {}
            return [(PROVIDERS["cuda"], {**cuda, **graph, **options}), PROVIDERS["cpu"]]
        if self.device_id:
            cuda["device_id"] = str(self.device_id)  # it runs what TensorRT leaves
        return [
            (PROVIDERS["tensorrt"], {**tensorrt, **options}),
            (PROVIDERS["cuda"], cuda),
            PROVIDERS["cpu"],
        ]
