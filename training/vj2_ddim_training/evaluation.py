"""The protocols of recreation and generation, measured for any number of denoiser steps.

`conditional`: from pure noise and the condition. `denoise@f`: from the data noised to the timestep
f * T. `inversion`: DDIM inversion to x_T and back. `generate`: from pure noise alone, judged as a
distribution. All of it samples with the plugin's own numpy sampler, torch underneath.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from vj2_ddim_plugin.ddim import Denoiser, add_noise, clip_to, ddim_invert, ddim_sample
from vj2_ddim_plugin.errors import TrainingError
from vj2_ddim_plugin.gestures import decode, diffused_bounds, is_valid, project
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.config import EvaluationSettings
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.examples import Batch, Examples, IndexArray, spread_rows
from vj2_ddim_training.measures import gaussianity, generation_measures, recreation_measures

__all__ = ["Results", "denoiser_of", "evaluate", "recreate_from", "sample_under"]

Measures = dict[str, float]
Results = dict[str, dict[str, Measures]]
NOISE_SHARES = (0.25, 0.5, 0.75)
SHOWN_SHARE = 0.5  # pictures show a recreation from half of the noise
TOKENS, ROWS_AT_ONCE = "condition tokens", 128  # rows that are read and encoded at once
FIXED_POINT_ITERATIONS = 3  # with 0, the usual DDIM inversion; both are reported


def evaluate(
    model: DiffusionModel,
    held_out: Examples,
    steps: Sequence[int],
    settings: EvaluationSettings | None = None,
    *,
    training: FloatArray | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Results:
    """Measure every protocol that the model can do.

    Args:
        model: The model.
        held_out: Validation data.
        steps: The numbers of denoiser steps N.
        settings: How much is measured.
        training: Training actions `[t, L, A]`, for memorisation; the held-out ones if None.
        report: Called with the name of what comes next.

    Returns:
        `{protocol: {str(N): {measure: value}}}`, see `recreation_measures` and
        `generation_measures`.
    """
    settings = settings or EvaluationSettings()
    spec, total = model.action_spec, len(held_out)
    batch = _encoded(model, held_out, spread_rows(total, settings.num_sequences or total))
    told_by = None if model.condition.guidance else _repeated(batch, settings.num_generated)
    seen = batch.actions if training is None else training
    results: Results = {}
    for num_steps in steps:
        report(f"N = {num_steps}")
        measured = _recreations(model, batch, num_steps, settings)
        noise = _noise((settings.num_generated, *spec.diffused_shape), settings.seed + 1)
        decoded = decode(sample_under(model, told_by, noise, num_steps, settings.clip), spec)
        measured["generate"] = generation_measures(
            decoded, project(decoded, spec), batch.actions, seen, spec
        )
        for protocol, measures in measured.items():
            results.setdefault(protocol, {})[str(num_steps)] = measures
    return results


def _recreations(
    model: DiffusionModel, batch: Batch, num_steps: int, settings: EvaluationSettings
) -> dict[str, Measures]:
    """The protocols that are given what they are to make."""
    measured, seed, clip = dict[str, Measures](), settings.seed, settings.clip
    if model.condition_encoder is not None:
        noise = _noise(batch.original.shape, seed)
        told = sample_under(model, batch, noise, num_steps, clip)
        measured["conditional"] = _compare(model, batch, told)
    for share in NOISE_SHARES:
        recreated = recreate_from(model, batch, share, num_steps, seed, clip)
        measured[f"denoise@{share}"] = _compare(model, batch, recreated)
    return measured | _inversion(model, batch, num_steps)


def _encoded(model: DiffusionModel, held_out: Examples, rows: IndexArray) -> Batch:
    """The examples with their condition tokens, read and encoded once and not all at a time."""
    sampler, parts = TorchSampler(model), []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        batch = held_out.batch(rows[first : first + ROWS_AT_ONCE])
        tokens = sampler.encode(batch.inputs)
        parts.append(batch._replace(inputs={} if tokens is None else {TOKENS: tokens.condition}))
    if len(parts) == 1:
        return parts[0]
    actions = np.concatenate([each.actions for each in parts])
    original = np.concatenate([each.original for each in parts])
    names = parts[0].inputs
    inputs = {name: np.concatenate([each.inputs[name] for each in parts]) for name in names}
    return Batch(actions, original, inputs)


def _repeated(batch: Batch, num: int) -> Batch:
    """`num` rows, the batch again and again: for a model that was never without a condition."""
    rows = np.arange(num) % len(batch.actions)
    inputs = {name: array[rows] for name, array in batch.inputs.items()}
    return Batch(batch.actions[rows], batch.original[rows], inputs)


def recreate_from(
    model: DiffusionModel, batch: Batch, share: float, num_steps: int, seed: int, clip: bool = True
) -> FloatArray:
    """Noise the data to `share` of the schedule and denoise it, as the diffused array.

    The condition is given, where there is one: it is what a planner would have. N is capped at the
    timesteps there are below that noise.
    """
    start = int(share * model.schedule.num_train_timesteps)
    noise = _noise(batch.original.shape, seed)
    noisy = add_noise(batch.original, noise, start, model.schedule)
    return sample_under(model, batch, noisy, min(num_steps, start + 1), clip, start)


def sample_under(
    model: DiffusionModel,
    batch: Batch | None,
    noise: FloatArray,
    num_steps: int,
    clip: bool,
    start_timestep: int | None = None,
) -> FloatArray:
    """DDIM from noise `[B, M, C]` under the batch's condition, or under none; `[B, M, C]`."""
    correct = clip_to(diffused_bounds(model.action_spec)) if clip else None
    sample = partial(ddim_sample, start_timestep=start_timestep, correct=correct)
    return sample(denoiser_of(model, batch), noise, model.schedule, num_steps)


