"""One pass to one Gaussian: goal-conditioned cloning, its Gaussian, and inverse dynamics.

Cloning regresses the whole block from state and goal. Goal-conditioned inverse dynamics after
GC-IDM (arXiv 2605.08732) is told besides how many steps are left, so that goals of several steps
teach it without blurring those of one.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.amortised import base
from vj2_ddim_benchmark.amortised.base import AmortisedConfig, Context, Inputs, Rng, Shapes
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.condition_encoders import LatentEncoder

STD_FLOOR = 0.01  # of the normalized array: a third of a pixel on a screen of 64
BETA = 1.0  # the means learn as fast as those of regression; with 0 they hardly learn at all


class HeadModel(base.AmortisedModel):
    """The denoiser's condition encoder, and layers that read its tokens."""

    def __init__(self, config: AmortisedConfig, spec: ActionSpec, input_shapes: Shapes) -> None:
        super().__init__(config, spec, input_shapes)
        tokens, d_model, width = config.condition_tokens, config.d_model, config.head_width
        told = config.kind == "inverse-dynamics"
        shapes, layers = self.condition.inputs, config.condition_layers
        self.encoder = LatentEncoder(shapes, d_model, layers, config.nhead, tokens)
        shape = config.head_shape(spec)
        self.head = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Flatten(),
            nn.Linear((tokens + told) * d_model, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, math.prod(shape)),
            nn.Unflatten(1, shape),
        )
        self.steps_left = nn.Embedding(config.longest_goal, d_model) if told else None

    def read(self, state: Tensor, goal: Tensor, horizon: Tensor | None = None) -> Tensor:
        """The head's numbers, of `[B, N, D]` and steps to the goal `[B]`; 1 where none are told."""
        tokens: Tensor = self.encoder(state, goal)
        if self.steps_left is not None:
            left = torch.ones_like(state[:, 0, 0]).long() if horizon is None else horizon
            tokens = torch.cat([tokens, self.steps_left(left - 1)[:, None]], dim=1)
        numbers: Tensor = self.head(tokens)
        return numbers

    def forward(
        self, state: Tensor, goal: Tensor, horizon: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log of the std (at least `STD_FLOOR`), `[B, M, C]` each, of `[B, N, D]`."""
        mean, free = self.read(state, goal, horizon).unbind(dim=1)
        return mean, floored(free)

    def loss(self, original: Tensor, inputs: Inputs, chance: base.Chance) -> Tensor:
        """Squared error, or, of a Gaussian, likelihood."""
        mean, log_std = self(**inputs)
        if self.config.kind == "gaussian":
            return gaussian_nll(original, mean, log_std, BETA)
        return functional.mse_loss(mean, original)

    def predict(self, context: Context, batched: bool = False) -> tuple[FloatArray, FloatArray]:
        """Mean and std, `[B, M, C]`; the std is 1 where only the mean is learned."""
        mean, log_std = base.in_rows(self, context, batched)
        learned = self.config.kind == "gaussian"
        return mean, torch.from_numpy(log_std).exp().numpy() if learned else np.ones_like(mean)

    def draw(self, context: Context, how: base.Sampling, num: int, rng: Rng) -> FloatArray:
        """The mean, and samples around it."""
        mean, std = self.predict(context, how.batched)
        noise = rng.standard_normal((num - 1, *mean.shape[1:]))
        samples = mean[:, None] + how.std_scale * std[:, None] * noise
        return np.concatenate([mean[:, None], samples], axis=1)


def floored(free: Tensor) -> Tensor:
    """The log of a std of at least `STD_FLOOR`."""
    return torch.logaddexp(free, torch.full_like(free, math.log(STD_FLOOR)))


def gaussian_nll(original: Tensor, mean: Tensor, log_std: Tensor, beta: float = 0.0) -> Tensor:
    """Mean negative log likelihood of independent Gaussians, constant included, in nats an entry.

    Each is weighted by std^(2 * beta), a constant, so that entries of small spread do not win; with
    1 the means have the gradient of the squared error. Seitzer et al. (2022), "On the pitfalls of
    heteroscedastic uncertainty estimation with probabilistic neural networks".
    """
    return (entry_nll(original, mean, log_std) * (2 * beta * log_std.detach()).exp()).mean()


def entry_nll(original: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Negative log likelihood of each entry under its own Gaussian."""
    error = (original - mean) * (-log_std).exp()
    return 0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)
