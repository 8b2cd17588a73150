"""ONNX Runtime: what it is asked for, where it really runs, and rows that do not mix.

`auto` is CUDA where CUDA really runs, else the CPU. TensorRT builds an engine for minutes when it
starts, so it is taken only by name. The GPU options follow ONNX Runtime's documentation and were
not measured on a GPU.

ONNX Runtime reports to its maker: since 1.29, importing it on Linux writes an identity into the
user's cache and starts an uploader. It reads `ORT_DISABLE_TELEMETRY` once, at that moment, so the
variable is set here, before; a value that the user gave it stays.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting, shown

__all__ = ["PROVIDERS", "TELEMETRY", "TF32_OVERRIDE", "SessionSettings"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
TELEMETRY = "ORT_DISABLE_TELEMETRY"
MOST_THREADS = 1024

os.environ.setdefault(TELEMETRY, "1")


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
        None,
        "Threads of one operator on the CPU; None takes as many as this process may use cores.",
        low=1,
        high=MOST_THREADS,
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
        None,
        "Device memory that each graph's arena (TensorRT: its workspace too) may take.",
        low=1,
        high=2**63 - 1,
    )
    cuda_graph: bool = setting(
        False, "Whether a GPU records its kernels once a shape and replays them."
    )
    load_limit_s: float = setting(
        20.0,
        "Seconds that the first run of each graph may take while it is loaded; a longer one "
        "is stopped.",
        above=0,
        high=86_400,
    )

    def check(self) -> None:
        """The GPU is a number, and TensorRT has no option against TF32."""
        device = (self.provider_options or {}).get("device_id", 0)
        if not str(device).isdecimal():
            raise ConfigError(
                f"provider_options must have a 'device_id' such as '0'; found {shown(device)}"
            )
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
