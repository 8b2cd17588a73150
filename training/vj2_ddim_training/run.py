"""One whole training run of a denoiser: data, model, trainer and tracker, put together.

Every step seeds its own randomness from (seed, step) and every epoch its order from (seed, epoch),
so that a run resumed at any step is the run that was not interrupted, to the last bit.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.settings import S, Settings, declared
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.by_name import JUDGES, find_by_name
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import (
    ORIGINAL_TRAINING,
    DataSettings,
    ModelConfig,
    RunSettings,
    TrainingConfig,
)
from vj2_ddim_training.config_file import config_text
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser
from vj2_ddim_training.devices import Devices, choose_devices
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import (
    Examples,
    action_parts,
    open_examples,
    require_same_norm,
)
from vj2_ddim_training.further import (
    STARTED_FROM,
    settings_that_stay,
    spec_of_both,
    start_of,
    taken_up,
)
from vj2_ddim_training.loop import Progress
from vj2_ddim_training.processes import stop_signals
from vj2_ddim_training.report import Report
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.survey import KNOT_CHOICES, ActionSurvey
from vj2_ddim_training.trainer import Trainer, load_resumable, training_config
from vj2_ddim_training.validation import SuccessMeasure, Validation

__all__ = ["settings_of_run", "settings_of_start", "train_run", "with_patch_size"]

logger = logging.getLogger(__name__)

NUM_COMPARED = 5000  # training transitions that generated actions are compared with
PLACES = ("data_dir", "val_data_dir", "manifest")
# what is told of the data, and is not of a run
OF_A_START = ("save_dir", "start_from", "resume", "overwrite")


def train_run(
    settings: RunSettings,
    progress: Progress | None = None,
    judge: SuccessMeasure | None = None,
    report: Callable[[str], None] | None = None,
) -> Checkpoint:
    """Train, validate, track and save.

    Args:
        settings: The run.
        progress: Called after every step.
        judge: Measures success whenever the model is validated; the epoch with the highest is kept
            as `best.pt`; the loss does not show success. Without it, the one the settings name.
        report: Called with a line that says what the actions are and which representation was
            chosen, and why; without it, the line is logged.

    Returns:
        The final checkpoint, which lies in `save_dir`.

    Raises:
        VJ2DDIMError: Bad data, settings that do not fit, or a folder already in use.
    """
    began, config = time.monotonic(), settings.training
    if judge is None and settings.judge is not None:
        judge = find_by_name(JUDGES, settings.judge, "judge")
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    tell = report or logger.info
    devices = choose_devices(config)  # before anything is read or replaced
    folder, ends_at = RunFolder(settings.save_dir), began + config.max_seconds
    try:
        if devices.index == 0:
            Tracker.require_login(config)
        with stop_signals(), Report(folder).listening() as page:
            trainer = _train(settings, folder, page, devices, progress, judge, tell, ends_at)
        if trainer.ended and trainer.validation:
            tell(trainer.ended)
        return trainer.checkpoint()
    finally:
        devices.close(failed=sys.exc_info()[0] is not None)


def _train(
    settings: RunSettings,
    folder: RunFolder,
    page: Report,
    devices: Devices,
    progress: Progress | None,
    judge: SuccessMeasure | None,
    tell: Callable[[str], None],
    ends_at: float,
) -> Trainer:
    """The run of one process; of several, all but the first do nothing but train."""
    config, condition = settings.training, settings.model.condition
    start = start_of(settings, folder)
    spec, line = devices.from_first(lambda: _look_at_actions(settings, tell, start))
    data_dir, goal = settings.folders[0], config.longest_goal
    train_set = open_examples(data_dir, spec, condition, "train", goal, settings)
    model = _model_to_train(settings, spec, train_set, devices, start)
    origin = {} if start is None else {STARTED_FROM: start.provenance[STARTED_FROM]}
    how: dict[str, Any] = {"folder": folder, "devices": devices, "ends_at": ends_at}
    make = partial(Trainer, model, config, train_set, origin=origin, **how)
    if devices.index:
        trainer = make(validation=None)
        trainer.start(settings.resume)
        return trainer
    held_out = _held_out(settings, train_set)
    skipped = {"train": train_set.skipped, "validation": held_out.skipped}
    folder.known = {"data": _data_of(settings), "judge": settings.judge, "tracker": None}
    folder.known["skipped_files"] = skipped
    used = _used(settings, model)
    folder.told = config_text(used)
    page.facts, page.settings = {"actions": line, **_facts(model, train_set, held_out)}, used
    with folder.claim(resume=settings.resume, overwrite=settings.overwrite):
        size = {"num_parameters": sum(weight.numel() for weight in model.parameters())}
        tracker = Tracker(folder, {**used, **size}, config, settings.resume)
        tracker.report = page
        try:
            some = train_set.some_actions(NUM_COMPARED)
            validation = Validation(held_out, some, tracker, config, judge)
            trainer = make(validation=validation, progress=progress)
            trainer.start(settings.resume)
        except BaseException as error:
            tracker.close(error)
            raise
        tracker.close(ended=trainer.ended)
        return trainer


def _held_out(settings: RunSettings, train_set: Examples) -> Examples:
    """The validation data, which must be like those of training, and other ones."""
    folder, condition = settings.folders[1], settings.model.condition
    held_out = open_examples(
        folder, train_set.action_spec, condition, "validation", reading=settings
    )
    require_same_norm(train_set.layer_normed, held_out, folder)
    if held_out.data_fingerprint == train_set.data_fingerprint:
        logger.warning("the validation data are the training data; measures will flatter the model")
    return held_out


def settings_of_start(told: Mapping[str, Any]) -> RunSettings:
    """A new run's settings: those told, and for the others the defaults of its architecture.

    With `start_from`, what that checkpoint says of actions, model and schedule.

    Raises:
        VJ2DDIMError: A setting is out of range, contradicts another, or is missing.
    """
    data, model, schedule = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    if told.get("start_from") is not None:
        data, model, schedule = settings_that_stay(load_checkpoint(told["start_from"]), told)
    minimal = {**model, **told}.get("architecture") == "minimal"
    training, usual = (ORIGINAL_TRAINING, ORIGINAL_SCHEDULE.to_dict()) if minimal else ({}, {})
    return _settings_of(told, data, model, training, schedule or usual)


def settings_of_run(save_dir: Path | str, told: Mapping[str, Any] | None = None) -> RunSettings:
    """What the run in a folder was told, to go on with it; `told` are settings told anew.

    Raises:
        VJ2DDIMError: There is no run, or it does not say what it was told.
    """
    folder = RunFolder(save_dir)
    folder.require_run()
    saved, identity = load_resumable(folder), folder.read_identity()
    data = dict(identity.get("data", {}))
    data |= {name: Path(str(data[name])) for name in PLACES if data.get(name)}
    data["displacement_scale"] = saved.model.action_spec.displacement_scale
    here = {**(told or {}), "save_dir": folder.folder, "resume": True}
    model, schedule = saved.model.config.to_dict(), saved.model.schedule.to_dict()
    data["judge"] = identity.get("judge")
    return _settings_of(here, data, model, training_config(saved), schedule)


def _settings_of(told: Mapping[str, Any], *known: Mapping[str, Any]) -> RunSettings:
    """A run's settings: those told; else those known of it, its model, training and schedule."""

    def made(kind: type[S], known: Mapping[str, Any], **parts: Settings) -> S:
        own = {each.name: each.default for each in fields(kind)}
        new = {name: told[name] for name in own if name in told}
        return kind.from_dict({**own, **known, **new, **parts})

    model, training = made(ModelConfig, known[1]), made(TrainingConfig, known[2])
    schedule = made(NoiseSchedule, known[3])
    return made(RunSettings, known[0], model=model, training=training, schedule=schedule)


