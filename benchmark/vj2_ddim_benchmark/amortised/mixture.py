"""A mixture of Gaussians over plans, all of it predicted in one pass: several ways to a goal.

Bishop (1994), "Mixture density networks".
"""

import numpy as np
from torch import Tensor

from vj2_ddim_benchmark.amortised.base import Chance, Context, Inputs, Rng, Sampling, in_rows
from vj2_ddim_benchmark.amortised.heads import BETA, HeadModel, entry_nll, floored
from vj2_ddim_plugin.interface import FloatArray


class MixtureModel(HeadModel):
    """J weights, and J Gaussians with independent entries."""

    def components(self, state: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights `[B, J]`, means and log of the stds `[B, J, M, C]`."""
        numbers, shape = self.read(state, goal), self.action_spec.diffused_shape
        mean, free = numbers[..., 1:].reshape(*numbers.shape[:2], 2, *shape).unbind(dim=2)
        return numbers[..., 0].log_softmax(dim=-1), mean, floored(free)

    def loss(self, original: Tensor, inputs: Inputs, chance: Chance) -> Tensor:
        """See `mixture_loss`."""
        return mixture_loss(original, *self.components(inputs["state"], inputs["goal"]), BETA)

    def draw(self, context: Context, how: Sampling, num: int, rng: Rng) -> FloatArray:
        """Draws from the mixture; the first is the likeliest component's mean where `greedy`."""
        log_weights, mean, log_std = in_rows(self.components, context, how.batched)
        chance = rng.random((num, 1))
        noise = how.std_scale * rng.standard_normal((num, *mean.shape[2:]))
        bounds = np.exp(log_weights.astype(float)).cumsum(axis=1)
        chosen = (chance > bounds[:, None] / bounds[:, None, -1:]).sum(axis=-1)  # [B, num]
        if how.greedy:
            chosen[:, 0], noise[0] = log_weights.argmax(axis=1), 0.0
        rows = np.arange(len(mean))[:, None]
        candidates: FloatArray = mean[rows, chosen] + np.exp(log_std[rows, chosen]) * noise
        return candidates


def mixture_loss(
    original: Tensor, log_weights: Tensor, mean: Tensor, log_std: Tensor, beta: float = 0.0
) -> Tensor:
    """A loss of `[B, M, C]` that has the gradient of the negative log likelihood an entry.

    Each component's, weighted by its share in the plan, and the weights' cross entropy with those
    shares. As of `gaussian_nll`, entries are weighted by std^(2 * beta), a constant.
    """
    nll = entry_nll(original[:, None], mean, log_std)
    share = (log_weights - nll.flatten(2).sum(dim=-1)).softmax(dim=-1).detach()
    weighted = (nll * (2 * beta * log_std.detach()).exp()).flatten(2).sum(dim=-1)
    return (share * (weighted - log_weights)).sum(dim=-1).mean() / original[0].numel()
