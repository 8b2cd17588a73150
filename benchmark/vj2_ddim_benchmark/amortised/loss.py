"""What the two kinds are trained with."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

__all__ = ["amortised_loss", "gaussian_nll"]

BETA = 1.0  # the means learn as fast as those of regression; with 0 they hardly learn at all


def gaussian_nll(original: Tensor, mean: Tensor, log_std: Tensor, beta: float = 0.0) -> Tensor:
    """Mean negative log likelihood of independent Gaussians, constant included.

    Plain likelihood learns entries of small spread at the expense of the others: the gradient of a
    mean is divided by its std squared. So each entry may be weighted by its std to the power of
    `2 * beta`, taken as a constant, which moves no optimum (Seitzer et al. 2022, "On the pitfalls
    of heteroscedastic uncertainty estimation with probabilistic neural networks").

    Args:
        original: What was done, `[B, M, C]`.
        mean: `[B, M, C]`.
        log_std: Logarithm of the standard deviation, `[B, M, C]`.
        beta: 0 is the likelihood; 1 gives the means the gradient of the squared error.

    Returns:
        A scalar; with `beta` 0 in nats an entry.
    """
    error = (original - mean) * (-log_std).exp()
    nll = 0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)
    return (nll * (2 * beta * log_std.detach()).exp()).mean()


def amortised_loss(kind: str, original: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean squared error for `regression`, likelihood for `gaussian`; a scalar."""
    if kind == "regression":
        return functional.mse_loss(mean, original)
    return gaussian_nll(original, mean, log_std, BETA)