def _data_of(settings: RunSettings) -> dict[str, Any]:
    """What `run.json` keeps: the places of the data, and what was told of them."""
    told = {name: getattr(settings, name) for name in declared(DataSettings)}
    paths = zip(PLACES, (*settings.folders, settings.manifest), strict=True)
    told |= {name: os.path.realpath(path) for name, path in paths if path}
    return {name: value for name, value in told.items() if name not in OF_A_START}


def _used(settings: RunSettings, model: DiffusionModel) -> dict[str, Any]:
    """Every setting of a run, with what was chosen where it was left open."""
    used = {name: getattr(settings, name) for name in declared(DataSettings)}
    used |= {"judge": settings.judge, **settings.training.to_dict()}
    used |= {name: getattr(model.config, name) for name in declared(ModelConfig)}
    used |= {name: getattr(model.schedule, name) for name in declared(NoiseSchedule)}
    for found in ("representation", "displacement_scale"):
        used[found] = getattr(model.action_spec, found)
    if used["run_name"] is None:
        size = f"{model.config.d_model}x{model.config.num_layers}"
        data = os.path.basename(os.path.realpath(settings.folders[0]))
        used["run_name"] = f"{model.config.architecture}-{size}-{data}"
    return used


def _facts(model: DiffusionModel, train_set: Examples, held_out: Examples) -> dict[str, str]:
    """What a report says of a run besides its settings."""
    return {
        "training examples": f"{len(train_set):,}, {train_set.data_fingerprint}",
        "validation examples": f"{len(held_out):,}, {held_out.data_fingerprint}",
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "made by": f"vj2-ddim-plugin {vj2_ddim_plugin.__version__}, torch {torch.__version__}",
    }


