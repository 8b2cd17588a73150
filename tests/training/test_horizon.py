"""Plans of several world-model steps, from recordings to a plan: what the hosts' planners need."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders.training import make_gestures, vj2_ddim

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.run import DataSettings

SMALL = (
    "--d-model", 16, "--num-layers", 1, "--nhead", 2, "--num-epochs", 1, "--batch-size", 8,
    "--wandb", "disabled", "--num-validation", 4, "--condition-tokens", 2, "--condition-layers", 1,
)  # fmt: skip
ARM = ("--channels", "dx,dy,grip", "--action-low=-1,-1,-1", "--action-high", "1,1,1")


def write_trajectories(folder, block, touches, flattened, num=6, steps=7):
    """Latents whose first number says which step they are; `[T-1, block, 3]`, or flattened."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(num):
        embeddings = rng.standard_normal((steps, 2, 4)).astype(np.float32)
        actions = rng.uniform(-1, 1, (steps - 1, block, 3)).astype(np.float32)
        if touches:
            actions = make_gestures(steps - 1, block, seed=i)
        actions = actions.reshape(steps - 1, -1) if flattened else actions
        np.savez(folder / f"{i}.npz", embeddings=embeddings, actions=actions)
    names = [f"{i}.npz" for i in range(num)]
    splits = {"splits": {"train": names[2:], "validation": names[:2]}}
    (folder / "manifest.json").write_text(json.dumps(splits))
    return folder


def train(root, data, *options):
    run = ("--data-dir", data, "--val-data-dir", data, "--save-dir", root / "run")
    return vj2_ddim("train", *run, *SMALL, *map(str, options))


@pytest.mark.parametrize(
    ("block", "horizon", "touches", "flattened"), [(20, 2, True, True), (5, 5, False, False)]
)
def test_from_trajectories_to_a_plan(tmp_path, block, horizon, touches, flattened):
    """Other blocks, horizons and shapes are those of the hosts, in adapters/test_recipes.py."""
    data = write_trajectories(tmp_path / "data", block, touches, flattened)
    sizes = ("--horizon", horizon, "--action-block", block, "--condition", "latents")
    assert train(tmp_path, data, *sizes, *(() if touches else ARM)) == 0
    spec = load_checkpoint(tmp_path / "run" / "checkpoint.pt").model.action_spec
    assert (spec.horizon, spec.action_block, spec.length) == (horizon, block, horizon * block)
    assert spec.representation == ("path" if touches else "raw")
    assert vj2_ddim("export", tmp_path / "run/checkpoint.pt", "--out", tmp_path / "bundle") == 0
    z = np.random.default_rng(0).standard_normal((2, 1, 2, 4)).astype(np.float32)
    problem = PlanningProblem(
        {"state": z[0], "goal": z[1]}, lambda candidates: candidates.sum(axis=(2, 3))
    )
    with DDIMOptimizer.from_bundle(tmp_path / "bundle", num_candidates=3) as optimizer:
        result = optimizer.optimize(problem)
    assert result.actions.shape == (1, horizon * block, 3)
    if touches:
        assert (result.actions.reshape(horizon, block, 3)[..., 2].max(axis=1) == 1).all()


@pytest.mark.parametrize("shape", [(-1, 3), (-1, 20, 3), (-1, 60), (-1, 40, 3)])
def test_gesture_files_are_read_block_after_block(tmp_path, caplog, shape):
    """The sketch describes each block; a block that is left over is said to be."""
    gestures = make_gestures(9)
    for name in ("data", "val"):
        (tmp_path / name).mkdir()
        whole = gestures[:8] if shape == (-1, 40, 3) else gestures
        np.save(tmp_path / name / "a_actions.npy", whole.reshape(shape))
    more = ("--horizon", 2, "--action-block", 20, "--val-data-dir", tmp_path / "val")
    assert train(tmp_path, tmp_path / "data", *more) == 0
    if shape != (-1, 40, 3):
        assert "the last 20 rows are less than one sequence of 40" in caplog.text
    model = load_checkpoint(tmp_path / "run" / "checkpoint.pt").model
    assert model.condition.inputs == {"sketch": (12,)}
    read = read_flat_actions(tmp_path / "data", model.action_spec).actions
    np.testing.assert_array_equal(read, gestures[:8].reshape(4, 40, 3))


@pytest.mark.parametrize(
    ("told", "block"),
    [
        ({}, 250),
        ({"horizon": 3}, 250),
        ({"sequence_length": 20}, 20),
        ({"sequence_length": 20, "horizon": 5}, 4),
        ({"action_block": 5, "horizon": 4, "sequence_length": 20}, 5),
    ],
)
def test_either_of_length_and_block_is_told(told, block):
    assert DataSettings(data_dir=Path(), val_data_dir=Path(), **told).block == block


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"sequence_length": 20, "horizon": 3}, "sequence_length must be horizon"),
        ({"sequence_length": 20, "action_block": 10}, "found 20, 1 and 10"),
        ({"sequence_length": 2, "horizon": 3}, "must be horizon"),
        ({"horizon": 0}, "horizon must be at least 1"),
    ],
)
def test_lengths_that_contradict_one_another(told, message):
    with pytest.raises(ConfigError, match=message):
        DataSettings(data_dir=Path(), val_data_dir=Path(), **told)
