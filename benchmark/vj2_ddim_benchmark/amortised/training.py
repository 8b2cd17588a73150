"""Amortised models trained as the denoiser is, and their files.

The denoiser's settings, the same examples in the same order, and the same loop.
"""

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.amortised.base import AmortisedConfig, AmortisedModel, Chance, Shapes
from vj2_ddim_benchmark.amortised.heads import HeadModel
from vj2_ddim_benchmark.amortised.iterative import FlowModel, MIPModel, NetworkModel
from vj2_ddim_benchmark.amortised.mixture import MixtureModel
from vj2_ddim_benchmark.model_files import half_weights, read_model, round_weights
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, VJ2DDIMError
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec
from vj2_ddim_training import loop
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.devices import choose_device
from vj2_ddim_training.examples import Examples, TransitionExamples
from vj2_ddim_training.learning_rate import warmup_cosine
from vj2_ddim_training.resumable import run_resumably
from vj2_ddim_training.saved import save_atomically

FORMAT = "vj2-ddim amortised planner 1"
NAMES = ("config", "action_spec", "condition", "weights", "training", "provenance")
FIELDS: dict[str, type] = {**dict.fromkeys(NAMES, dict), "data_fingerprint": str}
MODELS: dict[str, type[AmortisedModel]] = {
    "mixture": MixtureModel, "mip": MIPModel, "flow": FlowModel, "ddim": NetworkModel,
}  # fmt: skip


def build_amortised(
    config: AmortisedConfig, spec: ActionSpec, input_shapes: Shapes
) -> AmortisedModel:
    """An untrained model of the configured kind."""
    return MODELS.get(config.kind, HeadModel)(config, spec, input_shapes)


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
    try:  # older files have no settings of later kinds
        config = AmortisedConfig.from_dict({**AmortisedConfig().to_dict(), **contents["config"]})
        condition = ConditionSpec.from_dict(contents["condition"])
        spec = ActionSpec.from_dict(contents["action_spec"])
        model = build_amortised(config, spec, condition.inputs)
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
    if not isinstance(examples, TransitionExamples) or not len(examples):
        raise ConfigError(
            f"an amortised model is trained on examples with the inputs 'state' and 'goal'; found "
            f"{len(examples)} examples with {sorted(examples.input_shapes)}"
        )
    spec = examples.action_spec
    config = AmortisedConfig.like(kind, denoiser, spec, training.longest_goal)
    if training.num_threads:
        torch.set_num_threads(training.num_threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = build_amortised(config, spec, examples.input_shapes)
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

    def __init__(
        self, model: AmortisedModel, examples: TransitionExamples, how: TrainingConfig
    ) -> None:
        super().__init__(len(examples), how.epoch_share, how.batch_size, how.num_epochs, how.seed)
        model.encoder.set_statistics(examples.latents())
        self.device, self.how = choose_device(how.device), how
        self.model: nn.Module = model.to(self.device)
        if how.compile:
            for network in dict.fromkeys((model.encoder, *model.children())):
                network.compile()
        self.kind, self.of_batch, self.examples = model.config.kind, model.loss, examples

    def loss(self, step: int) -> Tensor:
        """Of the batch of this step."""
        rows = self.rows(step)
        _, original, inputs = self.examples.batch(rows)
        here = {name: torch.from_numpy(z).float().to(self.device) for name, z in inputs.items()}
        here["horizon"] = torch.from_numpy(self.examples.goal_steps(rows)).to(self.device)
        drawn = torch.Generator().manual_seed((self.how.seed % 2**31) * 2**32 + step)
        wanted = torch.from_numpy(original).float().to(self.device)
        halved = self.how.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=halved):
            return self.of_batch(wanted, here, Chance(drawn, self.how))

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
