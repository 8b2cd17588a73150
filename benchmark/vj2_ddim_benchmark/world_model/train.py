"""Training a world model: collect, fit the encoder, train the predictor, measure, save."""

import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.model_files import round_weights
from vj2_ddim_benchmark.world.collect import Transitions, collect_transitions
from vj2_ddim_benchmark.world.touch import Actions
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.embed import embed_transitions, recorded_transitions
from vj2_ddim_benchmark.world_model.encoders import fitted_encoder
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.networks import Predictor
from vj2_ddim_benchmark.world_model.report import report_world_model
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_training.loop import StatelessTask, TrainingLoop, name_rows
from vj2_ddim_training.resumable import run_resumably

KEPT = (  # what further training cannot change
    "encoder", "screen_size", "patch_size", "token_dim", "noise_floor", "layer_norm",
    "action_block", "width", "num_layers", "num_heads", "num_knots", "cost_kind",
)  # fmt: skip
NUM_ENCODER_FRAMES = 2000  # whitening is fitted to these; more change nothing
NUM_COLOUR_FRAMES = 500  # and the colours of cells to these
BETA = 0.5  # errors below it are squared
STEP = 1.25  # of the sign of the gradient, in radii


def train_world_model(
    config: WorldModelConfig, out: Path | str, progress: Progress = silent, *,
    device: str = "cpu", start: Path | None = None, recorded: Sequence[Path] = (),
) -> WorldModel:  # fmt: skip
    """Make a world model (further, from `start`), write it, and return it in evaluation mode.

    With files of `recorded` transitions it learns from them, whatever `num_trajectories` and
    `horizon` are, and is not measured: the report is of touch screens. Its encoder is fitted to the
    first.
    """
    began = time.perf_counter()
    known = None if start is None else _taken_up(start, config)  # what is wrong is said at once
    hashes = [sha256_of(path) for path in recorded]
    begun = None if start is None else sha256_of(start)
    origin = repr((begun, hashes)) if recorded else begun
    state = Path(f"{out}.training")
    model, parts = known, []
    for found in _transitions(config, recorded, progress):
        model = (model or _untrained(config, found.frames)).to(device)
        parts += embed_transitions(model, found, config.num_moved, config.seed)
    del found  # the pictures are large
    assert model is not None
    tensors = _joined(parts)
    losses = train_predictor(
        model.predictor, *tensors, config, progress, state=state, origin=origin
    )
    round_weights(model.predictor)
    model.provenance = {
        "started_from_sha256": begun,
        "version": version("vj2-ddim-plugin"),
        "torch": str(torch.__version__),
        "num_transitions": tensors[1].shape[:2].numel(),
        "training_seconds": time.perf_counter() - began,
        "loss_by_epoch": losses,
    }
    if recorded:
        model.provenance["recorded_sha256"] = hashes
    else:
        model.report = report_world_model(model, progress=progress)
    model.save(out)
    state.unlink(missing_ok=True)
    return model


def _transitions(
    config: WorldModelConfig, recorded: Sequence[Path], progress: Progress
) -> Iterator[Transitions]:
    """Of one file after another, for pictures are large; without files, of screens of its own."""
    if not recorded:
        how: dict[str, Any] = {"horizon": config.horizon, "size": config.screen_size}
        num, seed = config.num_trajectories, config.seed
        yield collect_transitions(num, split="train", seed=seed, progress=progress, **how)
    for done, file in enumerate(recorded):
        progress("read", done, len(recorded))
        yield recorded_transitions(file, config)


def _joined(parts: list[tuple[NDArray[np.float32], Actions]]) -> tuple[Tensor, Tensor]:
    """Latents `[n, T, N, D]` and actions `[n, T-1, L, 3]` of all files."""
    lengths = [actions.shape[1] for _, actions in parts]
    if len(set(lengths)) > 1:
        raise DataError(
            f"transitions must have equally many touches in a trajectory in every file; found "
            f"{lengths}. Collect them with one horizon"
        )
    total, end = sum(len(actions) for _, actions in parts), 0
    latents, actions = (np.empty((total, *each.shape[1:]), np.float32) for each in parts[0])
    while parts:  # what is large is not kept twice
        part = parts.pop(0)
        begin, end = end, end + len(part[1])
        latents[begin:end], actions[begin:end] = part
    return torch.from_numpy(latents), torch.from_numpy(actions)


def train_predictor(
    predictor: Predictor, latents: Tensor, actions: Tensor, config: WorldModelConfig,
    progress: Progress, *, state: Path | None = None, origin: str | None = None,
) -> list[float]:  # fmt: skip
    """Train on latents `[n, T, N, D]` and actions `[n, T-1, L, 3]`; the mean loss of each epoch."""
    task = PredictorTask(predictor, latents, actions, config)
    rate, total = config.learning_rate, task.total_steps
    optimizer = torch.optim.AdamW(predictor.parameters(), rate, weight_decay=config.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total, pct_start=0.1)
    loop = TrainingLoop(
        task, optimizer, cycle, clip_norm=config.max_grad_norm,
        progress=lambda done, total, line: progress("train", done, total),
    )  # fmt: skip
    run_resumably(loop, state, {**config.to_dict(), "origin": origin})
    predictor.eval()
    return loop.epoch_losses


