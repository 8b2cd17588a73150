"""The pairwise loss: of two candidates, the cheaper one should be predicted cheaper."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from vj2_ddim_plugin.errors import CostError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["comparable", "pairwise_loss"]

SPREAD = 1e-6  # costs of a problem that differ by less say nothing


def comparable(cost: FloatArray) -> FloatArray:
    """Costs whose differences mean the same in every problem.

    Costs that are all positive, such as distances, become logarithms: twice as far is as much worse
    near the goal as far from it. Then the mean of each problem is taken away, and all are divided
    by one number, so that a problem whose candidates are all alike weighs little.

    Args:
        cost: `[n, K]`, the planner's; infinite or NaN counts as the worst finite one.

    Returns:
        float32 `[n, K]` of mean 0 a problem and standard deviation 1 over all.

    Raises:
        CostError: All candidates of all problems cost the same, or nothing finite.
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

    Args:
        predicted: `[B, K]`, the ranker's.
        cost: `[B, K]`, from `comparable`.
        full_difference: Difference of two costs that counts in full.

    Returns:
        A scalar; log 2 for a ranker that tells nothing apart.
    """
    worse_by = cost.unsqueeze(2) - cost.unsqueeze(1)
    weight = (worse_by / full_difference).clamp(0.0, 1.0)  # of pairs (i, j) where i is worse
    margin = predicted.unsqueeze(2) - predicted.unsqueeze(1)
    return (weight * functional.softplus(-margin)).sum() / weight.sum().clamp_min(1e-6)
