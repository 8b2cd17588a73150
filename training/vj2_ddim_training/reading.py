"""What the steps of a denoiser learn from, read ahead of them by processes of its own.

All randomness of a step is drawn for its whole batch from (seed, step), and each process of a
training takes its share: neither the number of processes nor that of readers changes a run.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vj2_ddim_plugin.errors import TrainingError, VJ2DDIMError
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.diffusion_model import Draws, draw
from vj2_ddim_training.examples import Examples
from vj2_ddim_training.loop import ShuffledTask

__all__ = ["ReadAhead", "Share", "ShareReader", "naming_lost_readers", "num_readers"]

MOST_READERS = 4  # unless told
BATCHES_AHEAD = 2  # of each reader

T = TypeVar("T")


class Share(NamedTuple):
    """A part of a step's batch."""

    weight: float  # its share of the batch's loss
    seed: int  # of the network's own dropout
    original: Tensor
    inputs: dict[str, Tensor]
    draws: Draws

    def to(self, device: torch.device) -> "Share":
        """On a device, without a wait where it was pinned."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        inputs = {name: move(tensor) for name, tensor in self.inputs.items()}
        return self._replace(
            original=move(self.original), inputs=inputs, draws=Draws(*map(move, self.draws))
        )


class ShareReader:
    """Reads what the process `index` of `count` has of a step, in parts."""

    def __init__(
        self,
        order: ShuffledTask,
        examples: Examples,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        index: int = 0,
        count: int = 1,
    ) -> None:
        self.order, self.examples = order, examples
        self.schedule, self.config = schedule, config
        self.index, self.count = index, count

    def __call__(self, step: int) -> list[Share]:
        """At least one, though the batch may have fewer examples than there are processes."""
        rows, seeds = self.order.rows(step), np.random.SeedSequence((self.config.seed, step))
        noise, dropout = seeds.generate_state(2).tolist()
        of_one, total = self.config.noises_per_example, len(rows)
        shape = (total * of_one, *self.examples.action_spec.diffused_shape)
        generator = torch.Generator().manual_seed(noise)
        draws = draw(self.schedule, shape, generator, self.config.condition_dropout)
        mine = np.array_split(np.arange(total), self.count)[self.index]
        weight = 1.0 if len(mine) else 0.0
        mine = mine if len(mine) else np.arange(1)
        batch, first = self.examples.batch(rows[mine]), mine[0]
        as_float = partial(torch.as_tensor, dtype=torch.float32)
        shares = []
        for part in np.array_split(mine, min(self.config.accumulate, len(mine))):
            here = slice(part[0] - first, part[-1] + 1 - first)
            of_batch = slice(part[0] * of_one, (part[-1] + 1) * of_one)
            share = Share(
                weight * len(part) / total,
                dropout + int(part[0]),
                as_float(batch.original[here]),
                {name: as_float(of[here]) for name, of in batch.inputs.items()},
                Draws(*(drawn[of_batch] for drawn in draws)),
            )
            shares.append(share)
        return shares


class _Failed(NamedTuple):
    """An error of the project's, on its way from a reader: torch would bury its message."""

    error: VJ2DDIMError


class _Steps(Dataset[Any]):
    """What is read for a step, as torch's DataLoader asks for it."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self.read = read

    def __getitem__(self, step: int) -> Any:  # noqa: ANN401
        try:
            return self.read(step)
        except VJ2DDIMError as error:
            return _Failed(error)


def _as_it_is(read: T) -> T:
    return read


def _start_reader(number: int) -> None:
    """Signals that stop a training are its own: it ends its readers."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class ReadAhead(Generic[T]):
    """`read(step)` of the steps before `stop`, which are asked for one after the other.

    `num_workers` processes read ahead (0: none does), and tensors are pinned for a GPU.
    """

    def __init__(
        self, read: Callable[[int], T], stop: int, num_workers: int = 0, pin: bool = False
    ) -> None:
        self._read, self._stop = read, stop
        self._num_workers, self._pin = num_workers, pin
        self._next = -1
        self._coming: Iterator[Any] = iter(())

    def __call__(self, step: int) -> T:
        """What is read for a step."""
        if not (self._num_workers or self._pin):
            return self._read(step)
        if step != self._next:
            self._coming = self._from(step)
        self._next = step + 1
        with naming_lost_readers():
            read: Any = next(self._coming)
        if isinstance(read, _Failed):
            self.close()
            raise read.error
        result: T = read
        return result

    def _from(self, step: int) -> Iterator[Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                _Steps(self._read),
                batch_size=None,
                sampler=range(step, self._stop),
                num_workers=self._num_workers,
                collate_fn=_as_it_is,
                pin_memory=self._pin,
                prefetch_factor=BATCHES_AHEAD if self._num_workers else None,
                worker_init_fn=_start_reader,
                generator=torch.Generator(),  # torch's own is the training's
            )
            return iter(loader)

    def close(self) -> None:
        """End the readers."""
        self._next, self._coming = -1, iter(())


@contextmanager
def naming_lost_readers() -> Iterator[None]:
    """What torch raises, anywhere, when a reader died."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads data died ({' '.join(str(error).split())}). It may have been "
            f"killed for want of memory, or of shared memory (/dev/shm): use a smaller batch_size "
            f"or num_workers, num_workers=0 reads without such processes"
        ) from error


def num_readers(config: TrainingConfig, examples: Examples) -> int:
    """How many processes read, chosen where it was left open: none for data held in memory."""
    if config.num_workers is not None:
        return config.num_workers
    if examples.in_memory:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(MOST_READERS, (cores or 1) // here))
