"""The one training loop: a `Task` says what is learned, `TrainingLoop` does the rest.

AdamW's steps, clipped gradients, the learning rate over time, the moving average of the weights, a
stop where it goes wrong, and a state from which a run goes on as if it had never stopped, bit for
bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from vj2_ddim_plugin.errors import TrainingError
from vj2_ddim_training.devices import Devices
from vj2_ddim_training.processes import hold_interrupts

__all__ = ["OnStep", "Progress", "ShuffledTask", "StatelessTask", "StepDone", "Task", "TimeIsUp"]
__all__ += ["TrainingLoop", "moving_average", "name_rows"]

Progress = Callable[[int, int, str], None]  # steps done, steps in all, a line about the last step
OnEpoch = Callable[["TrainingLoop"], None]


class StepDone(NamedTuple):
    """What one step was like."""

    step: int  # whole ones done, this one among them
    loss: float  # of the whole batch
    gradient_norm: float  # before it was clipped
    samples_per_second: float  # of late, reading included


OnStep = Callable[[StepDone], None]


class TimeIsUp(Exception):
    """The training has had its time; it can be resumed."""


TERMINATED = 128 + 15  # the exit status where another process was told to stop
MOST_SKIPPED = 50  # steps in a row whose gradients float16 cannot hold
EXPLODED = 1e4  # a loss so many times that of the beginning has diverged
NUM_NAMED = 8  # examples of a batch that an error names


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

    def losses(self, step: int) -> Iterator[Tensor]:
        """Shares of the loss of one step, whose sum it is; each is made when the last is done with.

        They draw from (seed, step) alone, or from state that is saved.
        """

    def num_examples(self, step: int) -> int:
        """How many examples the batch of a step has."""

    def batch_name(self, step: int) -> str:
        """Which examples the latest `loss`, that of this step, was of; for an error."""

    def state_dict(self) -> dict[str, Any]:
        """What `loss` needs besides the step, for example the state of a generator."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""


