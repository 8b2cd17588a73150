"""A run's checkpoint and the bundle made of it, kept at Weights & Biases."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.run_folder import RunFolder, Tracker

__all__ = ["keep_artifacts", "tracked_run"]


def tracked_run(checkpoint: Path) -> dict[str, Any]:
    """The Weights & Biases run of a checkpoint, from the `run.json` beside it.

    Raises:
        ConfigError: It has none.
    """
    folder = RunFolder(checkpoint.parent)
    run: dict[str, Any] | None = folder.read_identity().get("tracker")
    if not run:
        raise ConfigError(
            f"{folder.identity}: names no Weights & Biases run that artifacts could belong to. "
            f"Train with wandb_mode='offline' or wandb_mode='online'"
        )
    return run


def keep_artifacts(checkpoint: Path, bundle: Path) -> list[str]:
    """Keep both as artifacts of the checkpoint's run, in the mode it had; their names there."""
    run = tracked_run(checkpoint)
    saved = load_checkpoint(checkpoint).training.get("config", {})
    mode = saved.get("wandb_mode", "disabled")
    config = replace(TrainingConfig(), wandb_project=run["project"])
    config = replace(config, wandb_mode="offline" if mode == "disabled" else mode)
    tracker = Tracker(RunFolder(checkpoint.parent), {}, config, resume=True)
    names = [tracker.keep("checkpoint", checkpoint), tracker.keep("bundle", bundle)]
    tracker.close()
    return names
