"""Amortised planners: latents to the mean and std of a plan in one pass.

Trained as the denoiser is: its settings, the same examples in the same order, without noise.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.model_files import half_weights, read_model, round_weights
from vj2_ddim_benchmark.world.collect import silent
from vj2_ddim_plugin.cli.console import Progress
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, VJ2DDIMError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec
from vj2_ddim_training import loop
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.denoisers.dit import DiTDenoiser
from vj2_ddim_training.devices import choose_device
from vj2_ddim_training.examples import Examples
from vj2_ddim_training.learning_rate import warmup_cosine
from vj2_ddim_training.resumable import run_resumably
from vj2_ddim_training.saved import save_atomically

KINDS = ("regression", "gaussian")
STD_FLOOR = 0.01  # of the normalized array: a third of a pixel on a screen of 64
BETA = 1.0  # the means learn as fast as those of regression; with 0 they hardly learn at all
FORMAT = "vj2-ddim amortised planner 1"
NAMES = ("config", "action_spec", "condition", "weights", "training", "provenance")
FIELDS: dict[str, type] = {**dict.fromkeys(NAMES, dict), "data_fingerprint": str}


@dataclass(frozen=True)
class AmortisedConfig(Settings):
    """What is built. All of it is stored in the file."""

    kind: str = setting("regression", "Which loss it is trained with.", choices=KINDS)
    d_model: int = setting(128, "Width of the condition tokens.", low=1)
    nhead: int = setting(4, "Attention heads; must divide `d_model`.", low=1)
    condition_layers: int = setting(2, "Layers that mix latent patches.", low=0)
    condition_tokens: int = setting(16, "Tokens that latents are gathered into.", low=1)
    head_width: int = setting(512, "Width of the two layers that read the tokens.", low=1)

    @classmethod
    def like(cls, kind: str, denoiser: ModelConfig, action_spec: ActionSpec) -> "AmortisedConfig":
        """The denoiser's condition encoder, and a head of about as many weights as it has."""
        if denoiser.condition != "latents":
            found = f"condition 'latents'; found {denoiser.condition!r}"
            raise ConfigError(f"the denoiser to be compared with must have {found}")
        rows, channels = action_spec.diffused_shape
        width, heads, tokens = denoiser.d_model, denoiser.nhead, denoiser.condition_tokens
        layers = denoiser.num_layers
        with torch.random.fork_rng(devices=[]):  # only its size is of interest
            network = DiTDenoiser(rows, channels, width, layers, heads, conditional=True)
        wanted = sum(weight.numel() for weight in network.parameters())
        read = tokens * width + 2 * rows * channels  # read * head + head^2 = wanted, but for biases
        head = max(1, round((math.sqrt(read**2 + 4 * wanted) - read) / 2))
        return cls(kind, width, heads, denoiser.condition_layers, tokens, head)


