"""Latency of one plan: the plugin against the original script's torch sampler, in one run.

The original is its transformer at its published size (width 64, 3 layers, 4 heads) with random
weights, sampled by a plain torch DDIM loop. The two take turns, so that a noisy machine disturbs
both alike. Nothing is ranked: this is the sampler alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.protocol.setup import environment
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser

__all__ = ["measure_latency"]

ORIGINAL = {"d_model": 64, "num_layers": 3, "nhead": 4}
NUM_WARM_UP = 5


def measure_latency(
    bundle: Path, num_plans: int, num_inference_steps: int, threads: int
) -> dict[str, Any]:
    """Time plans at batch 1.

    Args:
        bundle: The bundle to time.
        num_plans: Plans of each.
        num_inference_steps: DDIM steps N of both.
        threads: Threads of torch and of ONNX Runtime alike.

    Returns:
        Milliseconds: `plugin` and `original`, each with p50 and p95; `ratio_p50`; `overhead`, the
        plugin's whole call over the time inside ONNX Runtime; and the environment.
    """
    torch.set_num_threads(threads)
    optimizer = DDIMOptimizer.from_bundle(
        bundle, provider="cpu", num_threads=threads, num_inference_steps=num_inference_steps
    )
    rng = np.random.default_rng(0)
    context = {
        name: rng.random((1, *shape), np.float32)
        for name, shape in optimizer.model.condition.inputs.items()
    }
    problem = PlanningProblem(context, batch_size=1)
    shares: list[float] = []

    def plugin() -> None:
        seconds = optimizer.optimize(problem).wall_time_s
        shares.append(seconds["total"] / (seconds["denoise"] + seconds["condition"]))

    original = _original_sampler(num_inference_steps)
    times: dict[str, list[float]] = {"plugin": [], "original": []}
    for turn in range(NUM_WARM_UP + num_plans):
        for name, plan in (("plugin", plugin), ("original", original)):
            begun = time.perf_counter()
            plan()
            if turn >= NUM_WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - begun))
    percentiles = {
        name: {"p50_ms": float(np.median(values)), "p95_ms": float(np.percentile(values, 95))}
        for name, values in times.items()
    }
    return {
        **percentiles,
        "ratio_p50": percentiles["original"]["p50_ms"] / percentiles["plugin"]["p50_ms"],
        "overhead": float(np.median(shares[NUM_WARM_UP:])),
        "num_plans": num_plans,
        "num_inference_steps": num_inference_steps,
        "environment": environment(),
    }


def _original_sampler(num_inference_steps: int) -> Callable[[], object]:
    """One sample `[1, 250, 3]` by the original's transformer and a torch DDIM loop."""
    model = MinimalDenoiser(250, 3, **ORIGINAL).eval()
    schedule = NoiseSchedule()
    pairs = schedule.timesteps(num_inference_steps)

    @torch.inference_mode()
    def sample() -> torch.Tensor:
        x = torch.randn(1, 250, 3)
        for timestep, prev_timestep in pairs:
            alpha = schedule.alpha_cumprod(timestep)
            alpha_prev = schedule.alpha_cumprod(prev_timestep)
            epsilon = model(x, torch.tensor([timestep]))
            x0 = (x - math.sqrt(1.0 - alpha) * epsilon) / math.sqrt(alpha)
            x = math.sqrt(alpha_prev) * x0 + math.sqrt(1.0 - alpha_prev) * epsilon
        return x

    return sample
