"""What a ranker learns from: the candidates of many problems, and what the planner's cost is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.ddim import clip_to, ddim_sample
from vj2_ddim_plugin.errors import ConfigError, CostError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.ranker.config import RankerConfig

__all__ = ["JudgedCandidates", "Progress", "RankerCost", "judge_candidates"]

RankerCost = Callable[[Mapping[str, FloatArray], FloatArray], FloatArray]
"""The planner's cost: context arrays `[B, ...]` and candidates `[B, K, L, A]` to `[B, K]`."""

Progress = Callable[[str, int, int], None]  # phase, done, in all

PROBLEMS_AT_ONCE = 64
SMALLEST_CHANGE, LARGEST_CHANGE = 0.02, 0.5  # std of a perturbation, in the sampler's units


class JudgedCandidates(NamedTuple):
    """n problems: tokens `[n, S, W]`, candidates `[n, K, M, C]` and their cost `[n, K]`."""

    condition: FloatArray
    diffused: FloatArray
    cost: FloatArray


def judge_candidates(
    model: DiffusionModel,
    examples: Examples,
    cost: RankerCost,
    config: RankerConfig,
    progress: Progress | None = None,
) -> JudgedCandidates:
    """Make candidates for problems drawn from the examples, and ask for their cost.

    Args:
        model: Samples some of the candidates, and encodes the condition.
        examples: Each is a problem and an action that solves it.
        cost: The planner's.
        config: How many of what.
        progress: Told after every few problems.

    Returns:
        The problems, float32.

    Raises:
        ConfigError: The model is unconditional, or there are fewer than two examples.
        CostError: The cost has the wrong shape.
    """
    if model.condition_encoder is None or len(examples) < 2:
        raise ConfigError(
            f"a ranker needs a conditional model and at least 2 examples; found condition "
            f"{model.config.condition!r} and {len(examples)} examples"
        )
    rng = np.random.default_rng(config.seed)
    total = min(config.num_problems, len(examples))
    rows = rng.permutation(len(examples))[:total]
    sampler, parts = TorchSampler(model), []
    for begin in range(0, total, PROBLEMS_AT_ONCE):
        chosen = rows[begin : begin + PROBLEMS_AT_ONCE]
        parts.append(_judged(sampler, examples, chosen, cost, config, rng))
        if progress is not None:
            progress("judge candidates", min(begin + PROBLEMS_AT_ONCE, total), total)
    return JudgedCandidates(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _judged(
    sampler: TorchSampler,
    examples: Examples,
    rows: np.ndarray,
    cost: RankerCost,
    config: RankerConfig,
    rng: np.random.Generator,
) -> JudgedCandidates:
    """The problems at these rows of the examples."""
    batch, spec = examples.batch(rows), sampler.action_spec
    encoded = sampler.encode(batch.inputs)
    if encoded is None:
        raise ConfigError("the model has no condition tokens")
    others = rng.integers(len(examples), size=(len(rows), config.num_random))
    diffused = [
        batch.original[:, None],
        _sampled(sampler, encoded.condition, config, rng),
        _perturbed(batch, config.num_perturbed, spec, rng),
        examples.batch(others.reshape(-1)).original.reshape(*others.shape, *spec.diffused_shape),
    ]
    actions = spec.project(spec.decode(np.concatenate(diffused, axis=1).astype(np.float32)))
    values = np.asarray(cost(batch.inputs, actions.copy()), np.float64)
    if values.shape != actions.shape[:2]:
        raise CostError(
            f"the cost returned shape {values.shape} for candidates {actions.shape}; expected "
            f"[B, K] = {actions.shape[:2]}"
        )
    return JudgedCandidates(encoded.condition, spec.encode(actions), values)


def _sampled(
    sampler: TorchSampler, condition: FloatArray, config: RankerConfig, rng: np.random.Generator
) -> FloatArray:
    """DDIM samples `[B, n, M, C]`, each from noise of its own."""
    count, spec = config.num_sampled, sampler.action_spec
    tokens = np.repeat(condition, count, axis=0)
    noise = rng.standard_normal((len(tokens), *spec.diffused_shape), np.float32)
    if not len(noise):
        return noise.reshape(len(condition), 0, *spec.diffused_shape)
    low, high = (bound.astype(np.float32) for bound in spec.diffused_bounds)
    samples = ddim_sample(
        lambda sample, timestep: sampler.denoise(sample, timestep, tokens),
        noise,
        sampler.schedule,
        config.num_inference_steps,
        correct=clip_to((low, high)),
    )
    return samples.reshape(len(condition), count, *spec.diffused_shape)


def _perturbed(batch: Batch, count: int, spec: ActionSpec, rng: np.random.Generator) -> FloatArray:
    """The true action with noise of all sizes, `[B, n, M, C]`."""
    shape = (len(batch.original), count)
    size = np.exp(rng.uniform(np.log(SMALLEST_CHANGE), np.log(LARGEST_CHANGE), shape))
    noise = rng.standard_normal((*shape, *spec.diffused_shape))
    return batch.original[:, None] + size[..., None, None] * noise
