"""Training a ranker: the planner's cost is asked once a candidate, then the network fits it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.ddim import clip_to, ddim_sample
from vj2_ddim_plugin.errors import ConfigError, CostError
from vj2_ddim_plugin.gestures import decode, diffused_bounds, encode, project
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.planning.checks import cost_of
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import RankerConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.learning_rate import warmup_cosine
from vj2_ddim_training.loop import ShuffledTask, TrainingLoop, name_rows
from vj2_ddim_training.ranker.network import RankerNetwork, TrainedRanker, model_fingerprint
from vj2_ddim_training.resumable import made_once, run_resumably
from vj2_ddim_training.validation import BestEpoch, SuccessMeasure, tried_out

__all__ = ["JudgedCandidates", "RankerCost", "comparable", "fit_ranker"]
__all__ += ["judge_candidates", "measure_ranker", "pairwise_loss", "train_ranker"]

RankerCost = Callable[[Mapping[str, FloatArray], FloatArray], FloatArray]
"""The planner's cost: context arrays `[B, ...]` and candidates `[B, K, L, A]` to `[B, K]`."""

PROBLEMS_AT_ONCE = 64
SMALLEST_CHANGE, LARGEST_CHANGE = 0.02, 0.5  # std of a perturbation, in the sampler's units
SPREAD = 1e-6  # costs of a problem that differ by less say nothing
WARMUP_SHARE = 0.05
CLIP_NORM = 1.0


class JudgedCandidates(NamedTuple):
    """n problems: tokens `[n, S, W]`, candidates `[n, K, M, C]` and their cost `[n, K]`."""

    condition: FloatArray
    diffused: FloatArray
    cost: FloatArray

    def split(self, num: int) -> tuple["JudgedCandidates", "JudgedCandidates"]:
        """The first so many problems, and the others."""
        first, others = zip(*((of[:num], of[num:]) for of in self), strict=True)
        return JudgedCandidates(*first), JudgedCandidates(*others)


def judge_candidates(
    model: DiffusionModel,
    examples: Examples,
    cost: RankerCost,
    config: RankerConfig,
    progress: Progress = silent,
) -> JudgedCandidates:
    """Make candidates for problems drawn from the examples, and ask for their cost."""
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
    actions = project(decode(np.concatenate(diffused, axis=1).astype(np.float32), spec), spec)
    values = cost_of(partial(cost, batch.inputs), actions)
    return JudgedCandidates(encoded.condition, encode(actions, spec), values)


def _sampled(
    sampler: TorchSampler, condition: FloatArray, config: RankerConfig, rng: np.random.Generator
) -> FloatArray:
    """DDIM samples `[B, n, M, C]`, each from noise of its own."""
    count, spec = config.num_sampled, sampler.action_spec
    tokens = np.repeat(condition, count, axis=0)
    noise = rng.standard_normal((len(tokens), *spec.diffused_shape), np.float32)
    if len(noise):
        low, high = (bound.astype(np.float32) for bound in diffused_bounds(spec))
        sample = partial(ddim_sample, correct=clip_to((low, high)))
        denoise = partial(sampler.denoise, condition=tokens)
        noise = sample(denoise, noise, sampler.schedule, config.num_inference_steps)
    return noise.reshape(len(condition), count, *spec.diffused_shape)


def _perturbed(batch: Batch, count: int, spec: ActionSpec, rng: np.random.Generator) -> FloatArray:
    """The true action with noise of all sizes, `[B, n, M, C]`."""
    shape = (len(batch.original), count)
    size = np.exp(rng.uniform(np.log(SMALLEST_CHANGE), np.log(LARGEST_CHANGE), shape))
    noise = rng.standard_normal((*shape, *spec.diffused_shape))
    return batch.original[:, None] + size[..., None, None] * noise


def comparable(cost: FloatArray) -> FloatArray:
    """Costs whose differences mean the same in every problem.

    Costs that are all positive, such as distances, become logarithms: twice as far is as much worse
    near the goal as far from it. Then the mean of each problem is taken away, and all are divided
    by one number, so that a problem whose candidates are all alike weighs little.
    """
    finite = np.isfinite(cost)
    if not finite.any():
        raise CostError("the cost is finite for no candidate: a ranker has nothing to learn")
    worst = np.where(finite, cost, -np.inf).max(axis=1, keepdims=True)
    worst = np.where(np.isfinite(worst), worst, cost[finite].max())
    values = np.where(finite, cost, worst).astype(np.float64)
    if (values > 0.0).all():
        values = np.log(values)
    values = values - values.mean(axis=1, keepdims=True)
    std = float(values.std())
    if std < SPREAD:
        raise CostError(
            f"the cost hardly differs among the candidates of a problem (standard deviation "
            f"{std:.2g}): a ranker has nothing to learn"
        )
    return np.asarray(values / std, np.float32)


def pairwise_loss(predicted: Tensor, cost: Tensor, full_difference: float) -> Tensor:
    """Logistic loss of every pair (RankNet, Burges et al. 2005), weighted by what is at stake.

    A pair counts as much as its costs differ, up to `full_difference`: a single
    perfect candidate must not drown the order of all others, nor noise among equals count at all.
    """
    worse_by = cost.unsqueeze(2) - cost.unsqueeze(1)
    weight = (worse_by / full_difference).clamp(0.0, 1.0)  # of pairs (i, j) where i is worse
    margin = predicted.unsqueeze(2) - predicted.unsqueeze(1)
    return (weight * functional.softplus(-margin)).sum() / weight.sum().clamp_min(1e-6)


