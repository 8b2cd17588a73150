"""Train the host's LeWM on expert episodes: next latent, and its Gaussian regularizer SIGReg."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vj2_ddim_benchmark.two_room.episodes import Episodes
from vj2_ddim_benchmark.two_room.host import import_host
from vj2_ddim_benchmark.two_room.lewm import LeWMConfig, WorldModel, build_lewm, image_transform

__all__ = ["LeWMTraining", "train_lewm"]

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class LeWMTraining:
    """How a LeWM is trained.

    Attributes:
        num_steps: Optimizer steps.
        batch_size: Windows in one step.
        lr: Peak learning rate; warm-up, then cosine decay to 0.
        weight_decay: AdamW's.
        regularizer_weight: Weight of SIGReg (the host's default is 0.09).
        num_projections: Random directions that SIGReg looks along in one step.
        seed: Of weights and batches.
    """

    num_steps: int = 1600
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-3
    regularizer_weight: float = 0.09
    num_projections: int = 256
    seed: int = 0


def train_lewm(
    episodes: Episodes,
    config: LeWMConfig,
    training: LeWMTraining,
    report: Report = lambda step, losses: None,
) -> WorldModel:
    """Train on windows of `num_frames + 1` world-model steps.

    Args:
        episodes: Expert episodes.
        config: Sizes.
        training: How.
        report: Called after each step with its losses.

    Returns:
        The world model, in evaluation mode.
    """
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    model = build_lewm(config)
    regularizer = import_host("wm.loss").SIGReg(num_proj=training.num_projections)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, total_steps=training.num_steps, pct_start=0.05
    )
    mean = episodes.actions.mean(axis=0)
    std = episodes.actions.std(axis=0)
    actions = ((episodes.actions - mean) / std).astype(np.float32)
    windows = episodes.windows(config.num_frames * config.action_block + 1)
    transform = image_transform()
    for step in range(training.num_steps):
        first = rng.choice(windows, training.batch_size)
        frames, blocks = _window(episodes, actions, first, config)
        pixels = transform(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        output = model.encode({"pixels": pixels, "action": blocks})
        latents, acted = output["emb"], output["act_emb"]
        predicted = model.predict(latents[:, :-1], acted[:, :-1])
        prediction = (predicted - latents[:, 1:]).square().mean()
        spread = regularizer(latents.transpose(0, 1))
        loss = prediction + training.regularizer_weight * spread
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, {"prediction": float(prediction.detach()), "sigreg": float(spread.detach())})
    model.eval().requires_grad_(False)
    return WorldModel(model, config, mean, std)


def _window(
    episodes: Episodes, actions: np.ndarray, first: np.ndarray, config: LeWMConfig
) -> tuple[Tensor, Tensor]:
    """Frames `[B, T, 3, H, W]` and action blocks `[B, T, action_block * A]`; the last is unused."""
    block, frames = config.action_block, config.num_frames + 1
    at = first[:, None] + block * np.arange(frames)
    within = np.minimum(at[..., None] + np.arange(block), len(actions) - 1)
    blocks = torch.from_numpy(actions[within].reshape(len(first), frames, -1))
    return episodes.images[torch.from_numpy(at)], blocks