class AmortisedModel(nn.Module):
    """The denoiser's condition encoder, and a head that predicts the diffused array, normalized."""

    def __init__(
        self, config: AmortisedConfig, spec: ActionSpec, input_shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.config, self.action_spec, shapes = config, spec, dict(input_shapes)
        tokens, d_model, width = config.condition_tokens, config.d_model, config.head_width
        self.condition = ConditionSpec("latents", shapes, tokens, d_model)
        layers = config.condition_layers
        self.encoder = LatentEncoder(shapes, d_model, layers, config.nhead, tokens)
        rows, channels = spec.diffused_shape
        self.head = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Flatten(),
            nn.Linear(tokens * d_model, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, 2 * rows * channels),
            nn.Unflatten(1, (2, rows, channels)),
        )

    def forward(self, state: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the std (at least `STD_FLOOR`), `[B, M, C]` each, of `[B, N, D]`."""
        mean, free = self.head(self.encoder(state, goal)).unbind(dim=1)
        return mean, torch.logaddexp(free, torch.full_like(free, math.log(STD_FLOOR)))

    @torch.inference_mode()
    def predict(self, context: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Mean and std, `[B, M, C]`; one problem at a time, since rounding depends on the batch."""
        state, goal = torch.from_numpy(context["state"]), torch.from_numpy(context["goal"])
        rows = [self(state[[row]], goal[[row]]) for row in range(len(state))]
        mean, std = torch.cat([mean for mean, _ in rows]), torch.cat([std.exp() for _, std in rows])
        return mean.numpy(), std.numpy()


def save_amortised(
    model: AmortisedModel, path: Path | str, *,
    data_fingerprint: str, training: Mapping[str, Any], provenance: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write one file, whole or not at all; weights in half precision, as training rounded them."""
    parts = {name: getattr(model, name) for name in ("config", "action_spec", "condition")}
    contents = {
        "format": FORMAT,
        **{name: part.to_dict() for name, part in parts.items()},
        "weights": half_weights(model),
        "training": dict(training),
        "provenance": dict(provenance),
        "data_fingerprint": data_fingerprint,
    }
    save_atomically(contents, Path(path))


def load_amortised(path: Path | str, kind: str | None = None) -> AmortisedModel:
    """Read a model (of any kind if None) on the CPU; `CheckpointError` names file and field."""
    contents = read_model(Path(path), FORMAT, FIELDS)
    try:
        config = AmortisedConfig.from_dict(contents["config"])
        condition = ConditionSpec.from_dict(contents["condition"])
        spec = ActionSpec.from_dict(contents["action_spec"])
        model = AmortisedModel(config, spec, condition.inputs)
        model.load_state_dict(contents["weights"])
    except (VJ2DDIMError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: the fields of this model do not fit one another ({reason}); train it again"
        ) from error
    if model.condition != condition:
        what = f"the field 'condition' says {condition}, the model has {model.condition}"
        raise CheckpointError(f"{path}: {what}; train it again")
    weights = contents["weights"].items()
    if broken := [name for name, value in weights if not value.isfinite().all()]:
        raise CheckpointError(f"{path}: {broken[0]} is not finite; training diverged, train again")
    if kind not in (None, config.kind):
        what = f"holds a model of kind {config.kind!r}, expected {kind!r}"
        raise CheckpointError(f"{path}: {what}; give the other file")
    return model.eval()


def train_amortised(
    kind: str, examples: Examples, denoiser: ModelConfig, training: TrainingConfig,
    out: Path | str, progress: Progress = silent,
) -> AmortisedModel:  # fmt: skip
    """Make a model and write it to a file; deterministic in `training.seed`."""
    begun, state = time.perf_counter(), Path(f"{out}.training")
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
    steps = _loop(AmortisedTask(model, examples, training), training, progress)
    made_of = {"config": config.to_dict(), "training": training.to_dict()}
    run_resumably(steps, state, {**made_of, "data": examples.data_fingerprint})
    averaged: AmortisedModel = steps.model.cpu().eval()  # type: ignore[assignment]
    round_weights(averaged)
    provenance = {
        "version": version("vj2-ddim-plugin"),
        "torch": str(torch.__version__),
        "num_examples": len(examples),
        "training_seconds": time.perf_counter() - begun,
        "loss_by_epoch": steps.epoch_losses,
    }
    save_amortised(
        averaged, out, provenance=provenance, training=training.to_dict(),
        data_fingerprint=examples.data_fingerprint,
    )  # fmt: skip
    state.unlink(missing_ok=True)
    return averaged


class AmortisedTask(loop.ShuffledTask):
    """A batch a step, of all examples, each epoch in the order that the denoiser sees."""

    def __init__(self, model: AmortisedModel, examples: Examples, how: TrainingConfig) -> None:
        super().__init__(len(examples), how.epoch_share, how.batch_size, how.num_epochs, how.seed)
        model.encoder.set_statistics(examples.latents())
        self.device = choose_device(how.device)
        self.model: nn.Module = model.to(self.device)
        self.kind, self.examples = model.config.kind, examples

    def loss(self, step: int) -> Tensor:
        """Of the batch of this step."""
        _, original, inputs = self.examples.batch(self.rows(step))
        here = {name: torch.from_numpy(z).float().to(self.device) for name, z in inputs.items()}
        wanted = torch.from_numpy(original).float().to(self.device)
        return amortised_loss(self.kind, wanted, *self.model(**here))

    def batch_name(self, step: int) -> str:
        """The examples of a step."""
        return loop.name_rows(self.examples.names(self.rows(step)))


def _loop(task: AmortisedTask, training: TrainingConfig, progress: Progress) -> loop.TrainingLoop:
    decay, phase = training.weight_decay, f"train the {task.kind} planner"
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=training.lr, weight_decay=decay)
    share = warmup_cosine(task.total_steps, training.warmup_share)
    return loop.TrainingLoop(
        task, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share),
        clip_norm=training.clip_norm, ema_decay=training.ema_decay,
        progress=lambda done, total, line: progress(phase, done, total),
    )  # fmt: skip


def gaussian_nll(original: Tensor, mean: Tensor, log_std: Tensor, beta: float = 0.0) -> Tensor:
    """Mean negative log likelihood of independent Gaussians, constant included, in nats an entry.

    Each is weighted by std^(2 * beta), a constant, so that entries of small spread do not win; with
    1 the means have the gradient of the squared error. Seitzer et al. (2022), "On the pitfalls of
    heteroscedastic uncertainty estimation with probabilistic neural networks".
    """
    error = (original - mean) * (-log_std).exp()
    nll = 0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)
    return (nll * (2 * beta * log_std.detach()).exp()).mean()


def amortised_loss(kind: str, original: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean squared error for `regression`, likelihood for `gaussian`; a scalar."""
    if kind == "regression":
        return functional.mse_loss(mean, original)
    return gaussian_nll(original, mean, log_std, BETA)
