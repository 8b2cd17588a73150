"""Tiny data, models and runs, so that a test of the whole costs a second."""

from pathlib import Path

import numpy as np
import torch

from vj2_ddim_plugin.cli import main
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training import validation
from vj2_ddim_training.config import ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import GestureExamples

torch.set_num_threads(1)

LENGTH = 20
SKETCH = {"sketch": (6,)}
LATENTS = {"state": (4, 5), "goal": (4, 5)}
COSINE_V = NoiseSchedule(timestep_spacing="linspace")
INPUTS = {"none": {}, "sketch": SKETCH, "latents": LATENTS}


def make_gestures(num, length=LENGTH, seed=0, kind="mixed"):
    share = {"min_duration_share": 0.25, "max_duration_share": 0.5}
    rng = np.random.default_rng(seed)
    return generate_gestures(num, kind=kind, sequence_length=length, rng=rng, **share)


def make_spec(representation="path", length=LENGTH, **changes):
    steps = {"min_press_steps": length // 4, "max_press_steps": length // 2}
    settings = {"action_block": length, "representation": representation, **steps}
    return ActionSpec(**{**settings, **changes})


def any_press(length=10, min_press_steps=2, **changes):
    """A spec that allows presses of any length; `bounds` are of the coordinates."""
    low, high = changes.pop("bounds", ((0, 0), (1, 1)))
    bounds = {"action_low": (*low, 0), "action_high": (*high, 1), "max_press_steps": None}
    return ActionSpec(length, min_press_steps=min_press_steps, **bounds, **changes)


NO_TOUCH = {"channels": ("u",), "action_low": (-1,), "action_high": (1,), "press_channel": None}


def press(start, stop, first, last, length=10):
    """A sequence that presses from `start` to before `stop`, along a straight line."""
    actions = np.zeros((length, 3), np.float32)
    actions[start:stop, :2] = np.linspace(first, last, stop - start)
    actions[start:stop, 2] = 1.0
    return actions


def make_examples(num=12, condition="sketch", representation="path", seed=0):
    spec = make_spec(representation)
    return GestureExamples(make_gestures(num, seed=seed), spec, condition, f"data-{seed}-{num}")


def make_model(
    condition="sketch", architecture="dit", representation="path", schedule=COSINE_V, seed=0, **size
):
    """A model whose every weight is random, so that nothing is trivially zero."""
    if architecture == "minimal":
        schedule = ORIGINAL_SCHEDULE
        spec = make_spec("raw", normalized=False)
    else:
        spec = make_spec(representation)
    sizes = {"d_model": 16, "num_layers": 1, "nhead": 2, "condition_tokens": 3, "patch_size": 1}
    config = ModelConfig(**{**sizes, "architecture": architecture, "condition": condition, **size})
    torch.manual_seed(seed)
    model = DiffusionModel(config, spec, schedule, INPUTS[condition])
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model.eval()


def write_data(folder, num=12, length=LENGTH, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "batch_000000_actions.npy", make_gestures(num, length, seed).reshape(-1, 3))
    return folder


def make_settings(root: Path, architecture="dit", condition=None, **changes):
    """Settings of a run of 2 epochs of 3 steps each in `root`."""
    training = {"num_epochs": 2, "batch_size": 4, "lr": 1e-3, "num_validation": 4}
    training["wandb_mode"] = "disabled"
    training |= {
        name: changes.pop(name) for name in list(changes) if name in vars(TrainingConfig())
    }
    minimal = architecture == "minimal"
    model = ModelConfig(
        architecture=architecture,
        d_model=16,
        num_layers=1,
        nhead=2,
        dim_feedforward=32,
        condition=condition or "auto",
        patch_size=changes.pop("patch_size", 0),
    )
    settings = {
        "data_dir": root / "data",
        "val_data_dir": root / "data",
        "save_dir": root / "run",
        "model": model,
        "training": TrainingConfig(**training),
        "schedule": ORIGINAL_SCHEDULE if minimal else COSINE_V,
        "representation": "raw" if minimal else "auto",
        "sequence_length": LENGTH,
    }
    return RunSettings(**{**settings, **changes})


def measure_the_loss_alone(patch):
    """The measures are a function of the weights; leaving them out makes runs fast."""
    patch.setattr("vj2_ddim_training.validation.evaluate", lambda *arguments, **settings: {})
    patch.setattr(validation.Validation, "_pictures", lambda *arguments: None)


def vj2_ddim(*arguments):
    """Run the command line in this process; returns its exit status, and raises what is a fault."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def first_touch(actions):
    """`[..., 2]`: where the finger comes down, found by looking for the first pressed step."""
    first = np.argmax(actions[..., 2] > 0.5, axis=-1)[..., None, None]
    return np.take_along_axis(actions[..., :2], first, axis=-2)[..., 0, :]


def distance(context, candidates):
    """A synthetic cost: how far from the sketch's start the finger comes down."""
    start = context["sketch"][:, None, :2]
    return np.linalg.norm(first_touch(candidates) - start, axis=-1) + 0.01


def make_cost(argument):
    """For `--cost builders.training:make_cost`, `=ARGUMENT` being a factor."""
    return lambda context, candidates: float(argument or 1.0) * distance(context, candidates)


def make_judge(argument):
    """For `--judge builders.training:make_judge=0.1,0.9,0.5`: the successes, one a call."""
    told = iter(argument.split(","))
    return lambda *model_and_ranker: {"success": float(next(told))}
