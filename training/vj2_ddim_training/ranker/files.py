"""`ranker.pt`: a trained ranker, beside the checkpoint of the model that it belongs to."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError, VJ2DDIMError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.ranker.config import RankerConfig
from vj2_ddim_training.ranker.network import Ranker

__all__ = ["TrainedRanker", "load_ranker", "model_fingerprint", "save_ranker"]

FORMAT = "vj2-ddim-ranker-1"
HISTORY = ("model_fingerprint", "data_fingerprint", "metrics", "provenance")
FIELDS = ("format", "config", "weights", *HISTORY)
FINGERPRINT_DIGITS = 16


@dataclass(frozen=True)
class TrainedRanker:
    """A ranker and its history.

    Attributes:
        ranker: In evaluation mode.
        model_fingerprint: Names the model whose condition tokens it reads.
        data_fingerprint: Names the training data.
        metrics: Measured on held-out problems, see `measure_ranker`.
        provenance: Versions.
    """

    ranker: Ranker
    model_fingerprint: str
    data_fingerprint: str
    metrics: Mapping[str, float]
    provenance: Mapping[str, str] = field(
        default_factory=lambda: {
            "vj2_ddim_plugin": vj2_ddim_plugin.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        }
    )


def model_fingerprint(model: DiffusionModel) -> str:
    """16 hexadecimal digits that name a model: its weights and what it samples."""
    digest = hashlib.sha256(repr(sorted(model.action_spec.to_dict().items())).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def save_ranker(trained: TrainedRanker, path: Path) -> None:
    """Write atomically a file that `torch.load(weights_only=True)` opens.

    Raises:
        CheckpointError: The file cannot be written.
    """
    content = {
        "format": FORMAT,
        "config": trained.ranker.config.to_dict(),
        "weights": trained.ranker.state_dict(),
        "model_fingerprint": trained.model_fingerprint,
        "data_fingerprint": trained.data_fingerprint,
        "metrics": dict(trained.metrics),
        "provenance": dict(trained.provenance),
    }
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a short write
        raise CheckpointError(
            f"{path}: cannot be written ({error}). What was there before is untouched"
        ) from error


def load_ranker(path: Path | str, model: DiffusionModel) -> TrainedRanker:
    """Open a ranker, for the model it was trained for.

    Args:
        path: `ranker.pt`.
        model: As loaded from its checkpoint.

    Returns:
        The ranker in evaluation mode, with its history.

    Raises:
        CheckpointError: The file is missing, broken, foreign, lacks a field, or belongs to another
            model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; train_ranker and save_ranker make one")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, and torch errors of many kinds
        raise CheckpointError(
            f"{path}: cannot be opened as a ranker ({type(error).__name__}: {error}). It may be "
            f"truncated, or not a ranker at all"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a ranker of this project (format {FORMAT!r})")
    missing = [name for name in FIELDS if name not in content]
    if missing:
        raise CheckpointError(f"{path}: lacks the fields {missing}. Train it again")
    found, expected = content["model_fingerprint"], model_fingerprint(model)
    if found != expected:
        raise CheckpointError(
            f"{path}: belongs to the model {found}, this one is {expected}; a ranker reads the "
            f"condition tokens of one model alone. Train the ranker again for this checkpoint"
        )
    try:
        config = RankerConfig.from_dict(content["config"])
        ranker = Ranker(config, model.action_spec, model.condition)
        ranker.load_state_dict(content["weights"])
    except (VJ2DDIMError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its fields do not fit one another: {error}") from error
    return TrainedRanker(ranker.eval(), *(content[name] for name in HISTORY))