def _noise(shape: tuple[int, ...], seed: int) -> FloatArray:
    noise: FloatArray = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return noise


def denoiser_of(model: DiffusionModel, batch: Batch | None) -> Denoiser:
    """The model under the batch's condition, or under none; a `TrainingError` if not finite."""
    sampler, condition = TorchSampler(model), None
    if batch is not None and TOKENS in batch.inputs:
        condition = batch.inputs[TOKENS]
    elif batch is not None and (encoded := sampler.encode(batch.inputs)) is not None:
        condition = encoded.condition

    def denoise(sample: FloatArray, timestep: int) -> FloatArray:
        output = sampler.denoise(sample, timestep, condition)
        if not np.isfinite(output).all():
            raise TrainingError(
                f"the model's output at timestep {timestep} is not finite: its training has "
                f"diverged. Train again, with a lower learning rate"
            )
        return output

    return denoise


def _compare(model: DiffusionModel, batch: Batch, diffused: FloatArray) -> Measures:
    """Recreation measures of what the plugin would hand over, and of the bare decoding."""
    spec = model.action_spec
    decoded = decode(diffused, spec)
    measures = recreation_measures(batch.actions, project(decoded, spec), spec)
    before = recreation_measures(batch.actions, decoded, spec)
    for name in ("mse", "mean_snr_db"):
        measures[f"{name}_before_projection"] = before[name]
    measures["validity_before_projection"] = float(is_valid(decoded, spec).mean())
    return measures


def _inversion(model: DiffusionModel, batch: Batch, num_steps: int) -> dict[str, Measures]:
    """Inversion as it is usually done, and with fixed-point iterations; without the condition.

    Under a condition that determines the gesture, x_T would carry nothing; a model that was never
    without one has no inversion.
    """
    if not model.condition.guidance:
        return {}
    if model.schedule.alpha_cumprod(model.schedule.num_train_timesteps - 1) == 0.0:
        return {}  # zero terminal SNR: x_T forgets the data, see ddim_invert
    denoiser = denoiser_of(model, None)
    measured: dict[str, Measures] = {}
    for name, times in (("inversion", FIXED_POINT_ITERATIONS), ("inversion-euler", 0)):
        to_noise = partial(ddim_invert, num_fixed_point_iterations=times)
        noise = to_noise(denoiser, batch.original, model.schedule, num_steps)
        back = ddim_sample(denoiser, noise, model.schedule, num_steps)
        found = gaussianity(noise, model.action_spec)
        scalars = {key: float(value) for key, value in found.items() if not isinstance(value, list)}
        measured[name] = {**_compare(model, batch, back), **scalars}
    return measured
