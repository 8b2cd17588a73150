"""What a predictor is trained to make small, and the actions that make it large."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vj2_ddim_benchmark.world_model.predictor import Predictor

__all__ = ["adversarial_actions", "changed_tokens", "prediction_loss"]

BETA = 0.5  # errors below it are squared
CHANGED = 1e-4  # a token that moves more than this, anywhere, has changed
STEP = 1.25  # of the sign of the gradient, in radii


def prediction_loss(
    prediction: Tensor, before: Tensor, after: Tensor, change_weight: float
) -> Tensor:
    """Smooth L1 distance of prediction and target over all tokens, and over those that change.

    The tokens that change count as one, however many they are, so that a switch weighs as much as
    a page.

    Args:
        prediction: Predicted latents `[n, N, D]`.
        before: Latents before the action.
        after: Latents after it, the target.
        change_weight: Weight of the tokens that change.

    Returns:
        A scalar.
    """
    changed = changed_tokens(before, after)
    error = functional.smooth_l1_loss(prediction, after, reduction="none", beta=BETA).mean(dim=-1)
    of_changed = (error * changed).sum(dim=-1) / changed.sum(dim=-1).clamp(min=1)
    return (error.mean(dim=-1) + change_weight * of_changed).mean()


def changed_tokens(before: Tensor, after: Tensor) -> Tensor:
    """Which tokens of `[..., D]` change."""
    return (after - before).abs().amax(dim=-1) > CHANGED


def adversarial_actions(
    predictor: Predictor,
    before: Tensor,
    actions: Tensor,
    after: Tensor,
    radius: float,
    change_weight: float,
    generator: torch.Generator,
) -> Tensor:
    """Actions whose x and y are moved by at most `radius` to where the prediction is worse.

    Trained on them, with the outcome of the actions they were, the predictor changes more smoothly
    with the action, and gradient descent through it has more to follow: adversarial world modeling
    of Parthasarathy et al. 2025 (arXiv 2512.09929). As there, one step of the fast gradient sign
    method from a random start. The press stays as it is: the world reads it as pressed or not.

    Args:
        predictor: The predictor; its weights get no gradient.
        before: Latents `[n, N, D]`.
        actions: `[n, L, 3]`, of (x, y, press).
        after: Latents after them.
        radius: Largest change of a coordinate, in screens.
        change_weight: As for `prediction_loss`.
        generator: Of the random start, a CPU generator.

    Returns:
        `[n, L, 3]`, x and y still in [0, 1].
    """
    places, press = actions[..., :2], actions[..., 2:]
    start = torch.rand(places.shape, generator=generator).to(places) * 2.0 - 1.0
    shift = (radius * start).requires_grad_()
    moved = torch.cat([places + shift, press], dim=-1)
    prediction = predictor(before[:, None], moved[:, None])[:, 0]
    loss = prediction_loss(prediction, before, after, change_weight)
    (slope,) = torch.autograd.grad(loss, shift)
    worst = (shift.detach() + STEP * radius * slope.sign()).clamp(-radius, radius)
    return torch.cat([(places + worst).clamp(0.0, 1.0), press], dim=-1)
