"""The diffusion loss: one denoiser call a step, mean squared error on the schedule's target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.diffusion_model import DiffusionModel

__all__ = ["diffusion_loss", "target_of"]


def target_of(original: Tensor, noise: Tensor, alpha: Tensor, schedule: NoiseSchedule) -> Tensor:
    """What the denoiser should return.

    Args:
        original: x_0 `[B, M, C]`.
        noise: epsilon `[B, M, C]`.
        alpha: `alphas_cumprod` at each row's timestep `[B, 1, 1]`.
        schedule: Its prediction type decides: epsilon (Ho et al. 2020, eq. 14), x_0, or
            v = sqrt(alpha) epsilon - sqrt(1 - alpha) x_0 (Salimans & Ho 2022, appendix D).

    Returns:
        `[B, M, C]`.
    """
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "sample":
        return original
    return alpha.sqrt() * noise - (1.0 - alpha).sqrt() * original


def diffusion_loss(
    model: DiffusionModel,
    original: Tensor,
    inputs: Mapping[str, Tensor],
    generator: torch.Generator,
    condition_dropout: float = 0.0,
    noises_per_example: int = 1,
    auxiliary_weight: float = 0.0,
) -> Tensor:
    """Mean squared error at uniformly drawn timesteps.

    Args:
        model: The model.
        original: x_0 `[B, M, C]`, normalized.
        inputs: Condition inputs, `[B, ...]` each.
        generator: A CPU generator; all randomness comes from it.
        condition_dropout: Share of rows whose condition is hidden.
        noises_per_example: Timesteps and noises drawn for each example; its condition is encoded
            once for all of them, which is what makes latents cheap to train on.
        auxiliary_weight: For latents, the weight of a second loss: x_0 regressed from the first
            condition token, so that the encoder learns early where on the screen to look.

    Returns:
        A scalar.
    """
    original = original.repeat_interleave(noises_per_example, dim=0)
    rows, device = len(original), original.device
    timesteps = torch.randint(model.schedule.num_train_timesteps, (rows,), generator=generator)
    noise = torch.randn(original.shape, generator=generator).to(device)
    hidden = (torch.rand(rows, generator=generator) < condition_dropout).to(device)
    alphas = torch.as_tensor(model.schedule.alphas_cumprod, dtype=torch.float32)
    alpha = alphas[timesteps][:, None, None].to(device)
    noisy = alpha.sqrt() * original + (1.0 - alpha).sqrt() * noise
    condition = model.encode(inputs)
    auxiliary = original.new_zeros(())
    if condition is not None:
        if model.config.condition == "latents" and auxiliary_weight > 0.0:
            auxiliary = functional.mse_loss(model.guess(condition), original[::noises_per_example])
        condition = condition.repeat_interleave(noises_per_example, dim=0)
    output = model(noisy, timesteps.to(device), model.hide(condition, hidden))
    loss = functional.mse_loss(output, target_of(original, noise, alpha, model.schedule))
    return loss + auxiliary_weight * auxiliary
