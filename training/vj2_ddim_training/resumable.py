"""Training that can be stopped and goes on: what a run keeps of itself, and when."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from vj2_ddim_plugin.errors import CheckpointError, TrainingError
from vj2_ddim_plugin.settings import Settings
from vj2_ddim_training.devices import ProcessLost
from vj2_ddim_training.loop import OnEpoch, TimeIsUp, TrainingLoop
from vj2_ddim_training.processes import hold_interrupts, locked, stop_signals
from vj2_ddim_training.saved import open_saved, save_atomically

__all__ = ["Keeper", "differences", "forget", "made_once", "run_resumably"]

N = TypeVar("N", bound=NamedTuple)

logger = logging.getLogger(__name__)


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
        Keeper(loop, save, file).run(on_epoch)


class Keeper:
    """Trains to the end, and saves a loop to the file: after every epoch, and when told to stop.

    Within an epoch it saves every so many seconds, where told. What goes wrong in between leaves
    the file as it was.
    """

    def __init__(
        self, loop: TrainingLoop, save: Callable[[], None], file: Path, seconds: float = math.inf
    ) -> None:
        self.loop, self.file = loop, file
        self._save, self._seconds = save, seconds
        self._kept = 0  # the step of what is in the file

    def run(self, on_epoch: OnEpoch | None = None, end: Callable[[], bool] = bool) -> None:
        """Train until all is done, or `end` says so after an epoch; `TimeIsUp` is raised on."""
        loop, self._kept = self.loop, self.loop.step
        loop.on_due = self._save_within
        loop.saves_at = time.monotonic() + self._seconds
        try:
            while not (loop.done or end()):
                loop.run((loop.epoch + 1) * loop.task.steps_per_epoch, on_epoch)
                self.save()
        except ProcessLost as error:
            with hold_interrupts():  # whoever started the processes ends the rest
                logger.error("%s", error)
                if loop.step and loop.devices.check_every == 1:
                    self.save()  # the step that could not be taken changed nothing
            raise ProcessLost(f"the training cannot go on; {self._kept_words()}") from error
        except TrainingError as error:
            raise TrainingError(f"{error}; {self._kept_words()}") from error
        except (KeyboardInterrupt, SystemExit, TimeIsUp) as stop:
            loop.require_finite()
            if loop.step:
                with hold_interrupts():
                    self.save()
                if loop.devices.index == 0 and not isinstance(stop, TimeIsUp):
                    words = "stopped after step %d; %s goes on from there"
                    logger.warning(words, loop.step, self.file)
            raise

    def save(self) -> None:
        """Save the loop as it is."""
        self._save()
        self._kept = self.loop.step
        self.loop.saves_at = time.monotonic() + self._seconds

    def _kept_words(self) -> str:
        epoch, more = divmod(self._kept, self.loop.task.steps_per_epoch)
        if not self._kept:
            return "none of it was kept"
        return f"{self.file} is that of " + (f"step {self._kept}" if more else f"epoch {epoch}")

    def _save_within(self) -> None:
        self.loop.require_finite()
        with hold_interrupts():
            self.save()


def made_once(
    make: Callable[[], N],
    kind: type[N],
    config: Settings,
    made_of: tuple[str, ...],
    resume_file: Path | None,
) -> N:
    """Arrays, a named tuple, that take long to make: kept beside the state of their training.

    Those of the same settings and origin are taken up; None keeps nothing.
    """
    if resume_file is None:
        return make()
    file = resume_file.with_name(f"{resume_file.name}.{kind.__name__.lower()}")
    key = repr((sorted(config.to_dict().items()), made_of))
    if file.exists():
        saved = open_saved(file, "file of a training's examples", "delete it to begin anew")
        if isinstance(saved, dict) and saved.get("key") == key:
            return kind(*(saved[name].numpy() for name in kind._fields))
    with locked(file.with_name(f"{file.name}.lock")):
        made = make()
        arrays = {name: torch.as_tensor(array) for name, array in made._asdict().items()}
        save_atomically({"key": key, **arrays}, file)
    return made


def forget(resume_file: Path) -> None:
    """Delete the state of a training whose result is written, and what lies beside it."""
    for left in resume_file.parent.glob(f"{escape(resume_file.name)}*"):
        left.unlink()


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
