"""Where numbers and pictures go: always the run's folder, and W&B unless disabled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from vj2_ddim_training.plots import save_figure
from vj2_ddim_training.run_folder import RunFolder

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
            stream.write(json.dumps(record) + "\n")
        if self._wandb is not None:
            self._wandb.log(_flatten(record), step=step)

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


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{name}/")
        else:
            flat[name] = value
    return flat
