"""`vj2-ddim benchmark latency`: one plan by the plugin and by the original's torch sampler.

That is its transformer at its published size, random weights, in a plain DDIM loop; no ranking. And
the part of a plan that reads the latents, at V-JEPA 2's size: the default model, random weights.
"""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.settings import LatencySettings, PredictorSize
from vj2_ddim_benchmark.timing import random_problem, take_turns
from vj2_ddim_benchmark.timing.scale import untrained_bundle
from vj2_ddim_plugin.cli.console import print_table, say
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser

NUM_WARM_UP = 5
TIMED = ("plugin", "original", "condition_2x256x1024")


def latency(bundle: Path, settings: LatencySettings, json_file: Path | None) -> None:
    """Time one plan at batch 1, in turns with the original script's torch sampler."""
    measured = measure_latency(bundle, settings)
    rows = [(name, *(f"{ms:.2f}" for ms in measured[name].values())) for name in TIMED]
    title = f"one plan of {settings.num_inference_steps} steps, {settings.num_plans} times"
    print_table(rows, ("what", "p50 ms", "p95 ms"), title=title, numbers=True)
    say(
        f"the original takes {measured['ratio_p50']:.1f} times as long; the plugin's whole call is "
        f"{measured['overhead']:.2f} times its ONNX Runtime calls"
    )
    write_json(json_file, measured)


def measure_latency(bundle: Path, settings: LatencySettings) -> dict[str, Any]:
    """Percentiles of both in ms, their ratio, and the plugin's call over its ONNX Runtime calls."""
    use_threads(settings.threads)
    steps, overheads = settings.num_inference_steps, []
    session: dict[str, Any] = {"provider": "cpu", "num_threads": settings.threads}
    optimizer = DDIMOptimizer.from_bundle(bundle, num_inference_steps=steps, **session)
    problem = random_problem(optimizer.model, 0)

    def plugin(turn: int) -> None:
        seconds = optimizer.optimize(problem).wall_time_s
        overheads.append(seconds["total"] / (seconds["denoise"] + seconds["condition"]))

    with tempfile.TemporaryDirectory() as folder:
        config = ModelConfig(condition="latents")
        untrained = untrained_bundle(Path(folder), PredictorSize(), config=config)
        large = DDIMOptimizer.from_bundle(untrained, **session)
    latents = random_problem(large.model, 0).context
    samplers = plugin, _original_sampler(steps), lambda turn: large.model.encode(latents)
    runs = list(zip(TIMED, samplers, strict=True))
    measured: dict[str, Any] = {}
    for name, taken in take_turns(runs, NUM_WARM_UP + settings.num_plans)["wall"].items():
        p50, p95 = 1e3 * np.percentile(taken[NUM_WARM_UP:], (50, 95))
        measured[name] = {"p50_ms": float(p50), "p95_ms": float(p95)}
    return {
        **measured,
        "ratio_p50": measured["original"]["p50_ms"] / measured["plugin"]["p50_ms"],
        "overhead": float(np.median(overheads[NUM_WARM_UP:])),
        "num_plans": settings.num_plans,
        "num_inference_steps": steps,
        "environment": environment(),
    }


def _original_sampler(num_inference_steps: int) -> Callable[[int], object]:
    """One sample `[1, 250, 3]` by the original's transformer and a torch DDIM loop."""
    model = MinimalDenoiser(250, 3, d_model=64, num_layers=3, nhead=4).eval()
    pairs = ORIGINAL_SCHEDULE.timesteps(num_inference_steps)

    @torch.inference_mode()
    def sample(turn: int) -> torch.Tensor:
        x = torch.randn(1, 250, 3)
        for timestep, before in pairs:
            alpha, alpha_prev = map(ORIGINAL_SCHEDULE.alpha_cumprod, (timestep, before))
            epsilon = model(x, torch.tensor([timestep]))
            x0 = (x - math.sqrt(1.0 - alpha) * epsilon) / math.sqrt(alpha)
            x = math.sqrt(alpha_prev) * x0 + math.sqrt(1.0 - alpha_prev) * epsilon
        return x

    return sample