class StatelessTask:
    """A base for tasks whose steps are taken whole; their state is the best epoch, if kept."""

    best: Any = None  # a `BestEpoch`

    def loss(self, step: int) -> Tensor:
        """The loss of one step."""
        raise NotImplementedError

    def losses(self, step: int) -> Iterator[Tensor]:
        """That, as a whole."""
        yield self.loss(step)

    def state_dict(self) -> dict[str, Any]:
        """That of the best epoch."""
        return {} if self.best is None else dict(self.best.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self.best is not None:
            self.best.load_state_dict(state)

    def num_examples(self, step: int) -> int:
        """One, where nobody counts."""
        return 1


class ShuffledTask(StatelessTask):
    """A base for tasks that see a share of n examples an epoch, in an order of (seed, epoch)."""

    def __init__(self, num: int, share: float, batch_size: int, num_epochs: int, seed: int) -> None:
        self._num, self._batch_size, self._seed = num, batch_size, seed
        self.epoch_length = math.ceil(share * num)
        self.steps_per_epoch = math.ceil(self.epoch_length / batch_size)
        self.total_steps = num_epochs * self.steps_per_epoch
        self._order = (-1, np.empty(0, np.int64))  # an epoch, and its order

    def num_examples(self, step: int) -> int:
        """All of the batch size, but at the end of an epoch."""
        done = step % self.steps_per_epoch * self._batch_size
        return min(self._batch_size, self.epoch_length - done)

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
        devices: Devices | None = None,
    ) -> None:
        self.task, self.optimizer, self.learning_rate = task, optimizer, learning_rate
        self.clip_norm, self.ema_decay = clip_norm, ema_decay
        self.progress: Progress = progress or (lambda done, total, line: None)
        self.devices = devices or Devices(next(task.model.parameters()).device)
        self.on_step: OnStep = lambda done: None  # told of every step, in order
        self.average = None if ema_decay is None else deepcopy(task.model)
        self._num_averaged = 0
        self.step = self.epoch = 0  # whole ones done; an epoch is done when `on_epoch` is
        self.losses: list[float] = []  # of the current epoch
        self.epoch_losses: list[float] = []  # the mean of each epoch before it
        self.ends_at = self.saves_at = math.inf  # by `time.monotonic`
        self.on_due: Callable[[], None] = lambda: None  # when `saves_at` has come
        self._unseen: list[Tensor] = []  # of the latest steps: loss, flags and norm
        self._news: list[StepDone] = []  # not told yet
        self._told: list[int] = []  # signals to stop, held back
        self._num_skipped, self._rate = 0, 0.0
        self._looked = time.perf_counter()

    @property
    def model(self) -> nn.Module:
        """The averaged model; the trained one itself where no average is kept."""
        return self.task.model if self.average is None else self.average

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch * self.task.steps_per_epoch >= self.task.total_steps

    def run(self, until: int | None = None, on_epoch: OnEpoch | None = None) -> None:
        """Train on from where the loop stands, to the end or `until` a step.

        `on_epoch` is called when an epoch's steps are taken, before it counts as done: interrupted
        there, it is called again when the run goes on.

        Raises:
            TimeIsUp: `ends_at` has come.
            TrainingError: It has gone wrong.
        """
        stop = self.task.total_steps if until is None else min(until, self.task.total_steps)
        several = self.devices.count > 1  # which stop after the same step
        while not self.done:
            end = (self.epoch + 1) * self.task.steps_per_epoch
            self.task.model.train()
            self._looked = time.perf_counter()
            held: AbstractContextManager[list[int]] = nullcontext([])
            with hold_interrupts() if several else held as self._told:
                while self.step < min(end, stop):
                    self._take_step()
                    if self.losses:
                        line = f"loss {self.losses[-1]:.4f}, {self._rate:,.0f} samples/s"
                        self.progress(self.step, self.task.total_steps, line)
                flags = self.look()
                self._tell()
                self._heed(flags)
            self.require_finite()
            if self.step < end:
                return
            if on_epoch is not None:
                on_epoch(self)
            self.epoch_losses.append(float(np.mean(self.losses)))
            self.epoch, self.losses = self.epoch + 1, []

    def _take_step(self) -> None:
        flags: Sequence[bool] = ()
        with hold_interrupts():  # no moment inside to write a checkpoint
            loss = self._with_gradients()
            norm = self.devices.clip(self.task.model.parameters(), self.clip_norm)
            now = time.monotonic()
            raised = bool(self._told), now > self.ends_at, now > self.saves_at
            numbers = torch.stack([loss, *(loss.new_full((), flag) for flag in raised)])
            self._unseen.append(
                torch.cat([self.devices.summed(numbers), norm[None].to(loss.dtype)])
            )
            if len(self._unseen) >= self.devices.check_every:  # else it is not waited for
                flags = self.look()  # before the weights change
            self.devices.step(self.optimizer)
            self.learning_rate.step()
            self._average()
            self.step += 1
        self._tell()
        self._heed(flags)

    def _with_gradients(self) -> Tensor:
        """The loss; of several processes, this one's share of it."""
        try:
            self.optimizer.zero_grad()
            shares = []
            for loss in self.task.losses(self.step):
                self.devices.backward(loss)
                shares.append(loss.detach())
        except (MemoryError, RuntimeError) as error:  # torch has no kind of its own on the CPU
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise TrainingError(
                f"there is not the memory for {self._step_name()}. Use smaller batches or a "
                f"smaller model"
            ) from error
        return shares[0] if len(shares) == 1 else torch.stack(shares).sum()

    def _average(self) -> None:
        if self.average is None or self.ema_decay is None:
            return
        mean, model = moving_average(self.ema_decay), self.task.model
        pairs = zip(
            chain(self.average.parameters(), self.average.buffers()),
            chain(model.parameters(), model.buffers()),
            strict=True,
        )
        with torch.no_grad():
            for average, current in pairs:
                first = self._num_averaged == 0
                average.copy_(current if first else mean(average, current, self._num_averaged))
        self._num_averaged += 1

    def look(self) -> Sequence[bool]:
        """Look at the losses of the latest steps: stop where one says that it has gone wrong.

        Returns whether to stop, whether time is up, and whether to save.
        """
        if not self._unseen:
            return ()
        seen = torch.stack(self._unseen).tolist()  # one wait for the device
        self._unseen = []
        now, step = time.perf_counter(), self.epoch * self.task.steps_per_epoch + len(self.losses)
        seconds, self._looked = max(now - self._looked, 1e-9) / len(seen), now
        for loss, *_, norm in seen:
            self._require_sound(loss, norm, step)
            self.losses.append(loss)
            self._rate = self.task.num_examples(step) / seconds
            step += 1
            self._news.append(StepDone(step, loss, norm, self._rate))
        return [any(flags) for flags in list(zip(*seen, strict=True))[1:4]]

    def _tell(self) -> None:
        while self._news:
            self.on_step(self._news.pop(0))

    def _heed(self, flags: Sequence[bool]) -> None:
        """Do what any of the processes asks for: all do, after the same step."""
        told, late, due = flags or (False, False, False)
        if told:
            raise SystemExit(TERMINATED)  # where it was this one that was told, its signal follows
        if late:
            raise TimeIsUp
        if due:
            self.on_due()

    def _require_sound(self, loss: float, norm: float, step: int) -> None:
        """Stop where the loss or the norm of the gradient says that training has gone wrong."""
        first = (self.epoch_losses or self.losses or [1.0])[0]
        self._num_skipped = 0 if math.isfinite(norm) else self._num_skipped + 1
        if not math.isfinite(loss):
            found = f"the loss is {loss}"
        elif self._num_skipped > (MOST_SKIPPED if self.devices.skips else 0):
            found = f"the norm of the gradient is {norm} (the loss is {loss:.4g})"
        elif abs(loss) > EXPLODED * max(1.0, abs(first)):
            found = f"the loss went from {first:.4g} at the beginning to {loss:.4g}"
        else:
            return
        raise TrainingError(
            f"{found} in {self._step_name(step)}: training has diverged. Train with a lower "
            f"learning rate, or look at these examples"
        )

    def _step_name(self, step: int | None = None) -> str:
        step = self.step if step is None else step
        batch = self.task.batch_name(step)
        return f"step {step + 1}, epoch {self.epoch + 1}, whose batch is {batch}"

    def require_finite(self) -> None:
        """Refuse weights that are not finite: they are not to be kept."""
        self.look()
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
            state |= {"average": self.average.state_dict(), "num_averaged": self._num_averaged}
        return state | self.devices.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; `epoch_losses` and `task` may be missing in old files."""
        self.task.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self._num_averaged = state["num_averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.task.load_state_dict(state.get("task", {}))
        self.devices.load_state_dict(state)
        self.step, self.epoch = state["step"], state["epoch"]
        self.losses = list(state["losses"])
        self.epoch_losses = list(state.get("epoch_losses", []))


def name_rows(rows: Sequence[object] | np.ndarray, what: str = "examples") -> str:
    """The first few of some rows of a data set, in words."""
    more = len(rows) - NUM_NAMED
    named = ", ".join(map(str, rows[:NUM_NAMED]))
    return f"{what} {named}" + (f" and {more} more" if more > 0 else "")


def moving_average(most_decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average of the weights: of average, latest and how many there were.

    Its decay grows from 0.1 to `most_decay`, so that short runs are not averaged with the start.
    """

    def averaged(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        decay = min(most_decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(current, average, decay)

    return averaged
