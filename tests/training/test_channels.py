"""`vj2-ddim train` on actions that are not touches: other channels, other bounds."""

import numpy as np
import pytest
from builders.training import vj2_ddim

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.data.trajectories import write_trajectories_h5


@pytest.fixture
def robot(tmp_path):
    """Twenty transitions of latents `[1, 3]`; blocks of six actions of two channels."""
    rng = np.random.default_rng(0)
    actions = rng.uniform([-2.0, 0.0], [2.0, 5.0], (20, 1, 6, 2)).astype(np.float32)
    latents = rng.standard_normal((20, 2, 1, 3)).astype(np.float32)
    splits = {"train": list(range(12)), "validation": list(range(12, 20))}
    write_trajectories_h5(tmp_path / "data", latents, actions, splits, layer_normed=False)
    return tmp_path


def train(root, *options):
    data = root / "data"
    return vj2_ddim(
        "train", "--data-dir", data, "--val-data-dir", data, "--save-dir", root / "run",
        "--condition", "latents", "--sequence-length", 6, "--num-epochs", 1, "--d-model", 16,
        "--num-layers", 1, "--nhead", 2, "--batch-size", 6, "--wandb", "disabled", *options,
    )  # fmt: skip


def test_the_checkpoint_knows_channels_and_bounds(robot):
    """Nothing is a press, so nothing is held, snapped or projected but onto the bounds."""
    bounds = ("--action-low", "-2,0", "--action-high", "2,5")
    assert train(robot, "--channels", "vx,vy", *bounds) == 0
    loaded = load_checkpoint(robot / "run" / "checkpoint.pt")
    assert loaded.provenance["layer_normed"] is False  # the manifest says so
    spec = loaded.model.action_spec
    assert (spec.channels, spec.press_channel, spec.representation) == (("vx", "vy"), None, "raw")
    assert (spec.action_low, spec.action_high) == ((-2.0, 0.0), (2.0, 5.0))
    assert (spec.length, spec.num_channels) == (6, 2)


def test_blanks_after_the_commas_are_no_part_of_a_channel(robot, capsys):
    """The touch is found, and then these blocks are no touches."""
    assert train(robot, "--channels", "x, press", "--action-low=-2,0", "--action-high", "2,5") == 0
    spec = load_checkpoint(robot / "run" / "checkpoint.pt").model.action_spec
    assert (spec.channels, spec.press_channel, spec.representation) == (
        ("x", "press"), "press", "raw",
    )  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert "representation raw; not" in said
    assert "where it should be 0 or 1 (train_00000.h5)" in said


@pytest.mark.parametrize("name", [" press", "", "y ", "\t"])
def test_a_channel_with_blanks_is_no_channel(name):
    with pytest.raises(ActionError, match="names without blanks around them"):
        ActionSpec(channels=("x", name, "press"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--channels", "vx,vy", "--action-low", "low,0"), "--action-low must be numbers"),
        (("--channels", "vx,vy"), "differ in length"),
        (("--channels", "x, y, Press"), "channels has 'Press'; write 'press'"),
        (("--channels", "x,,press"), "must be names without blanks around them; found ''"),
        (("--channels", "x,x,press"), "repeat or differ in length"),
        (("--horizon", 2, "--action-block", 6), "--sequence-length must be"),
        (("--condition-dropout", 1), "--condition-dropout must be at least 0 and below 1"),
        (
            ("--channels", "vx,vy", "--action-low", "0,0", "--action-high", "1,1"),
            "values are out of bounds",
        ),
    ],
)
def test_what_does_not_fit_is_refused(robot, capsys, options, message):
    assert train(robot, *options) == 1
    assert message in capsys.readouterr().err
