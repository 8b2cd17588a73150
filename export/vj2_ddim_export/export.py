"""Checkpoint to bundle: write the graphs, prove them, and only then put the folder in place."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
import torch

import vj2_ddim_plugin
from vj2_ddim_export.graphs import OPSET, export_condition, export_denoiser
from vj2_ddim_export.parity import Parity, measure_parity
from vj2_ddim_plugin.bundle import CONDITION, DENOISER, MANIFEST, read_bundle, write_manifest
from vj2_ddim_plugin.files import atomic_path, sha256_of
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.data.folders import require_replaceable
from vj2_ddim_training.diffusion_model import TorchSampler

__all__ = ["TOLERANCE", "export_bundle"]

TOLERANCE = 1e-4
UNMEASURED = {"worst_error": 0.0}


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    nhead: int | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    overwrite: bool = False,
) -> Parity:
    """Export a checkpoint, ours or the original script's.

    Args:
        checkpoint: The file.
        out: The bundle's folder.
        nhead: The head count, for the original script's checkpoints.
        tolerance: Largest relative error of the whole sampling loop.
        seed: Of the inputs of the parity gate.
        overwrite: Replace a bundle that is there; a folder that holds anything else is not.

    Returns:
        The measured parity, which is also in `bundle.json`.

    Raises:
        CheckpointError: The checkpoint cannot be opened.
        ConfigError: `out` holds something that would be lost.
        ParityError: The bundle does not agree with the checkpoint; nothing is written.
    """
    require_replaceable(out, (MANIFEST, DENOISER, CONDITION), overwrite)
    loaded = load_checkpoint(checkpoint, nhead)
    model = loaded.model
    provenance = {
        **loaded.provenance,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256_of(checkpoint),
        "data_fingerprint": loaded.data_fingerprint,
        "architecture": model.config.to_dict(),
        "exported_by": f"vj2-ddim-plugin {vj2_ddim_plugin.__version__}",
        "export_versions": {
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": OPSET,
        },
    }
    with atomic_path(out, folder=True) as folder:
        export_denoiser(model, folder / DENOISER)
        if model.condition.inputs:
            export_condition(model, folder / CONDITION)

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
        parity = measure_parity(exported, TorchSampler(model), tolerance, seed)
        write(asdict(parity))
    return parity
