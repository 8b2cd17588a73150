"""`vj2-ddim benchmark training`: what training costs, beside the original's algorithm.

All get the same gestures in the same units and noise of the same size, learn without a condition,
and are measured alike: gestures noised to a quarter of the linear betas, denoised in ten steps
(`denoise@0.25`). They take turns, an epoch each, so that a busy machine slows all of them.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.original import OriginalTraining, OriginalTransformer
from vj2_ddim_benchmark.settings import CostSettings, MadeData
from vj2_ddim_plugin.cli.console import Progress, print_table, say
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.gestures import decode
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import ORIGINAL_TRAINING, ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.data.generate import write_gestures
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.evaluation import recreate_from
from vj2_ddim_training.examples import Batch, GestureExamples, open_examples, spread_rows
from vj2_ddim_training.learning_rate import learning_rate_of
from vj2_ddim_training.loop import TrainingLoop
from vj2_ddim_training.measures import recreation_measures
from vj2_ddim_training.run import train_run
from vj2_ddim_training.survey import infer_action_spec
from vj2_ddim_training.trainer import DenoiserTask

SHARE, NUM_STEPS = 0.25, 10
SHOWN = ("mse", "mean_snr_db", "press_accuracy")
PUBLISHED = ModelConfig("minimal", d_model=64, num_layers=3, nhead=4, dim_feedforward=256)
AS_PUBLISHED, PLAIN = "minimal, as published", "original, plain torch"
OURS: dict[str, tuple[ModelConfig, dict[str, Any]]] = {  # what was found to be the quickest
    AS_PUBLISHED: (PUBLISHED, ORIGINAL_TRAINING),
    "minimal, tuned": (PUBLISHED, {"dropout": 0.0, "batch_size": 8, "ema_decay": 0.9}),
    "dit": (
        ModelConfig(patch_size=10, condition="none"),
        {"lr": 2e-3, "batch_size": 16, "ema_decay": 0.9},
    ),
}
V_PREDICTION = replace(ORIGINAL_SCHEDULE, prediction_type="v_prediction")
TARGETS = {"mean_snr_db": 20.0, "mse": 0.002, "press_accuracy": 0.99}
TO_TARGETS = TrainingConfig(
    batch_size=128, lr=4e-3, condition_dropout=0.0, ema_decay=0.99, wandb_mode="disabled"
)
SIZE_TO_TARGETS = ModelConfig(d_model=96, num_layers=2)


@dataclass
class Contender:
    """One that is trained: its next epoch, which returns the loss; and the model as it stands."""

    name: str
    train_epoch: Callable[[], float]
    model: Callable[[], DiffusionModel]
    losses: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    quality: list[dict[str, float]] = field(default_factory=list)

    def take_turn(self, held_out: Batch, seed: int) -> None:
        """Train an epoch on the clock, then measure off it."""
        begun = time.perf_counter(), time.process_time()
        self.losses.append(self.train_epoch())
        self.wall_s.append(time.perf_counter() - begun[0])
        self.processor_s.append(time.process_time() - begun[1])
        model = self.model().eval()
        recreated = recreate_from(model, held_out, SHARE, NUM_STEPS, seed)
        spec = model.action_spec
        self.quality.append(recreation_measures(held_out.actions, decode(recreated, spec), spec))

    def cost_of(self, mse: float) -> dict[str, Any] | None:
        """Epochs and seconds until it is as good; None if it never was."""
        reached = (epoch for epoch, of in enumerate(self.quality, 1) if of["mse"] <= mse)
        epochs = next(reached, None)
        if epochs is None:
            return None
        wall, processor = sum(self.wall_s[:epochs]), sum(self.processor_s[:epochs])
        return {"epochs": epochs, "wall_s": wall, "processor_s": processor}


def training_cost(settings: CostSettings, json_file: Path | None, progress: Progress) -> None:
    """Measure, print, write."""
    measured = measure_training_cost(settings, progress)
    rows = []
    for name, of in measured["contenders"].items():
        last = (f"{of['quality'][-1][key]:.4g}" for key in SHOWN)
        rows.append((name, f"{np.mean(of['processor_s']):.1f}", *_cost_cells(of), *last))
    headings = ("training", "s an epoch", "epochs", "s to equal", "times faster")
    print_table(rows, (*headings, "mse", "SNR dB", "press"), numbers=True)
    both = zip(*(measured["contenders"][of]["losses"] for of in (PLAIN, AS_PUBLISHED)), strict=True)
    table = [(epoch, f"{one:.4f}", f"{other:.4f}") for epoch, (one, other) in enumerate(both, 1)]
    print_table(table, ("epoch", PLAIN, AS_PUBLISHED), title="mean loss", numbers=True)
    found = measured["to_targets"]
    if found is not None:
        measures = ", ".join(f"{name} {found[name]:.4g}" for name in TARGETS)
        say(f"dit by its sketch, {found['wall_s']:.0f} s with all measuring: {measures}")
    write_json(json_file, measured)


def _cost_cells(of: dict[str, Any]) -> tuple[str, str, str]:
    cost = of["to_equal_quality"]
    if cost is None:
        return "", "never", ""
    return str(cost["epochs"]), f"{cost['processor_s']:.1f}", f"{of['times_faster']:.2f}"


def measure_training_cost(settings: CostSettings, progress: Progress) -> dict[str, Any]:
    """The figures, with the machine and its load."""
    use_threads(settings.threads)
    load = [os.getloadavg()]
    with tempfile.TemporaryDirectory() as scratch:
        folders = data_folders(settings, Path(scratch))
        contenders, held_out = _contenders(settings, *folders)
        total = settings.num_epochs
        for turn in range(total):
            for each in contenders:
                each.take_turn(held_out, settings.seed)
            progress("train in turns", turn + 1, total)
        to_targets = None
        if settings.target_epochs:
            to_targets = time_to_targets(settings, *folders, Path(scratch))
    load.append(os.getloadavg())
    wanted = contenders[0].quality[-1]["mse"]
    whole = contenders[0].cost_of(wanted) or {}
    measured = {}
    for each in contenders:
        cost = each.cost_of(wanted)
        names = ("losses", "wall_s", "processor_s")
        measured[each.name] = {name: getattr(each, name) for name in names} | {
            "quality": [{name: of[name] for name in SHOWN} for of in each.quality],
            "to_equal_quality": cost,
            "times_faster": cost and whole["processor_s"] / cost["processor_s"],
        }
    return {
        "contenders": measured,
        "to_targets": to_targets,
        "settings": {
            **vars(settings),
            **{name: {**of[0].to_dict(), **of[1]} for name, of in OURS.items()},
            "to_targets": {**SIZE_TO_TARGETS.to_dict(), **TO_TARGETS.to_dict()},
        },
        "load": load,
        "environment": environment(),
    }


def data_folders(settings: MadeData, scratch: Path) -> tuple[Path, Path]:
    """Training and validation data: those that were told, else made anew."""
    told = settings.data_dir, settings.val_data_dir
    if told[0] is not None and told[1] is not None:
        return told[0], told[1]
    counts = settings.num_made, settings.num_validation
    for number, (name, count) in enumerate(zip(("train", "validation"), counts, strict=True)):
        write_gestures(scratch / name, count, rng=np.random.default_rng((settings.seed, number)))
    return scratch / "train", scratch / "validation"


def open_raw(folder: Path, most: int) -> GestureExamples:
    """At most so many gestures of a folder as they are: nothing scaled, nothing encoded."""
    template = ActionSpec(representation="raw", normalized=False, min_press_steps=0)
    template = replace(template, max_press_steps=None, path_knots=None)
    whole = open_examples(folder, template, "none")
    actions = whole.batch(spread_rows(len(whole), most)).actions
    spec = infer_action_spec(actions, "raw", template)
    return GestureExamples(actions, spec, "none", whole.data_fingerprint)


def _contenders(
    settings: CostSettings, train: Path, validation: Path
) -> tuple[list[Contender], Batch]:
    examples = open_raw(train, settings.num_sequences)
    held_out = open_raw(validation, settings.num_validation)
    return [
        _plain(settings, examples),
        *(_ours(settings, examples, name) for name in OURS),
    ], held_out.batch(np.arange(len(held_out)))


def _plain(settings: CostSettings, examples: GestureExamples) -> Contender:
    """The original's algorithm; to be measured, its weights are put into our `minimal`."""
    torch.manual_seed(settings.seed)
    spec, size = examples.action_spec, PUBLISHED
    sizes = size.d_model, size.num_layers, size.nhead, size.dim_feedforward
    network = OriginalTransformer(*spec.diffused_shape, *sizes)
    actions = torch.from_numpy(examples.actions)
    how = settings.lr, settings.num_epochs, settings.batch_size
    training = OriginalTraining(network, actions, *how)

    def train_epoch() -> float:
        training.epoch()
        return training.epoch_losses[-1]

    def model() -> DiffusionModel:
        same = DiffusionModel(PUBLISHED, spec, ORIGINAL_SCHEDULE)
        same.denoiser.load_state_dict(network.state_dict())
        return same

    return Contender(PLAIN, train_epoch, model)


