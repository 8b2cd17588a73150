"""Training a world model: collect, fit the encoder, train the predictor, measure, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.world.collect import Transitions, collect_transitions
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.predictor import Predictor
from vj2_ddim_benchmark.world_model.report import report_world_model
from vj2_ddim_plugin.errors import DataError

__all__ = ["Progress", "prediction_loss", "train_predictor", "train_world_model"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, how much of it is done, and how much there is."""

BETA = 0.5  # errors below it are squared
NUM_ENCODER_FRAMES = 2000  # whitening is fitted to these; more change nothing
CHANGED = 1e-4  # a token that moves more than this, anywhere, has changed


def train_world_model(
    config: WorldModelConfig,
    out: Path | str,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
) -> WorldModel:
    """Make a world model and write it to a file.

    Args:
        config: What to make.
        out: The checkpoint to create or replace.
        progress: Told about every step.
        device: Where to train.

    Returns:
        The model that was written, in evaluation mode.
    """
    progress = progress or (lambda phase, done, total: None)
    began = time.perf_counter()
    transitions = _collect(config, progress)
    model = _untrained(config, transitions.frames).to(device)
    latents, actions = model.encode(transitions.frames), transitions.actions
    del transitions  # the frames are large
    losses = train_predictor(
        model.predictor, torch.from_numpy(latents), torch.from_numpy(actions), config, progress
    )
    model.provenance = {
        "version": version("vj2-ddim-plugin"),
        "torch": str(torch.__version__),
        "num_transitions": actions.shape[0] * actions.shape[1],
        "training_seconds": time.perf_counter() - began,
        "loss_by_epoch": losses,
    }
    model.report = report_world_model(model, progress=progress)
    model.save(out)
    return model


def train_predictor(
    predictor: Predictor,
    latents: Tensor,
    actions: Tensor,
    config: WorldModelConfig,
    progress: Progress,
) -> list[float]:
    """Train on the trajectories' transitions, in batches drawn from the configured seed.

    Args:
        predictor: Trained in place, left in evaluation mode.
        latents: `[n, T, N, D]`.
        actions: `[n, T-1, L, 3]`.
        config: Batches, epochs, learning rate, seed.
        progress: Told about every gradient step.

    Returns:
        The mean loss of each epoch.

    Raises:
        DataError: There are fewer transitions than one batch holds.
    """
    device = predictor.position.device
    generator = torch.Generator().manual_seed(config.seed)
    chosen = _choose(latents, config, generator)
    total = config.num_epochs * (len(chosen) // config.batch_size)
    rate = config.learning_rate
    optimizer = torch.optim.AdamW(predictor.parameters(), rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total, pct_start=0.1)
    predictor.train()
    losses = []
    for row, step in _batches(chosen, config.batch_size, config.num_epochs, generator):
        z, target = latents[row, step].to(device), latents[row, step + 1].to(device)
        prediction = predictor(z[:, None], actions[row, step][:, None].to(device))[:, 0]
        loss = prediction_loss(prediction, z, target, config.change_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(predictor.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        progress("train", len(losses), total)
    predictor.eval()
    return [float(value) for value in np.reshape(losses, (config.num_epochs, -1)).mean(axis=1)]


def _batches(
    chosen: Tensor, batch_size: int, num_epochs: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and steps of whole batches, each epoch in a new order."""
    for _ in range(num_epochs):
        order = chosen[torch.randperm(len(chosen), generator=generator)]
        for batch in range(len(chosen) // batch_size):
            row, step = order[batch * batch_size : (batch + 1) * batch_size].unbind(dim=1)
            yield row, step


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
    changed = _changed(before, after)
    error = functional.smooth_l1_loss(prediction, after, reduction="none", beta=BETA).mean(dim=-1)
    of_changed = (error * changed).sum(dim=-1) / changed.sum(dim=-1).clamp(min=1)
    return (error.mean(dim=-1) + change_weight * of_changed).mean()


def _changed(before: Tensor, after: Tensor) -> Tensor:
    """Which tokens of `[..., D]` change."""
    return (after - before).abs().amax(dim=-1) > CHANGED


def _choose(latents: Tensor, config: WorldModelConfig, generator: torch.Generator) -> Tensor:
    """`[m, 2]` row and step of every transition that changes the screen, and a share of others."""
    changed = _changed(latents[:, :-1], latents[:, 1:]).any(dim=-1)
    kept = torch.rand(changed.shape, generator=generator) < config.unchanged_share
    chosen = (changed | kept).nonzero()
    if len(chosen) < config.batch_size:
        raise DataError(
            f"found {len(chosen)} transitions to train on and batch_size {config.batch_size}; "
            f"collect more trajectories or use smaller batches"
        )
    return chosen


def _collect(config: WorldModelConfig, progress: Progress) -> Transitions:
    collected = 0

    def count(added: int) -> None:
        nonlocal collected
        collected += added
        progress("collect", collected, config.num_trajectories * config.horizon)

    return collect_transitions(
        config.num_trajectories,
        horizon=config.horizon,
        split="train",
        seed=config.seed,
        size=config.screen_size,
        progress=count,
    )


def _untrained(config: WorldModelConfig, frames: NDArray[np.uint8]) -> WorldModel:
    """An encoder fitted to some of the frames `[n, T, H, W, 3]`, and an untrained predictor."""
    flat = frames.reshape(-1, *frames.shape[2:])
    encoder = PatchEncoder.fit(
        flat[:: max(1, len(flat) // NUM_ENCODER_FRAMES)],
        patch_size=config.patch_size,
        token_dim=config.token_dim,
        noise_floor=config.noise_floor,
        layer_norm=config.layer_norm,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return WorldModel.create(config, encoder)
