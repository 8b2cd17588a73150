"""Where numbers and pictures go: always the run's folder, and W&B unless disabled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_training.plots import save_figure
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.strict_json import strict_json

__all__ = ["Tracker"]


class Tracker:
    """Logs one run.

    Args:
        folder: The run's folder.
        config: All settings, for Weights & Biases.
        project: Its project name.
        mode: `offline`, `online` or `disabled`.
        resume: Keep the metrics that are there.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Mapping[str, Any],
        project: str,
        mode: str,
        resume: bool = False,
    ) -> None:
        self._folder = folder
        if not resume:
            folder.metrics.unlink(missing_ok=True)
        self._wandb: Any = None
        if mode != "disabled":
            import wandb

            self._wandb = wandb.init(
                project=project,
                config=dict(config),
                dir=str(folder.folder),
                mode=mode,  # type: ignore[arg-type]
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
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{name}/")
        else:
            flat[name] = value
    return flat
