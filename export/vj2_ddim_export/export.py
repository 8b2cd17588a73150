"""Checkpoint to bundle: write the graphs, prove them, and only then put the folder in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

import vj2_ddim_plugin
from vj2_ddim_export.graphs import OPSET, export_condition, export_denoiser, export_ranker
from vj2_ddim_export.parity import Parity, measure_parity
from vj2_ddim_plugin.bundle import (
    CONDITION,
    DENOISER,
    MANIFEST,
    RANKER,
    read_bundle,
    write_manifest,
)
from vj2_ddim_plugin.files import atomic_path, sha256_of
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint
from vj2_ddim_training.data.gesture_files import require_replaceable
from vj2_ddim_training.diffusion_model import TorchSampler
from vj2_ddim_training.ranker.network import RankedSampler, TrainedRanker, load_ranker

__all__ = ["TOLERANCE", "export_bundle"]

TOLERANCE = 1e-4
UNMEASURED = {"worst_error": 0.0}


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    nhead: int | None = None,
    ranker: Path | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    overwrite: bool = False,
) -> Parity:
    """Export a checkpoint, ours or the original script's.

    Args:
        checkpoint: The file.
        out: The bundle's folder.
        nhead: The head count, for the original script's checkpoints.
        ranker: `ranker.pt`, trained for this checkpoint's model, or None.
        tolerance: Largest relative error of the whole sampling loop.
        seed: Of the inputs of the parity gate.
        overwrite: Replace a bundle that is there; a folder that holds anything else is not.

    Returns:
        The measured parity, which is also in `bundle.json`.

    Raises:
        CheckpointError: The checkpoint or the ranker cannot be opened, or they do not belong
            together.
        ConfigError: `out` holds something that would be lost.
        ParityError: The bundle does not agree with the checkpoint; nothing is written.
    """
    require_replaceable(out, (MANIFEST, DENOISER, CONDITION, RANKER), overwrite)
    loaded = load_checkpoint(checkpoint, nhead)
    model = loaded.model
    trained = None if ranker is None else load_ranker(ranker, model)
    provenance = _provenance(loaded, checkpoint, trained, ranker)
    with atomic_path(out, folder=True) as folder:
        export_denoiser(model, folder / DENOISER)
        if model.condition.inputs:
            export_condition(model, folder / CONDITION)
        reference = TorchSampler(model)
        if trained is not None:
            export_ranker(trained.ranker, model, folder / RANKER)
            reference = RankedSampler(model, trained.ranker)

        def write(parity: dict[str, object]) -> None:
            write_manifest(
                folder,
                action_spec=model.action_spec,
                schedule=model.schedule,
                condition=model.condition,
                parity=parity,
                provenance=provenance,
            )

        write(dict(UNMEASURED))  # the gate reads the bundle as the plugin does
        exported = BundleModel(read_bundle(folder), "cpu")
        parity = measure_parity(exported, reference, tolerance, seed)
        write(parity.to_dict())
    return parity


def _provenance(
    loaded: Checkpoint, checkpoint: Path, trained: TrainedRanker | None, ranker: Path | None
) -> dict[str, Any]:
    """Where the weights came from, and what exported them."""
    provenance: dict[str, Any] = {
        **loaded.provenance,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256_of(checkpoint),
        "data_fingerprint": loaded.data_fingerprint,
        "architecture": loaded.model.config.to_dict(),
        "exported_by": f"vj2-ddim-plugin {vj2_ddim_plugin.__version__}",
        "export_versions": {
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": OPSET,
        },
    }
    if trained is not None and ranker is not None:
        provenance["ranker"] = {
            **trained.provenance,
            "file": ranker.name,
            "file_sha256": sha256_of(ranker),
            "data_fingerprint": trained.data_fingerprint,
            "config": trained.ranker.config.to_dict(),
            "metrics": dict(trained.metrics),
        }
    return provenance
