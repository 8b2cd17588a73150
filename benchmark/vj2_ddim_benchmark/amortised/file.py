"""An amortised model and its record as one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vj2_ddim_benchmark.amortised.config import AmortisedConfig
from vj2_ddim_benchmark.amortised.model import AmortisedModel
from vj2_ddim_benchmark.half_precision import half_weights
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import ConditionSpec
from vj2_ddim_plugin.errors import CheckpointError, VJ2DDIMError
from vj2_ddim_plugin.files import atomic_path

__all__ = ["load_amortised", "save_amortised"]

FORMAT = "vj2-ddim amortised planner 1"
FIELDS = {
    "config": dict,
    "action_spec": dict,
    "condition": dict,
    "weights": dict,
    "training": dict,
    "provenance": dict,
    "data_fingerprint": str,
}


def save_amortised(
    model: AmortisedModel,
    path: Path | str,
    *,
    data_fingerprint: str,
    training: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write one file that `torch.load(weights_only=True)` opens, whole or not at all.

    Weights are written in half precision, which halves the file; `fit_amortised` has rounded them.

    Args:
        model: The trained model.
        path: The file to create or replace.
        data_fingerprint: Names the training data.
        training: The training settings, plain values.
        provenance: Versions, losses and times, plain values.

    Raises:
        CheckpointError: The file cannot be written.
    """
    contents = {
        "format": FORMAT,
        "config": model.config.to_dict(),
        "action_spec": model.action_spec.to_dict(),
        "condition": model.condition.to_dict(),
        "weights": half_weights(model),
        "training": dict(training),
        "provenance": dict(provenance),
        "data_fingerprint": data_fingerprint,
    }
    try:
        with atomic_path(path) as temporary:
            torch.save(contents, temporary)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a short write
        raise CheckpointError(
            f"{path}: cannot be written ({error}). What was there before is untouched; free some "
            f"space and train again"
        ) from error


def load_amortised(path: Path | str, kind: str | None = None) -> AmortisedModel:
    """Read a model, in evaluation mode, on the CPU.

    Args:
        path: The file.
        kind: The kind it must be of; None takes any.

    Raises:
        CheckpointError: The file is missing, broken or of another kind; the message names the file
            and the field.
    """
    contents = _read(Path(path))
    try:
        config = AmortisedConfig.from_dict(contents["config"])
        condition = ConditionSpec.from_dict(contents["condition"])
        spec = ActionSpec.from_dict(contents["action_spec"])
        model = AmortisedModel(config, spec, condition.inputs)
        model.load_state_dict(contents["weights"])
    except (VJ2DDIMError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: the fields of this model do not fit one another ({reason}); train it again"
        ) from error
    if model.condition != condition:
        raise CheckpointError(
            f"{path}: the field 'condition' says {condition}, the model has {model.condition}; "
            f"train it again"
        )
    broken = [name for name, value in contents["weights"].items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} is not finite; training diverged, train again")
    if kind is not None and config.kind != kind:
        raise CheckpointError(
            f"{path}: holds a model of kind {config.kind!r}, expected {kind!r}; give the other file"
        )
    return model.eval()


def _read(path: Path) -> dict[str, Any]:
    """The file's contents, every field there and of its type."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; train the model first")
    try:
        contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, and torch errors of many kinds
        raise CheckpointError(
            f"{path}: cannot be opened ({type(error).__name__}: {error}). It may be truncated, or "
            f"no model at all; train it again"
        ) from error
    found = contents.get("format") if type(contents) is dict else type(contents).__name__
    if found != FORMAT:
        raise CheckpointError(f"{path}: found format {found!r}, expected {FORMAT!r}")
    for name, expected in FIELDS.items():
        if not isinstance(contents.get(name), expected):
            raise CheckpointError(
                f"{path}: the field {name!r} is missing or no {expected.__name__}; train the model "
                f"again"
            )
    return contents