def _ours(settings: CostSettings, examples: GestureExamples, name: str) -> Contender:
    size, changes = OURS[name]
    same = {"num_epochs": settings.num_epochs, "batch_size": settings.batch_size}
    config = TrainingConfig(**{**same, "lr": settings.lr, "seed": settings.seed, **changes})
    minimal = size.architecture == "minimal"
    loop = denoiser_loop(size, ORIGINAL_SCHEDULE if minimal else V_PREDICTION, config, examples)

    def train_epoch() -> float:
        loop.run((loop.epoch + 1) * loop.task.steps_per_epoch)
        return loop.epoch_losses[-1]

    return Contender(name, train_epoch, lambda: model_of(loop))


def denoiser_loop(
    size: ModelConfig, schedule: NoiseSchedule, config: TrainingConfig, examples: GestureExamples
) -> TrainingLoop:
    """The training of a new denoiser, as `vj2-ddim train` sets it up."""
    torch.manual_seed(config.seed)
    model = DiffusionModel(size, examples.action_spec, schedule, examples.input_shapes)
    if isinstance(model.denoiser, MinimalDenoiser):
        model.denoiser.set_dropout(config.dropout)
    task = DenoiserTask(model, config, examples)
    adam = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    share = learning_rate_of(config, task.total_steps, task.steps_per_epoch)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, share)
    clip, decay = config.clip_norm, config.ema_decay
    return TrainingLoop(task, adam, rate, clip_norm=clip, ema_decay=decay)