class RankerTask(ShuffledTask):
    """The pairwise loss of batches of problems; its state is the best epoch so far."""

    def __init__(
        self,
        model: RankerNetwork,
        judged: JudgedCandidates,
        config: RankerConfig,
        best: BestEpoch | None,
    ) -> None:
        how = config.batch_size, config.num_epochs, config.seed
        super().__init__(len(judged.cost), 1.0, *how)
        self.model, self.best, self._full = model, best, config.full_difference
        to_device = partial(torch.as_tensor, device=next(model.parameters()).device)
        values = (judged.condition, judged.diffused, comparable(judged.cost))
        self._condition, self._diffused, self._cost = map(to_device, values)

    def loss(self, step: int) -> Tensor:
        """The loss of one step."""
        rows = torch.as_tensor(self.rows(step))
        predicted = self.model.rank(self._diffused[rows], self._condition[rows])
        return pairwise_loss(predicted, self._cost[rows], self._full)

    def batch_name(self, step: int) -> str:
        """The problems of a step."""
        return name_rows(self.rows(step), "problems")


def train_ranker(
    model: DiffusionModel,
    examples: Examples,
    cost: RankerCost,
    config: RankerConfig,
    progress: Progress = silent,
    *,
    keep_best: bool = False,
    success: SuccessMeasure | None = None,
    resume_file: Path | None = None,
) -> TrainedRanker:
    """Train a ranker for a trained model; the model stays as it is.

    Args:
        model: Its condition tokens are what the ranker reads.
        examples: Training examples of the model's kind.
        cost: The planner's cost, `(context, candidates [B, K, L, A]) -> [B, K]`.
        config: How.
        progress: Told phase, done, in all.
        keep_best: Keep the most successful epoch, not the last: the one that `success` says, or,
            without it, that most often picks the cheapest candidate of a held-out problem.
        success: Called with the model and the ranker after every epoch; a mapping with `success`.
        resume_file: Keeps the training's state; if it is there, training goes on from it, to the
            same result bit for bit. Deleted by whoever calls, once the ranker is saved.

    Raises:
        ConfigError: The model is unconditional, or there is too little to learn from or choose by.
        CostError: The cost has the wrong shape, or does not tell candidates apart.
        CheckpointError: `resume_file` is of another training.
    """
    made_of = model_fingerprint(model.eval()), examples.data_fingerprint
    judge = partial(judge_candidates, model, examples, cost, config, progress)
    judged = made_once(judge, JudgedCandidates, config, made_of, resume_file)
    held_out, learned = judged.split(int(config.held_out_share * len(judged.cost)))
    if keep_best and success is None and not len(held_out.cost):
        raise ConfigError(
            f"the best epoch needs a judge, or a held_out_share above {config.held_out_share}"
        )

    def measure(ranker: RankerNetwork) -> dict[str, float]:
        return {**measure_ranker(ranker, held_out), **tried_out(success, model, ranker)}

    best = BestEpoch(measure) if keep_best else None
    ranker = fit_ranker(model, learned, config, progress, best, resume_file, made_of)
    return TrainedRanker(ranker, *made_of, measure(ranker))


def fit_ranker(
    model: DiffusionModel,
    judged: JudgedCandidates,
    config: RankerConfig,
    progress: Progress,
    best: BestEpoch | None,
    resume_file: Path | None,
    made_of: tuple[str, ...],
) -> RankerNetwork:
    """Fit a new ranker to candidates whose cost is known; it is left in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        ranker = RankerNetwork(config, model.action_spec, model.condition)
    ranker.to(next(model.parameters()).device)
    task = RankerTask(ranker, judged, config, best)
    adam = torch.optim.AdamW(ranker.parameters(), config.lr, weight_decay=config.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, warmup_cosine(task.total_steps, WARMUP_SHARE))
    told = partial(progress, "train the ranker")
    loop = TrainingLoop(task, adam, rate, clip_norm=CLIP_NORM, progress=told)
    settings = {**config.to_dict(), "made_of": list(made_of), "keeps_best": best is not None}
    run_resumably(loop, resume_file, settings, best)
    if best is not None:
        ranker.load_state_dict(best.weights)
    return ranker.eval()


@torch.inference_mode()
def measure_ranker(ranker: RankerNetwork, judged: JudgedCandidates) -> dict[str, float]:
    """How well it ranks candidates it was not trained on; nothing where there are none."""
    if not len(judged.cost):
        return {}
    device = next(ranker.parameters()).device
    condition, diffused = (torch.as_tensor(array, device=device) for array in judged[:2])
    predicted = ranker.rank(diffused, condition).cpu().numpy()
    order = np.argsort(predicted, axis=1, kind="stable")
    best = judged.cost.argmin(axis=1)[:, None]
    measures = {"spearman": float(np.mean(_spearman(predicted, judged.cost)))}
    for count in (1, 2, 4):
        measures[f"best_in_{count}"] = float((order[:, :count] == best).any(axis=1).mean())
    return measures


def _spearman(one: FloatArray, other: FloatArray) -> FloatArray:
    """Rank correlation of each row of `[n, K]`, ties averaged; 0 where a row is constant."""
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    norm = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.asarray((first * second).sum(axis=1) / np.maximum(norm, 1e-12))
