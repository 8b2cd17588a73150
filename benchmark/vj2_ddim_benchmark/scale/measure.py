"""Seconds of one plan by gradient descent and by DDIM, at VJ2-GUI's scale, in one process.

A plan of many passes through the predictor is not made as a whole: its passes are all alike, so a
few of them are timed, in turns with the others', and the plan is so many times their median. The
DDIM side is timed whole; without a trained bundle, on one with condition inputs of the predictor's
size and random weights. Everything that was timed is in the result: by the wall clock, and as
processor time, which other processes of a busy machine disturb less.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.pressure import random_problem
from vj2_ddim_benchmark.protocol.setup import environment
from vj2_ddim_benchmark.scale.host import Descent, Host
from vj2_ddim_benchmark.scale.predictor import PredictorSize
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.diffusion_model import DiffusionModel

__all__ = ["ScaleSettings", "measure_scale", "untrained_bundle", "whole_plans"]

SAMPLER = ModelConfig(
    d_model=96, num_layers=3, condition="latents", condition_layers=1, condition_tokens=16
)
SCHEDULE = NoiseSchedule(
    beta_schedule="cosine", prediction_type="v_prediction", timestep_spacing="trailing"
)
Timings = Mapping[str, list[float]]


@dataclass(frozen=True)
class ScaleSettings:
    """What is timed.

    Attributes:
        size: Of the predictor.
        num_iterations: Of gradient descent, a forward and a backward pass each.
        num_candidates: Candidates K of DDIM.
        num_inference_steps: DDIM steps.
        rows_per_chunk: Candidates in one forward pass when ranking.
        num_turns: Times that each pass through the predictor is timed.
        num_plans: Times that DDIM's own part is timed, in each turn.
        threads: Of torch and of ONNX Runtime alike.
        seed: Of all weights and problems.
        bundle: A trained one in place of random weights.

    Raises:
        ConfigError: On construction, for a number out of range.
    """

    size: PredictorSize = field(default_factory=PredictorSize)
    num_iterations: int = 10
    num_candidates: int = 16
    num_inference_steps: int = 10
    rows_per_chunk: int = 1
    num_turns: int = 3
    num_plans: int = 20
    threads: int = 1
    seed: int = 0
    bundle: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        for name in ("num_iterations", "num_candidates", "num_turns", "num_plans", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; found {getattr(self, name)}")
        if not 1 <= self.rows_per_chunk <= self.num_candidates:
            raise ConfigError(
                f"rows_per_chunk must be 1 to num_candidates, {self.num_candidates}; found "
                f"{self.rows_per_chunk}"
            )


def untrained_bundle(folder: Path, size: PredictorSize, seed: int = 0) -> Path:
    """Export a sampler with random weights, whose state and goal are of the predictor's size.

    Args:
        folder: Where the checkpoint and the bundle go.
        size: Of the predictor.
        seed: Of the weights.

    Returns:
        The bundle's folder.
    """
    torch.manual_seed(seed)
    shape = (size.num_patches, size.width)
    model = DiffusionModel(SAMPLER, ActionSpec(), SCHEDULE, {"state": shape, "goal": shape})
    checkpoint = folder / "checkpoint.pt"
    provenance = {"made_by": "random weights, for timing alone"}
    save_checkpoint(Checkpoint(model, model.state_dict(), provenance=provenance), checkpoint)
    export_bundle(checkpoint, folder / "bundle")
    return folder / "bundle"


def measure_scale(
    settings: ScaleSettings, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Time everything.

    Args:
        settings: What, how large and how often.
        progress: Told the turns that are done, and their number.

    Returns:
        By clock, `wall` and `processor`: `plans`, seconds of one plan by name; `ratios` of gradient
        descent's to the others'; `ranking_share` of a ranked plan; `timings`, all the seconds
        behind them. And the settings, the number of weights and the environment.

    Raises:
        ConfigError: The predictor does not take blocks of the sampler's size.
    """
    torch.set_num_threads(settings.threads)
    host = Host(settings.size, seed=settings.seed, rows_per_chunk=settings.rows_per_chunk)
    with _optimizer(settings) as optimizer:
        spec = optimizer.action_spec
        if settings.size.action_width != spec.length * spec.num_channels:
            raise ConfigError(
                f"action_width must be {spec.length * spec.num_channels}, as the sampler makes "
                f"them; found {settings.size.action_width}"
            )
        clocks = _turns(host, optimizer, settings, progress or (lambda done, total: None))
    plain = asdict(settings) | {"bundle": settings.bundle and settings.bundle.name}
    return {
        **{
            name: {**whole_plans(timings, settings), "timings": timings}
            for name, timings in clocks.items()
        },
        "settings": plain,
        "predictor_weights": sum(weight.numel() for weight in host.predictor.parameters()),
        "environment": environment(),
    }


