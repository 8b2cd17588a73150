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

from vj2_ddim_benchmark.half_precision import round_weights
from vj2_ddim_benchmark.world.collect import Transitions, collect_transitions
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_benchmark.world_model.loss import (
    adversarial_actions,
    changed_tokens,
    prediction_loss,
)
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.predictor import Predictor
from vj2_ddim_benchmark.world_model.report import report_world_model
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import sha256_of

__all__ = ["Progress", "train_predictor", "train_world_model"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, how much of it is done, and how much there is."""

KEPT = (  # what further training cannot change
    "screen_size", "patch_size", "token_dim", "noise_floor", "layer_norm", "action_block", "width",
    "num_layers", "num_heads", "num_knots", "cost_kind",
)  # fmt: skip
NUM_ENCODER_FRAMES = 2000  # whitening is fitted to these; more change nothing


def train_world_model(
    config: WorldModelConfig,
    out: Path | str,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
    start: Path | None = None,
) -> WorldModel:
    """Make a world model and write it to a file.

    Args:
        config: What to make.
        out: The checkpoint to create or replace.
        progress: Told about every step.
        device: Where to train.
        start: A world model to go on from, with its encoder; a new one unless told.

    Returns:
        The model that was written, in evaluation mode.

    Raises:
        CheckpointError: `start` cannot be opened.
        ConfigError: It is not of the size that `config` asks for.
    """
    progress = progress or (lambda phase, done, total: None)
    began = time.perf_counter()
    known = None if start is None else _taken_up(start, config)  # what is wrong is said at once
    transitions = _collect(config, progress)
    model = known or _untrained(config, transitions.frames)
    model.to(device)
    latents, actions = model.encode(transitions.frames), transitions.actions
    del transitions  # the frames are large
    losses = train_predictor(
        model.predictor, torch.from_numpy(latents), torch.from_numpy(actions), config, progress
    )
    round_weights(model.predictor)
    model.provenance = {
        "started_from_sha256": None if start is None else sha256_of(start),
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
        touch = actions[row, step].to(device)
        if config.adversarial_radius:
            touch = adversarial_actions(
                predictor, z, touch, target, config.adversarial_radius, config.change_weight,
                generator,
            )  # fmt: skip
        prediction = predictor(z[:, None], touch[:, None])[:, 0]
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


def _choose(latents: Tensor, config: WorldModelConfig, generator: torch.Generator) -> Tensor:
    """`[m, 2]` row and step of every transition that changes the screen, and a share of others."""
    changed = changed_tokens(latents[:, :-1], latents[:, 1:]).any(dim=-1)
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


def _taken_up(start: Path, config: WorldModelConfig) -> WorldModel:
    """The world model of a file, to be trained further as `config` says."""
    model = WorldModel.load(start)
    different = {
        name: (getattr(model.config, name), getattr(config, name))
        for name in KEPT
        if getattr(model.config, name) != getattr(config, name)
    }
    if different:
        raise ConfigError(
            f"{start}: cannot be trained further, these settings differ (there, here): {different}"
        )
    model.config = config
    return model
