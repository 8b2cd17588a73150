"""The one training loop: a `Task` says what is learned, `TrainingLoop` does the rest.

AdamW's steps, clipped gradients, the learning rate over time, the moving average of the weights, a
stop where it goes wrong, and a state from which a run goes on as if it had never stopped, bit for
bit.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from vj2_ddim_plugin.errors import CheckpointError, ConfigError, TrainingError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.processes import hold_interrupts, locked, stop_signals
from vj2_ddim_training.saved import open_saved

__all__ = ["Progress", "ShuffledTask", "StatelessTask", "Task", "TrainingLoop", "choose_device"]
__all__ += ["cosine_by_epoch", "hold_interrupts", "learning_rate_of", "moving_average"]
__all__ += ["name_rows", "run_resumably", "save_atomically", "warmup_cosine"]

Progress = Callable[[int, int, str], None]  # steps done, steps in all, a line about the last step
OnEpoch = Callable[["TrainingLoop"], None]

EXPLODED = 1e4  # a loss so many times that of the beginning has diverged
NUM_NAMED = 8  # examples of a batch that an error names

logger = logging.getLogger(__name__)


class Task(Protocol):
    """What is learned."""

    @property
    def model(self) -> nn.Module:
        """Trained in place."""

    @property
    def total_steps(self) -> int:
        """Steps in all, a whole number of epochs."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""

    def loss(self, step: int) -> Tensor:
        """The loss of one step; it draws from (seed, step) alone, or from state that is saved."""

    def batch_name(self, step: int) -> str:
        """Which examples the latest `loss`, that of this step, was of; for an error."""

    def state_dict(self) -> dict[str, Any]:
        """What `loss` needs besides the step, for example the state of a generator."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""


class StatelessTask:
    """A base for tasks whose steps depend on the step alone."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""


