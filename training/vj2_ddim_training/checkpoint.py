"""Checkpoints: one file that says all there is to know, and those of the original script.

`torch.load(weights_only=True)` opens both. Ours is a dict with the fields of `FIELDS`; a missing
one raises, because defaults filled in silently are how evaluators measure the wrong model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.settings import shown
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.saved import (
    MISFITS,
    built_with,
    one_line,
    open_saved,
    require_weights,
    save_atomically,
)

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = "vj2-ddim-checkpoint-1"
HISTORY = ("training", "data_fingerprint", "metrics", "provenance")
MODEL = ("model", "action_spec", "schedule", "input_shapes", "weights", "ema_weights")
FIELDS = ("format", *MODEL, *HISTORY)


@dataclass
class Checkpoint:
    """A trained model and its history."""

    model: DiffusionModel  # with the averaged weights where there are some: what is used
    weights: Mapping[str, Any]  # as trained, without averaging
    training: dict[str, Any] = field(default_factory=dict)  # settings; for resuming, the state
    data_fingerprint: str = ""  # names the training data
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last validation
    provenance: dict[str, Any] = field(default_factory=dict)  # versions, and how it was made


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: a full disk or Ctrl-C leaves the file that was there before."""
    model = checkpoint.model
    content = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "action_spec": model.action_spec.to_dict(),
        "schedule": model.schedule.to_dict(),
        "input_shapes": {name: list(shape) for name, shape in model.condition.inputs.items()},
        "weights": dict(checkpoint.weights),
        "ema_weights": model.state_dict(),
        **{name: getattr(checkpoint, name) for name in HISTORY},
    }
    save_atomically(content, path)


def load_checkpoint(path: Path | str, nhead: int | None = None) -> Checkpoint:
    """Open one of our checkpoints, or one of the original script.

    Args:
        path: The file.
        nhead: The head count, of the original script's files alone, which do not hold it.

    Returns:
        The model in evaluation mode, with its history.

    Raises:
        CheckpointError: The file is missing, broken, foreign, lacks a field, or has other heads.
    """
    path = Path(path)
    content = open_saved(path, "checkpoint", "'vj2-ddim train' writes checkpoint.pt")
    if isinstance(content, dict) and "model_state_dict" in content:
        return _from_original(content, path, nhead)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: is neither a checkpoint of this project (format {FORMAT!r}) nor of the "
            f"original script (key 'model_state_dict')"
        )
    missing, unknown = set(FIELDS) - set(content), set(content) - set(FIELDS)
    if missing or unknown:
        raise CheckpointError(
            f"{path}: lacks the fields {sorted(missing)}, and has unknown ones, "
            f"{shown(sorted(map(str, unknown)))}. Train again"
        )
    history = [content[name] for name in HISTORY]
    try:
        if [type(value) for value in history] != [dict, str, dict, dict]:
            raise CheckpointError(f"{', '.join(HISTORY)} are {shown(history)}")
        json.dumps(content["provenance"], allow_nan=False)
        model = _model_of(content)
    except MISFITS as error:
        raise CheckpointError(
            f"{path}: its fields do not fit one another: {one_line(error)}"
        ) from error
    if nhead not in (None, model.config.nhead):
        raise CheckpointError(
            f"{path} holds its head count, {model.config.nhead}; found nhead {nhead}. Leave it "
            f"out: only checkpoints of the original script need it"
        )
    return Checkpoint(model.eval(), content["weights"], *history)


def _model_of(content: Mapping[str, Any]) -> DiffusionModel:
    """The model that the fields describe, with the averaged weights."""
    parts = (
        ModelConfig.from_dict(content["model"]),
        ActionSpec.from_dict(content["action_spec"]),
        NoiseSchedule.from_dict(content["schedule"]),
        {name: tuple(shape) for name, shape in content["input_shapes"].items()},
        content["training"].get("config", {}).get("condition_dropout", 1.0) > 0.0,
    )
    model = built_with(content["ema_weights"], lambda: DiffusionModel(*parts))
    require_weights(content["weights"])
    if not _shapes(content["weights"]) == _shapes(content["ema_weights"]):
        raise CheckpointError("weights and ema_weights differ in names or shapes")
    return model


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _from_original(content: dict[str, Any], path: Path, nhead: int | None) -> Checkpoint:
    """A checkpoint of the original script: sizes are read off the shapes of its weights."""
    if nhead is None:
        raise CheckpointError(
            f"{path} is a checkpoint of the original script, which does not hold its head count: "
            f"`vj2-ddim evaluate` and `vj2-ddim export` take it as --nhead (4 is the script's "
            f"default), `load_checkpoint` as nhead; nothing else reads such a file"
        )
    weights = content["model_state_dict"]
    try:
        require_weights(weights)
        d_model, channels = weights["action_embedding.weight"].shape
        length = weights["pos_encoder.pe"].shape[1]
        dim_feedforward = weights["transformer.layers.0.linear1.weight"].shape[0]
        num_layers = len({key.split(".")[2] for key in weights if key.startswith("transformer.")})
    except MISFITS as error:
        lacks = "lacks the weight " if isinstance(error, KeyError) else ""
        raise CheckpointError(
            f"{path}: 'model_state_dict' is not from the original script: {lacks}{one_line(error)}"
        ) from error
    if channels != 3:
        raise CheckpointError(f"{path}: has {channels} action channels; expected 3 (x, y, press)")
    usual = ActionSpec()  # the data's press lengths, which the script does not record either
    try:
        config = ModelConfig("minimal", d_model, num_layers, nhead, 1, dim_feedforward)
        spec = ActionSpec(
            action_block=length,
            min_press_steps=min(usual.min_press_steps, length),
            max_press_steps=min(usual.longest_press, length),
            representation="raw",
            normalized=False,
        )
        model = built_with(
            {f"denoiser.{name}": weight for name, weight in weights.items()},
            lambda: DiffusionModel(config, spec, ORIGINAL_SCHEDULE),
        )
    except MISFITS as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from error
    history = {name: content.get(name) for name in ("epoch", "loss")}
    made_by = {"made_by": "the original script"}
    return Checkpoint(model.eval(), weights, history, "unknown", {}, made_by)
