"""The protocols of recreation and generation, measured for any number of denoiser steps.

`conditional`: from pure noise and the condition. `denoise@f`: from the data noised to the timestep
f * T. `inversion`: DDIM inversion to x_T and back. `generate`: from pure noise alone, judged as a
distribution. All of it samples with the plugin's own numpy sampler, torch underneath.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vj2_ddim_plugin.ddim import Denoiser, add_noise, clip_to, ddim_invert, ddim_sample
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.measures.generation import generation_measures
from vj2_ddim_training.measures.inversion import gaussianity
from vj2_ddim_training.measures.recreation import recreation_measures

__all__ = ["Evaluation", "evaluate", "recreate_from"]

Measures = dict[str, float]
Results = dict[str, dict[str, Measures]]
NOISE_SHARES = (0.25, 0.5, 0.75)
SHOWN_SHARE = 0.5  # pictures show a recreation from half of the noise
FIXED_POINT_ITERATIONS = 3  # with 0, the usual DDIM inversion; both are reported


@dataclass(frozen=True)
class Evaluation:
    """What to measure on.

    Attributes:
        held_out: Validation data.
        training: Training actions `[t, L, A]`, for memorisation; the held-out ones if None.
        num_sequences: Held-out sequences to use, from the first on; None for all.
        num_generated: Sequences to generate.
        seed: Of all noise.
        clip: Whether x0 is clipped to the action bounds while sampling.

    Raises:
        ConfigError: A number is out of range.
    """

    held_out: Examples
    training: FloatArray | None = None
    num_sequences: int | None = None
    num_generated: int = 1000
    seed: int = 0
    clip: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, value, lowest in (
            ("num_sequences", 1 if self.num_sequences is None else self.num_sequences, 1),
            ("num_generated", self.num_generated, 1),
            ("seed", self.seed, 0),
        ):
            if value < lowest:
                raise ConfigError(f"{name} must be at least {lowest}; found {value}")

    def batch(self) -> Batch:
        """The held-out examples in use."""
        count = min(self.num_sequences or len(self.held_out), len(self.held_out))
        return self.held_out.batch(np.arange(count))


def evaluate(
    model: DiffusionModel,
    evaluation: Evaluation,
    steps: Sequence[int],
    report: Callable[[str], None] = lambda line: None,
) -> Results:
    """Measure every protocol that the model can do.

    Args:
        model: The model.
        evaluation: What to measure on.
        steps: The numbers of denoiser steps N.
        report: Called with the name of what comes next.

    Returns:
        `{protocol: {str(N): {measure: value}}}`.
    """
    batch = evaluation.batch()
    results: Results = {}
    for num_inference_steps in steps:
        measured: dict[str, Measures] = {}
        report(f"N = {num_inference_steps}")
        if model.condition_encoder is not None:
            measured["conditional"] = _conditional(model, evaluation, batch, num_inference_steps)
        for share in NOISE_SHARES:
            recreated = recreate_from(
                model, batch, share, num_inference_steps, evaluation.seed, evaluation.clip
            )
            measured[f"denoise@{share}"] = _compare(model, batch, recreated)
        measured |= _inversion(model, batch, num_inference_steps)
        measured["generate"] = _generate(model, evaluation, batch, num_inference_steps)
        for protocol, measures in measured.items():
            results.setdefault(protocol, {})[str(num_inference_steps)] = measures
    return results


def recreate_from(
    model: DiffusionModel,
    batch: Batch,
    share: float,
    num_inference_steps: int,
    seed: int,
    clip: bool = True,
) -> FloatArray:
    """Noise the data to `share` of the schedule and denoise it, as the diffused array.

    The condition is given, where there is one: it is what a planner would have. N is capped at the
    timesteps there are below that noise.
    """
    start = int(share * model.schedule.num_train_timesteps)
    noise = _noise(batch.original.shape, seed)
    return ddim_sample(
        _denoiser(model, batch),
        add_noise(batch.original, noise, start, model.schedule),
        model.schedule,
        min(num_inference_steps, start + 1),
        start_timestep=start,
        correct=clip_to(model.action_spec.diffused_bounds) if clip else None,
    )


def _noise(shape: tuple[int, ...], seed: int) -> FloatArray:
    noise: FloatArray = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return noise


def _denoiser(model: DiffusionModel, batch: Batch | None) -> Denoiser:
    """The model as a denoiser under the batch's condition, or under none."""
    sampler = TorchSampler(model)
    encoded = None if batch is None else sampler.encode(batch.inputs)
    condition = None if encoded is None else encoded.condition
    return lambda sample, timestep: sampler.denoise(sample, timestep, condition)


def _compare(model: DiffusionModel, batch: Batch, diffused: FloatArray) -> Measures:
    """Recreation measures of what the plugin would hand over, and of the bare decoding."""
    spec = model.action_spec
    decoded = spec.decode(diffused)
    measures = recreation_measures(batch.actions, spec.project(decoded), spec)
    before = recreation_measures(batch.actions, decoded, spec)
    for name in ("mse", "mean_snr_db"):
        measures[f"{name}_before_projection"] = before[name]
    measures["validity_before_projection"] = float(spec.is_valid(decoded).mean())
    return measures


def _conditional(
    model: DiffusionModel, evaluation: Evaluation, batch: Batch, num_inference_steps: int
) -> Measures:
    diffused = ddim_sample(
        _denoiser(model, batch),
        _noise(batch.original.shape, evaluation.seed),
        model.schedule,
        num_inference_steps,
        correct=clip_to(model.action_spec.diffused_bounds) if evaluation.clip else None,
    )
    return _compare(model, batch, diffused)


def _inversion(
    model: DiffusionModel, batch: Batch, num_inference_steps: int
) -> dict[str, Measures]:
    """Inversion as it is usually done, and with fixed-point iterations; without the condition.

    Under a condition that determines the gesture, x_T would carry nothing.
    """
    if model.schedule.alpha_cumprod(model.schedule.num_train_timesteps - 1) == 0.0:
        return {}  # zero terminal SNR: x_T forgets the data, see ddim_invert
    denoiser = _denoiser(model, None)
    measured: dict[str, Measures] = {}
    for name, iterations in (("inversion", FIXED_POINT_ITERATIONS), ("inversion-euler", 0)):
        noise = ddim_invert(
            denoiser,
            batch.original,
            model.schedule,
            num_inference_steps,
            num_fixed_point_iterations=iterations,
        )
        back = ddim_sample(denoiser, noise, model.schedule, num_inference_steps)
        found = gaussianity(noise, model.action_spec)
        scalars = {key: float(value) for key, value in found.items() if not isinstance(value, list)}
        measured[name] = {**_compare(model, batch, back), **scalars}
    return measured


def _generate(
    model: DiffusionModel, evaluation: Evaluation, batch: Batch, num_inference_steps: int
) -> Measures:
    spec = model.action_spec
    shape = (evaluation.num_generated, *spec.diffused_shape)
    diffused = ddim_sample(
        _denoiser(model, None),
        _noise(shape, evaluation.seed + 1),
        model.schedule,
        num_inference_steps,
        correct=clip_to(spec.diffused_bounds) if evaluation.clip else None,
    )
    decoded = spec.decode(diffused)
    training = batch.actions if evaluation.training is None else evaluation.training
    return generation_measures(decoded, spec.project(decoded), batch.actions, training, spec)
