"""A run's folder, and what is logged there: one run at a time, nothing overwritten by accident.

```
RUN/
├── checkpoint.pt     the model, and all that resuming needs
├── best.pt           the epoch with the highest success, where that is measured
├── metrics.jsonl     one line an epoch
├── pictures/         epoch_0010_sequences.png, epoch_0010_noise.png, ...
└── wandb/            the Weights & Biases run, unless it is disabled
```
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vj2_ddim_plugin.cli.pictures import save_figure
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.processes import locked

__all__ = ["RunFolder", "Tracker", "strict_json"]


class RunFolder:
    """Paths of one run."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.checkpoint, self.best = self.folder / "checkpoint.pt", self.folder / "best.pt"
        self.metrics, self.pictures = self.folder / "metrics.jsonl", self.folder / "pictures"
        self._lock = self.folder / "run.lock"

    @contextmanager
    def claim(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder while training."""
        if resume and overwrite:
            raise ConfigError(
                f"{self.folder}: resume=True goes on with the run that is there, overwrite=True "
                f"replaces it; give one of them"
            )
        if resume and not self.checkpoint.is_file():
            raise ConfigError(f"{self.checkpoint}: nothing to resume; leave out resume=True")
        if self.checkpoint.exists() and not (resume or overwrite):
            raise ConfigError(
                f"{self.folder} already holds a run. Go on with resume=True, replace it with "
                f"overwrite=True, or give another save_dir"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{self.folder} cannot hold a run ({error}); give another save_dir"
            raise ConfigError(message) from error
        with locked(self._lock, "save_dir"):
            for path in (self.checkpoint, self.best, self.metrics) if overwrite else ():
                path.unlink(missing_ok=True)
            yield


class Tracker:
    """Logs one run."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        training: TrainingConfig,
        resume: bool = False,
    ) -> None:
        self._folder = folder
        if not resume:
            folder.metrics.unlink(missing_ok=True)
        self._wandb: Any = None
        if training.wandb_mode != "disabled":
            import wandb

            self._wandb = wandb.init(
                project=training.wandb_project,
                config=dict(settings),
                dir=str(folder.folder),
                mode=training.wandb_mode,  # type: ignore[arg-type]
                settings=wandb.Settings(silent=True),
            )

    def log(self, epoch: int, step: int, numbers: Mapping[str, Any]) -> None:
        """One epoch's numbers; nested ones become `a/b/c` for Weights & Biases."""
        record = {"epoch": epoch, "step": step, **numbers}
        with open(self._folder.metrics, "a", encoding="utf-8") as stream:
            stream.write(strict_json(record) + "\n")
        if self._wandb is not None:
            self._wandb.log(_flatten(record), step=step)

    def forget_after(self, epoch: int) -> None:
        """Drop the lines of later epochs, written by a run that died before its checkpoint."""
        if not self._folder.metrics.exists():
            return
        lines = self._folder.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if _epoch_of(line) <= epoch]
        with atomic_path(self._folder.metrics) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def picture(self, name: str, epoch: int, step: int, figure: Figure) -> None:
        """One picture, as a file and for Weights & Biases."""
        path = self._folder.pictures / f"epoch_{epoch:04d}_{name}.png"
        save_figure(figure, path)
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"pictures/{name}": wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """Finish the Weights & Biases run."""
        if self._wandb is not None:
            self._wandb.finish()


def _epoch_of(line: str) -> float:
    """The epoch of one line of metrics; a line cut off in the middle belongs to none."""
    try:
        return float(json.loads(line)["epoch"])
    except ValueError:
        return math.inf


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{key}/") if inner else {f"{prefix}{key}": value}
    return flat


def strict_json(value: object, indent: int | None = None) -> str:
    """`value` as JSON. Python's own writer would write `NaN`, which is no JSON."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
