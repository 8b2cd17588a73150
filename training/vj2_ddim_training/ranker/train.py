"""Training a ranker: the planner's cost is asked once a candidate, then the network fits it."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import rankdata

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import Examples
from vj2_ddim_training.optimization import warmup_cosine
from vj2_ddim_training.ranker.candidates import (
    JudgedCandidates,
    Progress,
    RankerCost,
    judge_candidates,
)
from vj2_ddim_training.ranker.config import RankerConfig
from vj2_ddim_training.ranker.files import TrainedRanker, model_fingerprint
from vj2_ddim_training.ranker.loss import comparable, pairwise_loss
from vj2_ddim_training.ranker.network import Ranker

__all__ = ["fit_ranker", "measure_ranker", "train_ranker"]

WARMUP_SHARE = 0.05
CLIP_NORM = 1.0


def train_ranker(
    model: DiffusionModel,
    examples: Examples,
    cost: RankerCost,
    config: RankerConfig | None = None,
    progress: Progress | None = None,
) -> TrainedRanker:
    """Train a ranker for a trained model; the model stays as it is.

    Args:
        model: Its condition tokens are what the ranker reads.
        examples: Training examples of the model's kind.
        cost: The planner's cost, `(context, candidates [B, K, L, A]) -> [B, K]`.
        config: How; by default the sizes that suit a touch screen.
        progress: Told `(phase, done, in all)`.

    Returns:
        The ranker, with what it measured on held-out problems. The same seed gives the same one.

    Raises:
        ConfigError: The model is unconditional, or there is too little to learn from.
        CostError: The cost has the wrong shape, or does not tell candidates apart.
    """
    config = config or RankerConfig()
    model.eval()
    judged = judge_candidates(model, examples, cost, config, progress)
    held_out = int(config.held_out_share * len(judged.cost))
    measured, learned = (
        JudgedCandidates(*(array[part] for array in judged))
        for part in (slice(0, held_out), slice(held_out, None))
    )
    ranker = fit_ranker(model, learned, config, progress)
    metrics = measure_ranker(ranker, measured) if held_out else {}
    return TrainedRanker(ranker, model_fingerprint(model), examples.data_fingerprint, metrics)


def fit_ranker(
    model: DiffusionModel,
    judged: JudgedCandidates,
    config: RankerConfig,
    progress: Progress | None = None,
) -> Ranker:
    """Fit a new ranker to candidates whose cost is known.

    Args:
        model: Says what the tokens and the candidates are.
        judged: The candidates.
        config: How.
        progress: Told after every step.

    Returns:
        The ranker, in evaluation mode.

    Raises:
        CostError: The cost does not tell candidates apart.
    """
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        ranker = Ranker(config, model.action_spec, model.condition).to(device)
    values = (judged.condition, judged.diffused, comparable(judged.cost))
    condition, diffused, cost = (torch.as_tensor(array, device=device) for array in values)
    optimizer = torch.optim.AdamW(ranker.parameters(), config.lr, weight_decay=config.weight_decay)
    steps_per_epoch = math.ceil(len(cost) / config.batch_size)
    total = config.num_epochs * steps_per_epoch
    share_of_lr = warmup_cosine(total, WARMUP_SHARE)
    for step in range(total):
        epoch, index = divmod(step, steps_per_epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(cost))
        rows = torch.as_tensor(order[index * config.batch_size :][: config.batch_size])
        for group in optimizer.param_groups:
            group["lr"] = config.lr * share_of_lr(step)
        predicted = ranker.rank(diffused[rows], condition[rows])
        loss = pairwise_loss(predicted, cost[rows], config.full_difference)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(ranker.parameters(), CLIP_NORM)
        optimizer.step()
        if progress is not None:
            progress("train the ranker", step + 1, total)
    return ranker.eval()


@torch.inference_mode()
def measure_ranker(ranker: Ranker, judged: JudgedCandidates) -> dict[str, float]:
    """How well it ranks candidates it was not trained on.

    Args:
        ranker: A fitted ranker.
        judged: Candidates of held-out problems.

    Returns:
        `spearman`, the mean rank correlation with the cost within a problem; and `best_in_1`,
        `best_in_2`, `best_in_4`, how often the cheapest is among so many that it would choose.
    """
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
