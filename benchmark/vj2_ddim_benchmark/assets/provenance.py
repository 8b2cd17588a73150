"""What trained parts were made with, what they measured, and whether they are still the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import vj2_ddim_plugin
from vj2_ddim_benchmark.assets.files import Assets
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import sha256_of, write_json
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.records import to_plain
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.validation import SUCCESS

__all__ = [
    "hashes_of",
    "read_best",
    "read_provenance",
    "settings_as_json",
    "statistics_of",
    "write_provenance",
]

COMMAND = "vj2-ddim benchmark --retrain --threads 1 --out RUN"


def write_provenance(assets: Assets, settings: AssetSettings) -> None:
    """Write `provenance.json` beside parts that were made whole.

    Args:
        assets: A folder with all parts and the denoiser's training run.
        settings: What they were made with.
    """
    contents = {
        "command": COMMAND,
        "version": vj2_ddim_plugin.__version__,
        "settings": settings_as_json(settings),
        "sha256": hashes_of(assets),
        "denoiser": read_best(assets.denoiser),
        "validation_data": statistics_of(*_validation_data(assets)),
    }
    write_json(assets.provenance, contents)


def read_best(run: Path) -> dict[str, Any]:
    """What is known of the best checkpoint of a denoiser's training run: data, steps, success.

    Raises:
        CheckpointError: It cannot be opened.
    """
    best = load_checkpoint(run / "best.pt")
    return {
        "data_fingerprint": best.data_fingerprint,
        "epoch": best.training["epoch"],
        "step": best.training["step"],
        **{name: value for name, value in best.metrics.items() if name.startswith(SUCCESS)},
    }


def statistics_of(latents: FloatArray, actions: FloatArray) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of latents and actions, to tell whether data are the same."""
    return {
        name: {"mean": float(values.mean(dtype=float)), "std": float(values.std(dtype=float))}
        for name, values in (("latents", latents), ("actions", actions))
    }


def _validation_data(assets: Assets) -> tuple[FloatArray, FloatArray]:
    """The states and actions of every transition the denoiser was validated on."""
    spec = read_bundle(assets.bundle).action_spec
    data = open_trajectories(assets.latents, spec, "validation")
    latents, _, actions = data.gather(np.arange(len(data)))
    return latents, actions


def read_provenance(assets: Assets) -> dict[str, Any]:
    """The contents of `provenance.json`.

    Raises:
        DataError: It is missing or not JSON.
    """
    try:
        contents: dict[str, Any] = json.loads(assets.provenance.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{assets.provenance}: cannot be read ({error}); make the parts anew with `{COMMAND}`"
        ) from error
    return contents


def hashes_of(assets: Assets) -> dict[str, str]:
    """sha256 of every file of the parts, by its path in the folder."""
    parts = (assets.world_model, assets.regression, assets.gaussian)
    files = [*parts, *sorted(path for path in assets.bundle.iterdir() if path.is_file())]
    return {path.relative_to(assets.folder).as_posix(): sha256_of(path) for path in files}


def settings_as_json(settings: AssetSettings) -> dict[str, Any]:
    """The settings as JSON holds them."""
    found: dict[str, Any] = json.loads(json.dumps(to_plain(settings)))
    return found