class ShuffledTask(StatelessTask):
    """A base for tasks that see a share of n examples an epoch, in an order of (seed, epoch)."""

    def __init__(self, num: int, share: float, batch_size: int, num_epochs: int, seed: int) -> None:
        self._num, self._batch_size, self._seed = num, batch_size, seed
        self.epoch_length = math.ceil(share * num)
        self.steps_per_epoch = math.ceil(self.epoch_length / batch_size)
        self.total_steps = num_epochs * self.steps_per_epoch
        self._order = (-1, np.empty(0, np.int64))  # an epoch, and its order

    def rows(self, step: int) -> NDArray[np.int64]:
        """The examples of a step's batch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch))
            self._order = epoch, rng.permutation(self._num)[: self.epoch_length]
        return self._order[1][index * self._batch_size :][: self._batch_size]


class TrainingLoop:
    """Takes a task's steps, epoch by epoch; without an `ema_decay` no average is kept."""

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        learning_rate: LRScheduler,
        *,
        clip_norm: float,
        ema_decay: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.task, self.optimizer, self.learning_rate = task, optimizer, learning_rate
        self.clip_norm = clip_norm
        self.progress: Progress = progress or (lambda done, total, line: None)
        self.average: AveragedModel | None = None
        if ema_decay is not None:
            mean = moving_average(ema_decay)
            self.average = AveragedModel(task.model, avg_fn=mean, use_buffers=True)
        self.step = self.epoch = 0  # whole ones done; an epoch is done when `on_epoch` is
        self.losses: list[float] = []  # of the current epoch
        self.epoch_losses: list[float] = []  # the mean of each epoch before it

    @property
    def model(self) -> nn.Module:
        """The averaged model; the trained one itself where no average is kept."""
        return self.task.model if self.average is None else self.average.module

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch * self.task.steps_per_epoch >= self.task.total_steps

    def run(self, until: int | None = None, on_epoch: OnEpoch | None = None) -> None:
        """Train on from where the loop stands, to the end or `until` a step.

        `on_epoch` is called when an epoch's steps are taken, before it counts as done: interrupted
        there, it is called again when the run goes on.
        """
        stop = self.task.total_steps if until is None else min(until, self.task.total_steps)
        while not self.done:
            end = (self.epoch + 1) * self.task.steps_per_epoch
            self.task.model.train()
            while self.step < min(end, stop):
                self._take_step()
                self.progress(self.step, self.task.total_steps, f"loss {self.losses[-1]:.4f}")
            self.require_finite()
            if self.step < end:
                return
            if on_epoch is not None:
                on_epoch(self)
            self.epoch_losses.append(float(np.mean(self.losses)))
            self.epoch, self.losses = self.epoch + 1, []

    def _take_step(self) -> None:
        with hold_interrupts():  # no moment inside to write a checkpoint
            loss = self._with_gradients()
            norm = nn.utils.clip_grad_norm_(self.task.model.parameters(), self.clip_norm)
            value, size = torch.stack([loss.detach(), norm]).tolist()  # one wait for the device
            self._require_sound(value, size)  # before the weights change
            self.optimizer.step()
            self.learning_rate.step()
            if self.average is not None:
                self.average.update_parameters(self.task.model)
            self.losses.append(value)
            self.step += 1

    def _with_gradients(self) -> Tensor:
        try:
            loss = self.task.loss(self.step)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        except (MemoryError, RuntimeError) as error:  # torch has no kind of its own on the CPU
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise TrainingError(
                f"there is not the memory for {self._step_name()}. Use smaller batches or a "
                f"smaller model"
            ) from error
        return loss

    def _require_sound(self, loss: float, norm: float) -> None:
        """Stop where the loss or the norm of the gradient says that training has gone wrong."""
        first = (self.epoch_losses or self.losses or [1.0])[0]
        if not math.isfinite(loss):
            found = f"the loss is {loss}"
        elif not math.isfinite(norm):
            found = f"the norm of the gradient is {norm} (the loss is {loss:.4g})"
        elif abs(loss) > EXPLODED * max(1.0, abs(first)):
            found = f"the loss went from {first:.4g} at the beginning to {loss:.4g}"
        else:
            return
        raise TrainingError(
            f"{found} in {self._step_name()}: training has diverged. Train with a lower learning "
            f"rate, or look at these examples"
        )

    def _step_name(self) -> str:
        batch = self.task.batch_name(self.step)
        return f"step {self.step + 1}, epoch {self.epoch + 1}, whose batch is {batch}"

    def require_finite(self) -> None:
        """Refuse weights that are not finite: they are not to be kept."""
        for name, weight in self.task.model.named_parameters():
            if not weight.isfinite().all():
                raise TrainingError(
                    f"the weight {name} is not finite after step {self.step}, epoch "
                    f"{self.epoch + 1}: training has diverged. Train with a lower learning rate"
                )

    def state_dict(self) -> dict[str, Any]:
        """All that going on needs, as values that `torch.load(weights_only=True)` opens."""
        names = ("step", "epoch", "losses", "epoch_losses")
        state = {name: getattr(self, name) for name in names} | {
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "task": self.task.state_dict(),
            "model": self.task.model.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.module.state_dict()
            state["num_averaged"] = int(self.average.n_averaged)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; `epoch_losses` and `task` may be missing in old files."""
        self.task.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
            self.average.n_averaged.fill_(state["num_averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.task.load_state_dict(state.get("task", {}))
        self.step, self.epoch = state["step"], state["epoch"]
        self.losses = list(state["losses"])
        self.epoch_losses = list(state.get("epoch_losses", []))


def run_resumably(
    loop: TrainingLoop,
    file: Path | None,
    settings: Mapping[str, Any],
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train to the end; what stopped halfway goes on when the same call is made again.

    The file keeps the state after every epoch and on Ctrl-C, SIGTERM or SIGHUP, and is taken up
    where it is there; None keeps nothing. Whoever calls deletes it once the result is written. A
    file that is broken, or of a run with other `settings` (plain values), is a `CheckpointError`,
    one that another process trains to a `ConfigError`.
    """
    if file is None:
        loop.run(on_epoch=on_epoch)
        return

    def save() -> None:
        save_atomically({"settings": dict(settings), "state": loop.state_dict()}, file)

    with stop_signals(), locked(file.with_name(f"{file.name}.lock")):
        if file.exists():
            _take_up(loop, file, settings)
        run_and_save(loop, save, file, on_epoch)


def run_and_save(
    loop: TrainingLoop, save: Callable[[], None], file: Path, on_epoch: OnEpoch | None
) -> None:
    """Train to the end; `save` to the file after every epoch, and when told to stop.

    What goes wrong in between leaves the file as the last epoch left it.
    """
    try:
        while not loop.done:
            loop.run((loop.epoch + 1) * loop.task.steps_per_epoch, on_epoch)
            save()
    except TrainingError as error:
        kept = f"{file} is that of epoch {loop.epoch}" if loop.epoch else "none of it was kept"
        raise TrainingError(f"{error}; {kept}") from error
    except (KeyboardInterrupt, SystemExit):
        loop.require_finite()
        if loop.step:
            with hold_interrupts():
                save()
            logger.warning("stopped after step %d; %s goes on from there", loop.step, file)
        raise


def _take_up(loop: TrainingLoop, file: Path, settings: Mapping[str, Any]) -> None:
    try:
        saved = open_saved(file, "state of a training", "delete it to begin anew")
        different = differences(saved["settings"], settings)
        if not different:
            loop.load_state_dict(saved["state"])
    except Exception as error:  # pickle, zip, and torch errors of many kinds, of many lines
        raise CheckpointError(
            f"{file}: cannot be taken up, it is not the whole state of a training cut short "
            f"({type(error).__name__}). Delete it to begin anew"
        ) from error
    if different:
        raise CheckpointError(
            f"{file}: is of a run with other settings (there, here): {different}. Use the same "
            f"ones, or delete it to begin anew"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not the same in two mappings of settings, and its value in each."""
    pairs = {name: (there.get(name), here.get(name)) for name in {**there, **here}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def name_rows(rows: Sequence[object] | np.ndarray, what: str = "examples") -> str:
    """The first few of some rows of a data set, in words."""
    more = len(rows) - NUM_NAMED
    named = ", ".join(map(str, rows[:NUM_NAMED]))
    return f"{what} {named}" + (f" and {more} more" if more > 0 else "")


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write what `torch.load(weights_only=True)` opens, whole or not at all."""
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a short write
        why = error.__cause__ or error  # without the name of the file, which `atomic_path` says too
        raise CheckpointError(
            f"{path}: cannot be written ({why}). What was there before is untouched; free some "
            f"space and run again"
        ) from error


def warmup_cosine(
    total_steps: int, warmup_share: float, num_cycles: int = 1
) -> Callable[[int], float]:
    """Share of the peak learning rate at each step: linear warm-up, then a cosine down to 0.

    With several cycles that course is run again, each time from half the peak of the time before
    (warm restarts, Loshchilov & Hutter 2017, "SGDR", eq. 5, with a decaying peak), so that a run of
    one cycle more begins as the shorter one ended. The warm-up of each takes at least one step.
    """
    length = math.ceil(total_steps / num_cycles)
    warmup = max(1, round(warmup_share * length))

    def share(step: int) -> float:
        cycle = min(step // length, num_cycles - 1)
        peak, step = 0.5**cycle, step - cycle * length
        if step < warmup:
            return peak * (step + 1) / warmup
        cosine = math.cos(math.pi * (step - warmup) / max(1, length - warmup))
        return peak * 0.5 * (1.0 + cosine)

    return share


def cosine_by_epoch(num_epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The same share where it changes once an epoch: torch's `CosineAnnealingLR` down to 0."""

    def share(step: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * (step // steps_per_epoch) / num_epochs))

    return share


def learning_rate_of(config: TrainingConfig, task: Task) -> Callable[[int], float]:
    """The share of the peak learning rate at each step of a run."""
    if config.lr_schedule == "cosine_by_epoch":
        return cosine_by_epoch(config.num_epochs, task.steps_per_epoch)
    return warmup_cosine(task.total_steps, config.warmup_share, config.num_cycles)


def moving_average(most_decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """For `AveragedModel`: an exponential moving average of the weights.

    Its decay grows from 0.1 to `most_decay`, so that short runs are not averaged with the start.
    """

    def averaged(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        decay = min(most_decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(current, average, decay)

    return averaged


def choose_device(name: str) -> torch.device:
    """The device of a name: `auto` is CUDA if there is one, else the CPU."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        build = torch.version.cuda
        raise ConfigError(
            f"device 'cuda' was asked for and torch {torch.__version__} sees no GPU "
            f"({'built without CUDA' if build is None else f'built for CUDA {build}'}). Install a "
            f"CUDA build of torch, or use 'auto' or 'cpu'"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
