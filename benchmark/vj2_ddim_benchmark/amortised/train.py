"""Training an amortised model as the denoiser is trained: the same examples in the same order.

Batches, epochs, AdamW with warm-up and cosine decay, gradient clipping and the moving average of
the weights are the denoiser's, read from the same `TrainingConfig`. What has no meaning without
noise (condition dropout, noises an example, the auxiliary loss) is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from vj2_ddim_benchmark.amortised.config import AmortisedConfig
from vj2_ddim_benchmark.amortised.file import save_amortised
from vj2_ddim_benchmark.amortised.loss import amortised_loss
from vj2_ddim_benchmark.amortised.model import AmortisedModel
from vj2_ddim_benchmark.half_precision import round_weights
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.devices import choose_device
from vj2_ddim_training.examples import Examples
from vj2_ddim_training.optimization import moving_average, warmup_cosine

__all__ = ["Progress", "fit_amortised", "train_amortised"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, how much of it is done, and how much there is."""

NUM_LOOKED_AT = 5000  # examples that decide the latents' statistics, as in the denoiser's training


def train_amortised(
    kind: str,
    examples: Examples,
    denoiser: ModelConfig,
    training: TrainingConfig,
    out: Path | str,
    progress: Progress | None = None,
) -> AmortisedModel:
    """Make a model and write it to a file; deterministic in `training.seed`.

    Args:
        kind: `regression` or `gaussian`.
        examples: The denoiser's training examples, with the condition `latents`.
        denoiser: The denoiser's configuration, which decides the size.
        training: The denoiser's training settings.
        out: The file to create or replace.
        progress: Told about every step.

    Returns:
        The model that was written, in evaluation mode.

    Raises:
        ConfigError: The kind is unknown, the examples hold no latents, or there are none.
        CheckpointError: The file cannot be written.
    """
    begun = time.perf_counter()
    if set(examples.input_shapes) != {"state", "goal"} or not len(examples):
        raise ConfigError(
            f"an amortised model is trained on examples with the inputs 'state' and 'goal'; found "
            f"{len(examples)} examples with {sorted(examples.input_shapes)}"
        )
    config = AmortisedConfig.like(kind, denoiser, examples.action_spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = AmortisedModel(config, examples.action_spec, examples.input_shapes)
    model, losses = fit_amortised(model, examples, training, progress)
    save_amortised(
        model,
        out,
        data_fingerprint=examples.data_fingerprint,
        training=training.to_dict(),
        provenance={
            "version": version("vj2-ddim-plugin"),
            "torch": str(torch.__version__),
            "num_examples": len(examples),
            "training_seconds": time.perf_counter() - begun,
            "loss_by_epoch": losses,
        },
    )
    return model


def fit_amortised(
    model: AmortisedModel,
    examples: Examples,
    training: TrainingConfig,
    progress: Progress | None = None,
) -> tuple[AmortisedModel, list[float]]:
    """Train on all examples, each epoch in the order that the denoiser sees.

    Args:
        model: An untrained model; its weights are changed.
        examples: What to learn.
        training: How.
        progress: Told about every step.

    Returns:
        The model of averaged weights, on the CPU, in evaluation mode, rounded to half precision as
        its file holds them; the mean loss of each epoch.
    """
    told = progress or (lambda phase, done, total: None)
    if training.num_threads:
        torch.set_num_threads(training.num_threads)
    device = choose_device(training.device)
    looked_at = examples.batch(np.arange(min(NUM_LOOKED_AT, len(examples))))
    model.encoder.set_statistics(torch.from_numpy(looked_at.inputs["state"]))
    model.to(device).train()
    num_batches = math.ceil(_epoch_length(examples, training) / training.batch_size)
    total = training.num_epochs * num_batches
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(total, training.warmup_share))
    average = AveragedModel(model, avg_fn=moving_average(training.ema_decay), use_buffers=True)
    losses: list[float] = []
    for original, inputs in _batches(examples, training):
        here = {name: z.to(device) for name, z in inputs.items()}
        loss = amortised_loss(model.config.kind, original.to(device), *model(**here))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
        rate.step()
        average.update_parameters(model)
        losses.append(float(loss.detach()))
        told(f"train the {model.config.kind} planner", len(losses), total)
    averaged: AmortisedModel = average.module.cpu().eval()  # type: ignore[assignment]
    round_weights(averaged)
    by_epoch = np.reshape(losses, (training.num_epochs, num_batches)).mean(axis=1)
    return averaged, [float(loss) for loss in by_epoch]


def _epoch_length(examples: Examples, training: TrainingConfig) -> int:
    """Examples in one epoch."""
    return math.ceil(training.epoch_share * len(examples))


def _batches(
    examples: Examples, training: TrainingConfig
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """x_0 `[B, M, C]` and condition inputs of every step."""
    for epoch in range(training.num_epochs):
        order = np.random.default_rng((training.seed, epoch)).permutation(len(examples))
        order = order[: _epoch_length(examples, training)]
        for first in range(0, len(order), training.batch_size):
            _, original, inputs = examples.batch(order[first : first + training.batch_size])
            tensors = {name: torch.from_numpy(z).float() for name, z in inputs.items()}
            yield torch.from_numpy(original).float(), tensors
