"""`vj2-ddim benchmark scale`: one plan by gradient descent and by DDIM, at VJ2-GUI's scale.

A plan's passes through the predictor are all alike: a few are timed; DDIM is timed whole.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.assets.settings import MODEL
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.settings import PredictorSize, ScaleSettings
from vj2_ddim_benchmark.timing import Run, Seconds, random_problem, take_turns
from vj2_ddim_benchmark.timing.scale_predictor import Descent, ScaleProblem
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.cli.console import print_table, progress_bars, say
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.diffusion_model import DiffusionModel

PLANS = {
    "gradient_descent": "gradient descent, {num_iterations} iterations, weights frozen",
    "gradient_descent_trainable": "the same, weights left trainable",
    "ddim_one": "DDIM, 1 sample, no predictor",
    "ddim_ranked": "DDIM, {num_candidates} ranked by the predictor",
    "ddim_ranker_checked": "DDIM, a ranker picks 1 of {num_candidates}, the predictor checks it",
    "ddim_ranker": "DDIM, a ranker picks 1 of {num_candidates}",
}


def scale(
    size: PredictorSize, settings: ScaleSettings, bundle: Path | None, json_file: Path | None
) -> None:
    """Time one plan at VJ2-GUI's scale, by gradient descent and by DDIM, in turns."""
    with progress_bars() as progress:
        measured = measure_scale(size, settings, bundle, partial(progress, "turns"))
    measured["peak_memory_mb"] = _peak_memory_mb()
    _show(measured)
    write_json(json_file, measured)


def measure_scale(
    size: PredictorSize, settings: ScaleSettings, bundle: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """By clock, `wall` and `processor`: what `whole_plans` says, and the `timings` behind it."""
    use_threads(settings.threads)
    problem = ScaleProblem(size, seed=settings.seed, rows_per_chunk=settings.rows_per_chunk)
    with (
        tempfile.TemporaryDirectory() as folder,
        DDIMOptimizer.from_bundle(
            bundle or untrained_bundle(Path(folder), size, settings.seed),
            provider="cpu",
            num_threads=settings.threads,
            num_candidates=settings.num_candidates,
            num_inference_steps=settings.num_inference_steps,
        ) as optimizer,
    ):
        spec, width = optimizer.action_spec, size.action_width
        if width != (made := spec.length * spec.num_channels):
            raise ConfigError(
                f"action_width must be {made}, as the sampler makes them; found {width}"
            )
        clocks = take_turns(_runs(problem, optimizer, settings), settings.num_turns, progress)
    given = {"size": size.to_dict(), **settings.to_dict(), "bundle": bundle and bundle.name}
    return {
        **{clock: {**whole_plans(of, settings), "timings": of} for clock, of in clocks.items()},
        "settings": given,
        "predictor_weights": sum(weight.numel() for weight in problem.predictor.parameters()),
        "environment": environment(),
    }


def whole_plans(timings: Seconds, settings: ScaleSettings) -> dict[str, Any]:
    """Seconds of whole `plans` from the medians of their parts; `ratios` of gradient descent's.

    A learned ranker is taken to cost one DDIM step of all candidates more, which is more than it
    needs: it sees the same tokens, is smaller than the denoiser, and runs once a plan.
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
    ours = {name: seconds for name, seconds in plans.items() if name.startswith("ddim")}
    ratios = {
        descent: {name: plans[descent] / seconds for name, seconds in ours.items()}
        for descent in ("gradient_descent", "gradient_descent_trainable")
    }
    return {"plans": plans, "ratios": ratios, "ranking_share": ranking / plans["ddim_ranked"]}


def untrained_bundle(
    folder: Path, size: PredictorSize, seed: int = 0, config: ModelConfig = MODEL
) -> Path:
    """Export a sampler with random weights, whose state and goal are of the predictor's size."""
    torch.manual_seed(seed)
    inputs = dict.fromkeys(("state", "goal"), (size.num_patches, size.width))
    model = DiffusionModel(config, ActionSpec(), NoiseSchedule(), inputs)
    provenance = {"made_by": "random weights, for timing alone"}
    checkpoint, bundle = folder / "checkpoint.pt", folder / "bundle"
    save_checkpoint(Checkpoint(model, model.state_dict(), provenance=provenance), checkpoint)
    export_bundle(checkpoint, bundle)
    return bundle


def _runs(problem: ScaleProblem, optimizer: DDIMOptimizer, settings: ScaleSettings) -> list[Run]:
    """All that is timed in one turn, by part."""
    spec, rng = optimizer.action_spec, np.random.default_rng(settings.seed)
    candidates = rng.random((1, settings.rows_per_chunk, spec.length, spec.num_channels))
    trainable, frozen = Descent(problem, frozen=False), Descent(problem)
    one = random_problem(optimizer.model, settings.seed)
    many = replace(one, cost=lambda candidates: np.zeros(candidates.shape[:2]))  # in no time
    plans: list[Run] = [
        ("ddim_one", lambda turn: optimizer.optimize(one)),
        ("ddim_candidates", lambda turn: optimizer.optimize(many)),
    ]
    return [
        ("ranked_chunk", lambda turn: problem.rank(candidates)),
        ("trainable_descent_step", lambda turn: trainable.step()),
        ("descent_step", lambda turn: frozen.step()),
        *settings.num_plans * plans,
    ]


def _show(measured: dict[str, Any]) -> None:
    """Print the table of all plans."""
    settings, wall, processor = (measured[name] for name in ("settings", "wall", "processor"))
    rows = []
    for name, label in PLANS.items():
        figures = [clock["plans"][name] for clock in (wall, processor)]
        figures += [ratio.get(name) for ratio in wall["ratios"].values()]
        texts = ("" if figure is None else f"{figure:,.4g}" for figure in figures)
        rows.append((label.format(**settings), *texts))
    headings = ("plan", "seconds", "processor seconds", "descent takes x", "left trainable x")
    title = (
        f"one plan through {measured['predictor_weights'] / 1e6:,.0f} million weights, depth "
        f"{settings['size']['depth']}, {settings['size']['num_tokens']:,} tokens, "
        f"{settings['threads']} thread(s)"
    )
    print_table(rows, headings, title=title, numbers=True)
    say(f"ranking takes {wall['ranking_share']:.2%} of a ranked plan")


def _peak_memory_mb() -> float | None:
    """The most that this process ever held, or None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