def model_of(loop: TrainingLoop) -> DiffusionModel:
    """What it has trained so far, averaged."""
    model: DiffusionModel = loop.model  # type: ignore[assignment]
    return model.eval()


def time_to_targets(
    settings: CostSettings, train: Path, validation: Path, scratch: Path
) -> dict[str, Any]:
    """One whole `vj2-ddim train` of the default architecture by its sketch: reading to the end."""
    epochs = settings.target_epochs
    config = replace(
        TO_TARGETS, num_epochs=epochs, evaluate_every=epochs, num_threads=settings.threads
    )
    config = replace(config, num_validation=settings.num_validation, seed=settings.seed)
    run = RunSettings(
        data_dir=train, val_data_dir=validation, save_dir=scratch / "run", model=SIZE_TO_TARGETS,
        training=config,
    )  # fmt: skip
    begun = time.perf_counter(), time.process_time()
    measures = train_run(run).metrics["conditional"][str(NUM_STEPS)]
    return {
        "wall_s": time.perf_counter() - begun[0],
        "processor_s": time.process_time() - begun[1],
        **{name: measures[name] for name in TARGETS},
        "reached": measures["mse"] <= TARGETS["mse"]
        and all(measures[name] >= TARGETS[name] for name in ("mean_snr_db", "press_accuracy")),
    }