def _look_at_actions(
    settings: RunSettings, tell: Callable[[str], None], start: Checkpoint | None
) -> tuple[ActionSpec, str]:
    """What all actions are, those of training and of validation; tells how it was decided.

    Where a checkpoint is trained further, they must be what its model is made for.
    """
    known = None if start is None else start.model.action_spec
    minimal = settings.model.architecture == "minimal"
    template = ActionSpec(
        action_block=settings.block,
        horizon=settings.horizon,
        channels=settings.channels,
        action_low=settings.action_low,
        action_high=settings.action_high,
        press_channel="press" if "press" in settings.channels else None,
        min_press_steps=0,
        max_press_steps=None,
        path_knots=None,
        representation="raw",
        normalized=not minimal,
    )
    knots = (known.path_knots,) if known is not None and known.path_knots else KNOT_CHOICES
    survey = ActionSurvey(template, knots)
    condition = settings.model.condition
    for folder, split in zip(settings.folders, ("train", "validation"), strict=True):
        for where, actions in action_parts(folder, template, condition, split, settings):
            survey.look(actions, where, limits=split == "train")
    representation = settings.representation
    if minimal and representation == "auto":
        representation = "raw"
    try:
        spec = survey.spec(representation, settings.displacement_scale)
    except ActionError as error:
        if known is None:
            raise
        words = "the checkpoint to start from cannot be trained further on these actions"
        raise ActionError(f"{words}: {error}, for a new model") from error
    if known is not None:
        spec = spec_of_both(known, spec, settings.displacement_scale)
    tell(line := survey.summary(spec))
    return spec, line


def with_patch_size(config: ModelConfig, spec: ActionSpec) -> ModelConfig:
    """Where it is left open: a token for each knot of a path, or for each 10 steps or so."""
    if config.patch_size:
        return config
    wanted = spec.num_channels - 1 if spec.representation == "path" else 10
    size = max(n for n in range(1, wanted + 1) if spec.diffused_shape[0] % n == 0)
    return replace(config, patch_size=size)


def _model_to_train(
    settings: RunSettings,
    spec: ActionSpec,
    train_set: Examples,
    devices: Devices,
    start: Checkpoint | None,
) -> DiffusionModel:
    """The model to train further, or an untrained one with the latents' statistics."""
    torch.manual_seed(settings.training.seed)
    guidance = settings.training.condition_dropout > 0.0
    if start is not None:
        model = taken_up(start, settings, spec, train_set, guidance)
    else:
        of_model = with_patch_size(settings.model, spec), spec, settings.noise_schedule
        model = DiffusionModel(*of_model, train_set.input_shapes, guidance)
        if isinstance(model.condition_encoder, LatentEncoder) and devices.index == 0:
            model.condition_encoder.set_statistics(train_set.latents())
    if isinstance(model.denoiser, MinimalDenoiser):
        model.denoiser.set_dropout(settings.training.dropout)
    model.load_state_dict(devices.from_first(model.state_dict))
    return model
