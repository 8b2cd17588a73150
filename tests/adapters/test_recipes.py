"""From a host's own recordings to its plan: what docs/how-to/hosts.md tells, in small."""

import json
from unittest import mock

import numpy as np
import pytest
import torch
from builders.adapters import RIGS
from builders.training import make_gestures, vj2_ddim

from vj2_ddim_plugin import DDIMOptimizer

SMALL = (
    "--d-model", 16, "--num-layers", 1, "--nhead", 2, "--num-epochs", 1, "--batch-size", 8,
    "--wandb", "disabled", "--num-validation", 4, "--condition-tokens", 2, "--condition-layers", 1,
)  # fmt: skip
CPU = {"provider": "cpu", "num_threads": 1, "num_candidates": 4}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def dino_wm(seed):
    """A frame and a normalized action every step; the world model sees every 2nd (frameskip)."""
    visual, actions = numbers(17, 2, 3, seed=seed), numbers(16, 2, seed=seed + 1)
    return visual[::2], actions.reshape(8, 4)


def jepa_wms(seed):
    """The same, as its encoder gives it: `[T, V, H, W, D]`."""
    visual, actions = numbers(9, 1, 2, 1, 3, seed=seed), numbers(16, 2, seed=seed + 1)
    return visual.reshape(9, -1, 3), actions.reshape(8, 4)


def vjepa2(seed):
    """Latents of frames, and poses, whose differences are the actions."""
    poses = numbers(9, 7, seed=seed) / 2
    return numbers(9, 7, 1, seed=seed + 1), np.diff(poses, axis=0)


def stable_worldmodel(seed):
    """One latent a frame, every 20th (action_block) of them, and touches."""
    return numbers(9, 1, 3, seed=seed), make_gestures(8, 20, seed=seed).reshape(8, 60)


def vj2_gui(seed):
    """Its own files are ours."""
    return numbers(9, 4, 5, seed=seed), make_gestures(8, 20, seed=seed)


SIZES = {  # horizon, action_block, channels
    "VJ2-GUI": (vj2_gui, 2, 20, "x,y,press"),
    "stable-worldmodel": (stable_worldmodel, 2, 20, "x,y,press"),
    "DINO-WM": (dino_wm, 4, 2, "dx,dy"),
    "jepa-wms": (jepa_wms, 4, 2, "dx,dy"),
    "V-JEPA 2": (vjepa2, 2, 1, "x,y,z,roll,pitch,yaw,gripper"),
}


@pytest.mark.parametrize("kind", RIGS, ids=lambda rig: rig.host)
def test_recordings_train_export_adapter_plan(kind, tmp_path):
    recorded, horizon, block, channels = SIZES[kind.host]
    data, run, bundle = (tmp_path / name for name in ("data", "run", "bundle"))
    data.mkdir()
    for i in range(6):
        embeddings, actions = recorded(seed=2 * i)
        np.savez(data / f"{i}.npz", embeddings=embeddings, actions=actions)
    splits = {"train": [f"{i}.npz" for i in range(4)], "validation": ["4.npz", "5.npz"]}
    (data / "manifest.json").write_text(json.dumps({"splits": splits, "layer_normed": True}))
    names = channels.split(",")
    arm = (
        "--action-low=" + ",".join("-1" for _ in names),
        "--action-high",
        ",".join("1" * len(names)),
    )
    sizes = ("--horizon", horizon, "--action-block", block, "--channels", channels)
    sizes += () if "press" in names else arm
    folders = ("--data-dir", data, "--val-data-dir", data, "--save-dir", run)
    assert vj2_ddim("train", *folders, *sizes, *SMALL, "--condition", "latents") == 0
    assert vj2_ddim("export", run / "checkpoint.pt", "--out", bundle) == 0

    rig = kind()
    if kind.host == "stable-worldmodel":  # the rig stands in for the loading
        zeros = torch.zeros(rig.batch, 1, 3)
        given = {"encode": lambda model, info: {"state": zeros, "goal": zeros}}
        planner = rig.make(DDIMOptimizer.from_bundle(bundle, **CPU), **given)
    elif kind.host in ("DINO-WM", "jepa-wms"):
        planner = rig.make(bundle, settings=CPU)
    else:
        planner = rig.make(bundle, **CPU)
    if kind.host == "jepa-wms":
        rig_objective = mock.Mock(side_effect=rig.objective, target_enc=torch.zeros(1, 1, 1, 2, 3))
        planner.set_objective(rig_objective)
    if kind.host == "VJ2-GUI":  # the manifest's word came all the way
        assert planner.layer_norm_context is True
    plan = rig.plan(planner)
    assert plan.shape == (rig.batch, horizon * block, len(names))
    assert np.isfinite(planner.last_result.cost).all()
    assert planner.last_result.num_cost_evaluations >= 4
    np.testing.assert_array_equal(planner.last_result.actions, plan)
