"""What `vj2-ddim doctor` finds out about this machine, this installation and a bundle."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vj2_ddim_plugin.errors import ProviderError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx import PROVIDERS, TF32_OVERRIDE, SessionSettings
from vj2_ddim_plugin.onnx.session import OnnxGraph, available_providers, why_not
from vj2_ddim_plugin.optimizer import DDIMOptimizer

__all__ = ["EXTRAS", "RUNS", "TINY_GRAPH", "examine", "time_one_plan"]

EXTRAS = {
    "cli": ("typer", "rich", "matplotlib"),
    "train": ("torch", "wandb", "scipy", "h5py", "filelock", "accelerate", "jinja2", "yaml"),
    "serve": ("ray",),
    "export": ("torch", "onnx", "onnxscript"),
}
RUNS = "runs"
WHEELS = ("onnxruntime-gpu", "onnxruntime", "onnxruntime-directml", "onnxruntime-openvino")
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
WARM_PLANS = 20
# An ONNX model of opset 13, written out: y = x + x, both float32 [2].
TINY_GRAPH = (
    b"\x08\x08\x12\x00:5\n\x0e\n\x01x\n\x01x\x12\x01y\x22\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08"
    b"\x08\x01\x12\x04\n\x02\x08\x02b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n"
    b"\x00\x10\r"
)


def examine() -> dict[str, Any]:
    """Sections of findings about this machine and this installation, ready for JSON."""
    missing = {name: [each for each in EXTRAS[name] if find_spec(each) is None] for name in EXTRAS}
    processor: dict[str, Any] = {"machine": f"{platform.system()} {platform.machine()}"}
    processor["cores"] = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        processor["cores of this process"] = len(os.sched_getaffinity(0))
    if hasattr(os, "getloadavg"):
        processor["load of 1, 5, 15 minutes"] = [round(load, 2) for load in os.getloadavg()]
    return {
        "versions": {
            "vj2-ddim-plugin": _version("vj2-ddim-plugin"),
            "vj2-ddim-benchmark": _version("vj2-ddim-benchmark") or "not installed",
            "python": platform.python_version(),
            "numpy": np.__version__,
            **{wheel: found for wheel in WHEELS if (found := _version(wheel))},
        },
        "built in": available_providers(),
        "providers": {name: _whether_it_runs(name) for name in PROVIDERS},
        "auto takes": OnnxGraph(TINY_GRAPH).provider,
        "TF32": {
            "cuda": "off unless allow_tf32",
            "tensorrt": f"refused unless allow_tf32 or {TF32_OVERRIDE}=0",
        },
        "processor": processor,
        "environment": {
            name: os.environ.get(name, "not set") for name in (*VARIABLES, TF32_OVERRIDE)
        },
        "extras": {
            name: f"lacks {', '.join(lacks)}" if lacks else "installed"
            for name, lacks in missing.items()
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _whether_it_runs(provider: str) -> str:
    """Make a session of it and run it; nothing less tells."""
    if provider != "cpu" and (reason := why_not(provider)):
        return f"does not run: {reason}"
    try:
        with OnnxGraph(TINY_GRAPH, SessionSettings(provider=provider, allow_tf32=True)) as graph:
            (doubled,) = graph.run({"x": np.ones(2, np.float32)})
    except ProviderError as error:
        return f"does not run: {error}"
    return RUNS if doubled.tolist() == [2.0, 2.0] else f"computes 1 + 1 = {doubled.tolist()}"


def time_one_plan(bundle: Path | str, session: SessionSettings | None = None) -> dict[str, Any]:
    """Load a bundle, plan a first time and then warm, for one problem and without a cost."""
    started = time.perf_counter()
    with BundleModel(bundle, session or SessionSettings()) as model:
        loaded, optimizer = time.perf_counter(), DDIMOptimizer(model)
        shapes = model.condition.inputs.items()
        context = {name: np.zeros((1, *shape), np.float32) for name, shape in shapes}
        times = [time.perf_counter()]
        for _ in range(1 + WARM_PLANS):
            optimizer.optimize(PlanningProblem(context, batch_size=1))
            times.append(time.perf_counter())
        seconds = np.diff(times).tolist()
        return {
            "folder": str(bundle),
            "runs on": model.provider,
            "steps": optimizer.settings.steps(model.schedule),
            "load_s": round(loaded - started, 4),
            "first_plan_s": round(seconds[0], 5),
            "warm_plan_s": round(median(seconds[1:]), 5),
        }
