"""The devices that a step is computed on: one in float32 by plain torch, all else by Accelerate.

Several processes are those that `torchrun` started. Each takes its share of every batch; what is
written, measured or tracked is the work of the first alone.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from vj2_ddim_plugin.errors import ConfigError, TrainingError
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.saved import one_line

__all__ = ["Devices", "ProcessLost", "choose_device", "choose_devices"]

CHECK_EVERY = 10  # steps, on a GPU: to look at a loss is to wait for all that was asked of it
AS_LONG_AS_IT_TAKES = timedelta(days=365)
MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # Accelerate's names

T = TypeVar("T")


class ProcessLost(TrainingError):
    """Another process of the training is gone."""


@contextmanager
def _naming_the_lost() -> Iterator[None]:
    """What the processes say to one another when one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "onnection", "NCCL")):
            raise
        raise ProcessLost(
            f"another process of the training is gone ({one_line(error)}). Its own error says why, "
            f"unless it was killed"
        ) from error


class Devices:
    """One process in float32."""

    index, count = 0, 1  # of this process, and of all
    skips = False  # whether a step of a gradient that is not finite is left out, not an error

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.check_every = 1 if device.type == "cpu" else CHECK_EVERY

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        """The module to call in place of one whose loss is trained."""
        return module

    def joining(self, last: bool) -> AbstractContextManager[None]:
        """Around a share of a step: after the last, gradients are those of all processes."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a share of the loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, weights: Iterable[Tensor], most: float) -> Tensor:
        """Clip the norm of the gradient; returns what it was."""
        return nn.utils.clip_grad_norm_(weights, most)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the weights."""
        optimizer.step()

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def from_first(self, work: Callable[[], T]) -> T:
        """What the work of the first process returns; the others wait for it, however long."""
        return work()

    def state_dict(self) -> dict[str, Any]:
        """What going on needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; state of another precision is left alone."""

    def close(self, failed: bool = False) -> None:
        """Take leave of the other processes, which may be gone where it failed."""


class _Accelerated(Devices):
    """Several processes, mixed precision, or both, by Accelerate."""

    def __init__(self, config: TrainingConfig) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"several processes and precision {config.precision!r} need the module "
                f"{error.name!r}, which is not installed. Run: pip install 'vj2-ddim-plugin[train]'"
            ) from error
        ways = DistributedDataParallelKwargs(
            broadcast_buffers=False,  # they are constants
            find_unused_parameters=config.auxiliary_weight == 0.0,  # its head is idle then
        )
        cpu = choose_device(config.device).type == "cpu"
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does; else it warns
        self._of = Accelerator(
            mixed_precision=MIXED[config.precision], cpu=cpu, kwargs_handlers=[ways]
        )
        super().__init__(self._of.device)
        self.index, self.count = self._of.process_index, self._of.num_processes
        self.skips = self._of.scaler is not None
        self._module, self._optimizer = nn.Module(), None
        self._waiting = None
        if self.count > 1:  # gloo sees at once that a process is gone, and waits without an end
            self._waiting = distributed.new_group(backend="gloo", timeout=AS_LONG_AS_IT_TAKES)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        with warnings.catch_warnings():  # elder torch knows no other name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self._module, self._optimizer = self._of.prepare(module, optimizer)
        return self._module

    def joining(self, last: bool) -> AbstractContextManager[None]:
        alone: AbstractContextManager[None] = self._of.no_sync(self._module)
        return nullcontext() if last else alone

    def backward(self, loss: Tensor) -> None:
        with _naming_the_lost():
            self._of.backward(loss * self.count)  # for the mean over processes is taken

    def clip(self, weights: Iterable[Tensor], most: float) -> Tensor:
        norm: Tensor = self._of.clip_grad_norm_(list(weights), most)
        return norm

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer.step()  # type: ignore[attr-defined]

    def summed(self, values: Tensor) -> Tensor:
        if self.count > 1:
            with _naming_the_lost():
                distributed.all_reduce(values)
        return values

    def from_first(self, work: Callable[[], T]) -> T:
        if self.count == 1:
            return work()
        made: list[Any] = [work() if self.index == 0 else None]
        with _naming_the_lost():
            distributed.broadcast_object_list(made, group=self._waiting)
        result: T = made[0]
        return result

    def state_dict(self) -> dict[str, Any]:
        return {} if self._of.scaler is None else {"scaler": self._of.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._of.scaler is not None and "scaler" in state:
            self._of.scaler.load_state_dict(state["scaler"])

    def close(self, failed: bool = False) -> None:
        from accelerate.state import AcceleratorState, GradientState

        if not failed:
            self._of.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)  # another run may be another's
        GradientState._reset_state()


def choose_devices(config: TrainingConfig) -> Devices:
    """The devices of a training, which joins the other processes where `torchrun` started it."""
    device = choose_device(config.device)
    if config.precision == "float16" and device.type == "cpu":
        raise ConfigError(
            "precision 'float16' needs a GPU; found the device cpu. Use precision='bfloat16', "
            "which needs no scaling, or 'float32'"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"{here} processes were started on this machine, which has "
            f"{torch.cuda.device_count()} GPUs. Start one for each, or use device='cpu'"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 and config.precision == "float32":
        return Devices(device)
    return _Accelerated(config)


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
