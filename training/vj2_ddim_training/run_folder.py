"""A run's folder: one run at a time, and nothing of an earlier one overwritten by accident.

```
RUN/
├── checkpoint.pt     the model, and all that resuming needs
├── best.pt           the epoch with the highest success, where a judge measures it
├── metrics.jsonl     one line an epoch
├── pictures/         epoch_0010_sequences.png, epoch_0010_noise.png, ...
└── wandb/            the Weights & Biases run, unless it is disabled
```
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["RunFolder"]


class RunFolder:
    """Paths of one run.

    Args:
        folder: Where everything goes.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.best = self.folder / "best.pt"
        self.metrics = self.folder / "metrics.jsonl"
        self.pictures = self.folder / "pictures"
        self._lock = self.folder / "run.lock"

    @contextmanager
    def claim(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder while training.

        Args:
            resume: Go on from the checkpoint, which must be there.
            overwrite: Delete an earlier run's checkpoint and metrics first.

        Yields:
            Nothing.

        Raises:
            ConfigError: Another run holds the folder, an earlier one's results would be lost, or
                there is nothing to resume.
        """
        if resume and overwrite:
            raise ConfigError(
                f"{self.folder}: --resume goes on with the run that is there, --overwrite replaces "
                f"it; give one of them"
            )
        if resume and not self.checkpoint.is_file():
            raise ConfigError(f"{self.checkpoint}: nothing to resume; leave out --resume")
        if self.checkpoint.exists() and not (resume or overwrite):
            raise ConfigError(
                f"{self.folder} already holds a run. Go on with --resume, replace it with "
                f"--overwrite, or give another --save-dir"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot hold a run ({error}); give another --save-dir"
            ) from error
        self._take_lock()
        try:
            if overwrite:
                self.checkpoint.unlink(missing_ok=True)
                self.best.unlink(missing_ok=True)
                self.metrics.unlink(missing_ok=True)
            yield
        finally:
            self._lock.unlink(missing_ok=True)

    def _take_lock(self) -> None:
        for _ in range(2):
            try:
                with open(self._lock, "x", encoding="ascii") as stream:
                    stream.write(str(os.getpid()))
                return
            except FileExistsError:
                owner = self._lock.read_text(encoding="ascii").strip()
                if owner.isdigit() and _is_running(int(owner)):
                    raise ConfigError(
                        f"{self.folder} is in use by the running process {owner}. Give another "
                        f"--save-dir, or wait for it to finish; if it is no training run, delete "
                        f"{self._lock}"
                    ) from None
                self._lock.unlink(missing_ok=True)  # left by a run that was killed
        raise ConfigError(f"{self._lock} cannot be taken; another run is starting in this folder")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