class PredictorTask(StatelessTask):
    """What one step learns: a batch of transitions, each epoch in a new order."""

    def __init__(
        self, model: Predictor, latents: Tensor, actions: Tensor, config: WorldModelConfig
    ) -> None:
        self.model: nn.Module = model
        self.predictor, self.latents, self.actions, self.config = model, latents, actions, config
        self.generator = torch.Generator().manual_seed(config.seed)
        # Row and step, `[m, 2]`, of each transition that changes the screen, and of some others.
        changed = changed_tokens(latents[:, :-1], latents[:, 1:], config.noticed).any(dim=-1)
        kept = torch.rand(changed.shape, generator=self.generator) < config.unchanged_share
        self.chosen = (changed | kept).nonzero()
        if len(self.chosen) < config.batch_size:
            raise DataError(
                f"found {len(self.chosen)} transitions to train on and batch_size "
                f"{config.batch_size}; collect more trajectories or use smaller batches"
            )
        self.steps_per_epoch = len(self.chosen) // config.batch_size
        self.total_steps = config.num_epochs * self.steps_per_epoch
        self.order = self.chosen  # of the epoch

    def loss(self, step: int) -> Tensor:
        """The loss of the step's batch."""
        config, device = self.config, self.predictor.position.device
        batch = step % self.steps_per_epoch
        if batch == 0:
            shuffled = torch.randperm(len(self.chosen), generator=self.generator)
            self.order = self.chosen[shuffled]
        self.rows = self.order[batch * config.batch_size : (batch + 1) * config.batch_size]
        row, time_step = self.rows.unbind(dim=1)
        before = self.latents[row, time_step].to(device)
        after = self.latents[row, time_step + 1].to(device)
        touch = self.actions[row, time_step].to(device)
        if config.adversarial_radius:
            how = config, self.generator
            touch = adversarial_actions(self.predictor, before, touch, after, *how)
        prediction = self.predictor(before[:, None], touch[:, None])[:, 0]
        return prediction_loss(prediction, before, after, config)

    def batch_name(self, step: int) -> str:
        """The latest batch, by trajectory and step."""
        return name_rows(self.rows.tolist(), "transitions [trajectory, step]")

    def state_dict(self) -> dict[str, Any]:
        """Where the generator stands, and the order of the epoch."""
        return {"generator": self.generator.get_state(), "order": self.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.generator.set_state(state["generator"])
        self.order = state["order"]


def prediction_loss(
    prediction: Tensor, before: Tensor, after: Tensor, config: WorldModelConfig
) -> Tensor:
    """Smooth L1 distance, of `[n, N, D]`, over all tokens, and over those that change."""
    changed = changed_tokens(before, after, config.noticed)
    error = functional.smooth_l1_loss(prediction, after, reduction="none", beta=BETA).mean(dim=-1)
    of_changed = (error * changed).sum(dim=-1) / changed.sum(dim=-1).clamp(min=1)
    return (error.mean(dim=-1) + config.change_weight * of_changed).mean()


def changed_tokens(before: Tensor, after: Tensor, noticed: float) -> Tensor:
    """Which tokens of `[..., D]` change, by more than is `noticed`."""
    return (after - before).abs().amax(dim=-1) > noticed


def adversarial_actions(
    predictor: Predictor, before: Tensor, actions: Tensor, after: Tensor,
    config: WorldModelConfig, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Actions `[n, L, 3]` moved in x and y, at most by the radius, to where prediction is worse.

    Trained on them, with the outcome of the actions they were, the predictor changes more smoothly
    with the action, and gradient descent through it has more to follow: adversarial world modeling
    of Parthasarathy et al. 2025 (arXiv 2512.09929). As there, one step of the fast gradient sign
    method from a random start, which `generator` draws on the CPU. The press stays as it is: the
    world reads it as pressed or not. The predictor's weights get no gradient.
    """
    places, press, radius = actions[..., :2], actions[..., 2:], config.adversarial_radius
    start = torch.rand(places.shape, generator=generator).to(places) * 2.0 - 1.0
    shift = (radius * start).requires_grad_()
    moved = torch.cat([places + shift, press], dim=-1)
    prediction = predictor(before[:, None], moved[:, None])[:, 0]
    loss = prediction_loss(prediction, before, after, config)
    (slope,) = torch.autograd.grad(loss, shift)
    worst = (shift.detach() + STEP * radius * slope.sign()).clamp(-radius, radius)
    return torch.cat([(places + worst).clamp(0.0, 1.0), press], dim=-1)


def _untrained(config: WorldModelConfig, frames: NDArray[np.uint8]) -> WorldModel:
    """An encoder fitted to some of the frames `[n, T, H, W, 3]`, and an untrained predictor."""
    flat = frames.reshape(-1, *frames.shape[2:])
    some = flat[:: max(1, len(flat) // NUM_ENCODER_FRAMES)]
    encoder = fitted_encoder(config, some)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = WorldModel(config, encoder)
    few = some[:NUM_COLOUR_FRAMES]
    model.predictor.glimpse.see_colours(torch.from_numpy(model.encode(few)), torch.from_numpy(few))
    return model


def _taken_up(start: Path, config: WorldModelConfig) -> WorldModel:
    """The world model of a file, to be trained further as `config` says."""
    model = WorldModel.load(start)
    pairs = {name: (getattr(model.config, name), getattr(config, name)) for name in KEPT}
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if different:
        raise ConfigError(
            f"{start}: cannot be trained further, these settings differ (there, here): {different}"
        )
    model.config = config
    return model
