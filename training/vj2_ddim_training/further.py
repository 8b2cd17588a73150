"""Training a checkpoint further, on other data: what of it stays, and what must fit."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.settings import declared
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint
from vj2_ddim_training.config import DataSettings, ModelConfig, RunSettings
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import Examples, require_same_norm
from vj2_ddim_training.resumable import differences
from vj2_ddim_training.run_folder import RunFolder

__all__ = ["STARTED_FROM", "settings_that_stay", "spec_of_both", "start_of", "taken_up"]

CORRESPONDENCES = "condition_encoder.correspondences."  # what a model may gain
STARTED_FROM = "started_from_sha256"  # in a checkpoint's provenance
OF_ACTIONS = ("representation", "horizon", "action_block", "channels", "action_low", "action_high")


def start_of(settings: RunSettings, folder: RunFolder) -> Checkpoint | None:
    """What a run trains further: the checkpoint told, or its own if it began with one.

    Its provenance says which file it began with.
    """
    if settings.resume:
        own = load_checkpoint(folder.checkpoint) if folder.checkpoint.exists() else None
        return own if own and STARTED_FROM in own.provenance else None
    if settings.start_from is None:
        return None
    start = load_checkpoint(settings.start_from)
    start.provenance[STARTED_FROM] = sha256_of(settings.start_from)
    told = {name: getattr(settings, name) for name in declared(DataSettings)}
    told |= {name: getattr(settings.model, name) for name in declared(ModelConfig)}
    told["action_block"] = settings.block
    if settings.schedule is not None:
        told |= settings.schedule.to_dict()
    settings_that_stay(start, told)
    return start


def settings_that_stay(start: Checkpoint, told: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """What a checkpoint says of actions, model and schedule; `ConfigError` if told otherwise."""
    model = start.model
    of_actions = {name: getattr(model.action_spec, name) for name in OF_ACTIONS}
    parts = of_actions, model.config.to_dict(), model.schedule.to_dict()
    there = {name: value for part in parts for name, value in part.items() if name in told}
    if different := differences(there, {name: told[name] for name in there}):
        raise ConfigError(
            f"the checkpoint to start from cannot be trained further, these settings differ "
            f"(there, here): {different}. Leave them out, or train a new model"
        )
    return parts


def spec_of_both(
    known: ActionSpec, seen: ActionSpec, displacement_scale: float | None
) -> ActionSpec:
    """A model's action specification, with presses as short and as long as new data have them.

    Its displacements stay in their unit, or come to be in the one that is told: the model learns
    that anew.
    """
    if known.press_channel is None:
        return known
    scale = known.displacement_scale
    if displacement_scale is not None and known.representation == "path":
        scale = displacement_scale
    return replace(
        known,
        displacement_scale=scale,
        min_press_steps=min(known.min_press_steps, seen.min_press_steps),
        max_press_steps=max(known.longest_press, seen.longest_press),
    )


def taken_up(
    start: Checkpoint,
    settings: RunSettings,
    spec: ActionSpec,
    train_set: Examples,
    guidance: bool,
) -> DiffusionModel:
    """The model with its averaged weights and its statistics of latents, for these data.

    One that comes to be told of correspondences does what it did before, until it learns.
    """
    where = settings.folders[0]
    there, here = dict(start.model.condition.inputs), dict(train_set.input_shapes)
    if there != here:
        raise ConfigError(
            f"{where}: the condition's inputs are {here}, and {there} of the checkpoint to start "
            f"from. Use data of its kind, or train a new model"
        )
    require_same_norm(start.provenance.get("layer_normed"), train_set, where)
    config = replace(start.model.config, correspondences=settings.model.correspondences)
    model = DiffusionModel(config, spec, start.model.schedule, here, guidance)
    own = model.state_dict()
    new = {name: own[name] for name in own if name.startswith(CORRESPONDENCES)}
    model.load_state_dict(new | start.model.state_dict())
    return model
