"""Training an amortised model as the denoiser is trained: the same examples in the same order.

The settings are the denoiser's. What has no meaning without noise (condition dropout, noises an
example, the auxiliary loss) is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.amortised.model import AmortisedConfig, AmortisedModel, save_amortised
from vj2_ddim_benchmark.model_files import round_weights
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.examples import Examples
from vj2_ddim_training.loop import (
    StatelessTask,
    TrainingLoop,
    choose_device,
    run_resumably,
    warmup_cosine,
)

__all__ = ["AmortisedTask", "amortised_loss", "gaussian_nll", "train_amortised"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, how much of it is done, and how much there is."""

NUM_LOOKED_AT = 5000  # examples that decide the latents' statistics, as in the denoiser's training
BETA = 1.0  # the means learn as fast as those of regression; with 0 they hardly learn at all


def train_amortised(
    kind: str,
    examples: Examples,
    denoiser: ModelConfig,
    training: TrainingConfig,
    out: Path | str,
    progress: Progress | None = None,
) -> AmortisedModel:
    """Make a model and write it to a file; deterministic in `training.seed`.

    The denoiser's configuration decides the size. Beside `out` a state is kept until the end: what
    stopped halfway goes on, bit for bit, when the same call is made again. The model returned is
    that of averaged weights, on the CPU, rounded to half precision as its file holds them.
    """
    begun, out = time.perf_counter(), Path(out)
    if set(examples.input_shapes) != {"state", "goal"} or not len(examples):
        raise ConfigError(
            f"an amortised model is trained on examples with the inputs 'state' and 'goal'; found "
            f"{len(examples)} examples with {sorted(examples.input_shapes)}"
        )
    config = AmortisedConfig.like(kind, denoiser, examples.action_spec)
    if training.num_threads:
        torch.set_num_threads(training.num_threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = AmortisedModel(config, examples.action_spec, examples.input_shapes)
    loop = _loop(AmortisedTask(model, examples, training), training, progress)
    state = Path(f"{out}.training")
    made_of = {
        "config": config.to_dict(),
        "training": training.to_dict(),
        "data": examples.data_fingerprint,
    }
    run_resumably(loop, state, made_of)
    averaged: AmortisedModel = loop.model.cpu().eval()  # type: ignore[assignment]
    round_weights(averaged)
    save_amortised(
        averaged,
        out,
        data_fingerprint=examples.data_fingerprint,
        training=training.to_dict(),
        provenance={
            "version": version("vj2-ddim-plugin"),
            "torch": str(torch.__version__),
            "num_examples": len(examples),
            "training_seconds": time.perf_counter() - begun,
            "loss_by_epoch": loop.epoch_losses,
        },
    )
    state.unlink(missing_ok=True)
    return averaged


class AmortisedTask(StatelessTask):
    """A batch a step, of all examples, each epoch in the order that the denoiser sees."""

    def __init__(self, model: AmortisedModel, examples: Examples, training: TrainingConfig) -> None:
        looked_at = examples.batch(np.arange(min(NUM_LOOKED_AT, len(examples))))
        model.encoder.set_statistics(torch.from_numpy(looked_at.inputs["state"]))
        self.device = choose_device(training.device)
        self.model: nn.Module = model.to(self.device)
        self.kind, self.examples, self.training = model.config.kind, examples, training
        self.epoch_length = math.ceil(training.epoch_share * len(examples))
        self.steps_per_epoch = math.ceil(self.epoch_length / training.batch_size)
        self.total_steps = training.num_epochs * self.steps_per_epoch
        self._epoch, self._known = -1, np.arange(0)

    def loss(self, step: int) -> Tensor:
        """Of the batch of this step."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.training.batch_size
        chosen = self._order(epoch)[first : first + self.training.batch_size]
        _, original, inputs = self.examples.batch(chosen)
        here = {name: torch.from_numpy(z).float().to(self.device) for name, z in inputs.items()}
        wanted = torch.from_numpy(original).float().to(self.device)
        return amortised_loss(self.kind, wanted, *self.model(**here))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The examples of an epoch; the latest one's are kept."""
        if self._epoch != epoch:
            rng = np.random.default_rng((self.training.seed, epoch))
            self._epoch, self._known = epoch, rng.permutation(len(self.examples))
        return self._known[: self.epoch_length]


def _loop(task: AmortisedTask, training: TrainingConfig, progress: Progress | None) -> TrainingLoop:
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    share = warmup_cosine(task.total_steps, training.warmup_share)
    told = progress or (lambda phase, done, total: None)
    phase = f"train the {task.kind} planner"
    return TrainingLoop(
        task,
        optimizer,
        torch.optim.lr_scheduler.LambdaLR(optimizer, share),
        clip_norm=training.clip_norm,
        ema_decay=training.ema_decay,
        progress=lambda done, total, line: told(phase, done, total),
    )


def gaussian_nll(original: Tensor, mean: Tensor, log_std: Tensor, beta: float = 0.0) -> Tensor:
    """Mean negative log likelihood of independent Gaussians, constant included, in nats an entry.

    The gradient of a mean is divided by its std squared, so that entries of small spread win. Each
    may be weighted by std^(2 * beta), a constant, which moves no optimum; 1 gives the means the
    gradient of the squared error. Seitzer et al. (2022), "On the pitfalls of heteroscedastic
    uncertainty estimation with probabilistic neural networks".
    """
    error = (original - mean) * (-log_std).exp()
    nll = 0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)
    return (nll * (2 * beta * log_std.detach()).exp()).mean()


def amortised_loss(kind: str, original: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean squared error for `regression`, likelihood for `gaussian`; a scalar."""
    if kind == "regression":
        return functional.mse_loss(mean, original)
    return gaussian_nll(original, mean, log_std, BETA)
