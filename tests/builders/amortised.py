"""Small latents that say where to tap, or nothing at all, and models made for them."""

from dataclasses import replace

import numpy as np
import torch

from builders.training import LENGTH, make_spec
from vj2_ddim_benchmark.amortised.base import AmortisedConfig
from vj2_ddim_benchmark.amortised.training import build_amortised, save_amortised
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.examples import open_examples

SIDE, FEATURES = 3, 3  # patches a side, features of each
SHAPES = {"state": (SIDE * SIDE, FEATURES), "goal": (SIDE * SIDE, FEATURES)}
SPEC = make_spec("path")
DENOISER = ModelConfig(
    d_model=16, num_layers=1, nhead=2, condition="latents", condition_layers=1, condition_tokens=2
)
TRAINING = TrainingConfig(batch_size=32, lr=1e-2, device="cpu")


def taps(points):
    """Taps `[n, L, 3]` at `[n, 2]`, steps 4 to 11."""
    actions = np.zeros((len(points), LENGTH, 3), np.float32)
    actions[:, 4:12, :2] = np.asarray(points)[:, None]
    actions[:, 4:12, 2] = 1.0
    return actions


def tap_latents(points, seed=0):
    """States and goals `[n, N, D]`: the goal's patch under the point says where in it."""
    rng = np.random.default_rng(seed)
    state = 0.1 * rng.normal(size=(len(points), *SHAPES["state"]))
    goal = state.copy()
    scaled = np.asarray(points) * SIDE
    column, row = np.floor(scaled).astype(int).T
    offset = scaled - np.floor(scaled) - 0.5
    goal[np.arange(len(points)), row * SIDE + column] = np.column_stack(
        [np.ones(len(points)), offset]
    )
    return state.astype(np.float32), goal.astype(np.float32)


def same_latents(num):
    """One state and one goal for all: `[n, N, D]` that tell nothing."""
    state, goal = np.random.default_rng(0).normal(size=(2, 1, *SHAPES["state"]))
    return np.repeat(state, num, 0).astype(np.float32), np.repeat(goal, num, 0).astype(np.float32)


def write_examples(folder, latents, actions):
    """One transition a trajectory, all for training; opened as the denoiser's examples are."""
    embeddings = np.stack(latents, axis=1)
    splits = {"train": range(len(actions))}
    write_trajectories_h5(folder, embeddings, actions[:, None], splits, layer_normed=False)
    return open_examples(folder, SPEC, "latents", "train")


def make_model(kind="regression", seed=0, spec=SPEC):
    """An untrained model whose predictions spread widely, so that nothing is trivially equal."""
    torch.manual_seed(seed)
    model = build_amortised(AmortisedConfig.like(kind, DENOISER, spec, 3), spec, SHAPES)
    with torch.no_grad():
        if kind in ("mip", "flow", "ddim"):
            for layer in (model.network.denoiser.modulation, model.network.denoiser.output):
                layer.weight.normal_(std=0.2)
        else:
            model.head[-2].weight *= 8
    return model.eval()


def make_context(num=4, seed=5):
    state, goal = np.random.default_rng(seed).normal(size=(2, num, *SHAPES["state"]))
    return {"state": state.astype(np.float32), "goal": goal.astype(np.float32)}


def quick(**changes):
    """One epoch of a few steps."""
    return replace(TRAINING, **{"num_epochs": 1, "batch_size": 32, **changes})


def save(model, path):
    save_amortised(
        model, path, data_fingerprint="data-1", training={"lr": 0.1}, provenance={"torch": "2"}
    )
    return path