def whole_plans(timings: Timings, settings: ScaleSettings) -> dict[str, Any]:
    """What whole plans take, from the medians of their parts.

    A learned ranker is taken to cost one DDIM step of all candidates more, which is more than it
    needs: it sees the same tokens, is smaller than the denoiser, and runs once a plan.

    Args:
        timings: Seconds of `descent_step`, `trainable_descent_step`, `ranked_chunk` (of
            `rows_per_chunk` candidates), `ddim_one` and `ddim_candidates`.
        settings: How many parts a plan has.

    Returns:
        `plans`, `ratios` and `ranking_share`, see `measure_scale`.
    """
    part = {name: float(np.median(values)) for name, values in timings.items()}
    forward = part["ranked_chunk"] / settings.rows_per_chunk
    ranking = settings.num_candidates * forward
    chosen = part["ddim_candidates"] * (1 + 1 / settings.num_inference_steps)
    plans = {
        "gradient_descent": settings.num_iterations * part["descent_step"],
        "gradient_descent_trainable": settings.num_iterations * part["trainable_descent_step"],
        "ddim_one": part["ddim_one"],
        "ddim_ranked": part["ddim_candidates"] + ranking,
        "ddim_ranker_checked": chosen + forward,
        "ddim_ranker": chosen,
    }
    ratios = {
        descent: {
            name: plans[descent] / seconds
            for name, seconds in plans.items()
            if name.startswith("ddim")
        }
        for descent in ("gradient_descent", "gradient_descent_trainable")
    }
    return {"plans": plans, "ratios": ratios, "ranking_share": ranking / plans["ddim_ranked"]}


@contextmanager
def _optimizer(settings: ScaleSettings) -> Iterator[DDIMOptimizer]:
    """DDIM from the bundle, or from one that is made on the fly."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = settings.bundle
        if bundle is None:
            bundle = untrained_bundle(Path(folder), settings.size, settings.seed)
        with DDIMOptimizer.from_bundle(
            bundle,
            provider="cpu",
            num_threads=settings.threads,
            num_candidates=settings.num_candidates,
            num_inference_steps=settings.num_inference_steps,
        ) as optimizer:
            yield optimizer


def _turns(
    host: Host,
    optimizer: DDIMOptimizer,
    settings: ScaleSettings,
    progress: Callable[[int, int], None],
) -> dict[str, dict[str, list[float]]]:
    """Seconds by clock and part; each turn times every part, so that a busy machine hits all."""
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    timings: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in clocks}
    spec, rng = optimizer.action_spec, np.random.default_rng(settings.seed)
    candidates = rng.random((1, settings.rows_per_chunk, spec.length, spec.num_channels))
    trainable, frozen = Descent(host, frozen=False), Descent(host)
    one = random_problem(optimizer.model, settings.seed)
    many = random_problem(optimizer.model, settings.seed, cost=_free)

    def timed(part: str, run: Callable[[], object]) -> None:
        begun = {name: clock() for name, clock in clocks.items()}
        run()
        for name, clock in clocks.items():
            timings[name][part].append(clock() - begun[name])

    for turn in range(settings.num_turns):
        timed("ranked_chunk", lambda: host.rank(candidates))
        timed("trainable_descent_step", trainable.step)
        timed("descent_step", frozen.step)
        for _ in range(settings.num_plans):
            timed("ddim_one", lambda: optimizer.optimize(one))
            timed("ddim_candidates", lambda: optimizer.optimize(many))
        progress(turn + 1, settings.num_turns)
    return {name: dict(parts) for name, parts in timings.items()}


def _free(candidates: FloatArray) -> FloatArray:
    """A cost that takes no time."""
    return np.zeros(candidates.shape[:2])
