"""Tiny data, models and runs, so that a test of the whole costs a second."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vj2_ddim_plugin.cli import main
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.examples import GestureExamples
from vj2_ddim_training.run import RunSettings

torch.set_num_threads(1)

LENGTH = 20
SKETCH = {"sketch": (6,)}
LATENTS = {"state": (4, 5), "goal": (4, 5)}
COSINE_V = NoiseSchedule(timestep_spacing="linspace")
INPUTS = {"none": {}, "sketch": SKETCH, "latents": LATENTS}


def make_gestures(num, length=LENGTH, seed=0, kind="mixed"):
    return generate_gestures(
        num,
        kind=kind,
        min_duration_share=0.25,
        max_duration_share=0.5,
        sequence_length=length,
        rng=np.random.default_rng(seed),
    )


def make_spec(representation="path", length=LENGTH, **changes):
    settings = {
        "action_block": length,
        "min_press_steps": length // 4,
        "max_press_steps": length // 2,
        "representation": representation,
    }
    return ActionSpec(**{**settings, **changes})


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
    training = {
        "num_epochs": 2,
        "batch_size": 4,
        "lr": 1e-3,
        "num_validation": 4,
        "wandb_mode": "disabled",
    }
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


def vj2_ddim(*arguments):
    """Run the command line in this process, as a shell would; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vj2-ddim", *(str(argument) for argument in arguments)])
        try:
            main()
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
