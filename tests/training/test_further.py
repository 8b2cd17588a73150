"""A checkpoint that is trained further, on other data."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.training import (
    LENGTH,
    make_model,
    make_settings,
    measure_the_loss_alone,
    press,
    write_data,
)

from vj2_ddim_plugin.errors import ActionError, CheckpointError, ConfigError, DataError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.config import RunSettings, TrainingConfig
from vj2_ddim_training.further import taken_up
from vj2_ddim_training.run import settings_of_run, settings_of_start, train_run


@pytest.fixture(scope="module", autouse=True)
def loss_is_all_that_is_measured():
    with pytest.MonkeyPatch.context() as patch:
        measure_the_loss_alone(patch)
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    root = tmp_path_factory.mktemp("start")
    write_data(root / "data")
    train_run(make_settings(root, num_epochs=1))
    return root / "run" / "checkpoint.pt"


def told(root, start, **changes):
    write_data(root / "other", num=16, seed=5)
    places = {name: root / "other" for name in ("data_dir", "val_data_dir")}
    told = {"save_dir": root / "further", "start_from": start, "num_epochs": 2, "batch_size": 4}
    here = {"num_threads": 1, "wandb_mode": "disabled", "num_workers": 0}
    return {**places, **told, **here, **changes}


def further(root, start, **changes):
    return settings_of_start(told(root, start, **changes))


def weights_of(checkpoint):
    return torch.cat([each.flatten() for each in checkpoint.model.state_dict().values()])


def test_without_a_step_of_learning_it_is_the_model_that_it_started_from(start, tmp_path):
    trained = train_run(further(tmp_path, start, lr=0.0, weight_decay=0.0))
    before = load_checkpoint(start)
    torch.testing.assert_close(weights_of(trained), weights_of(before), rtol=0, atol=1e-6)
    assert trained.model.config == before.model.config
    assert trained.model.schedule == before.model.schedule
    assert trained.provenance["started_from_sha256"] == sha256_of(start)
    assert trained.data_fingerprint != before.data_fingerprint


def test_it_learns_and_one_that_is_resumed_is_the_one_that_was_not_interrupted(start, tmp_path):
    whole = train_run(further(tmp_path, start))
    assert (weights_of(whole) - weights_of(load_checkpoint(start))).abs().max() > 1e-4

    def stop(done, total, line):
        if done == 3:
            raise KeyboardInterrupt

    parts = replace(further(tmp_path, start), save_dir=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train_run(parts, stop)
    start_is_not_asked = settings_of_run(parts.save_dir)
    assert start_is_not_asked.start_from is None
    resumed = train_run(start_is_not_asked)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert resumed.provenance["started_from_sha256"] == sha256_of(start)


def test_presses_of_other_lengths_widen_what_its_plans_may_be(start, tmp_path):
    before = load_checkpoint(start).model.action_spec
    short = np.stack([press(2, 5, (0.1, 0.2), (0.3, 0.4), LENGTH)] * 4)
    settings = further(tmp_path, start, num_epochs=1, batch_size=2)
    for file in (tmp_path / "other").glob("*_actions.npy"):
        file.unlink()
    np.save(tmp_path / "other" / "short_actions.npy", short)
    spec = train_run(settings).model.action_spec
    assert (spec.min_press_steps, spec.max_press_steps) == (3, before.max_press_steps)
    assert replace(spec, min_press_steps=before.min_press_steps) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": 32}, "'d_model'"),
        ({"representation": "raw"}, "'representation'"),
        ({"beta_schedule": "linear"}, "'beta_schedule'"),
        ({"action_block": 2 * LENGTH}, "'action_block'"),
    ],
)
def test_what_a_checkpoint_settles_cannot_be_told_otherwise(start, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=f"differ.*{words}"):
        further(tmp_path, start, **changes)


def test_settings_made_by_hand_are_held_to_the_checkpoint_too(start, tmp_path):
    by_hand = replace(further(tmp_path, start), training=TrainingConfig(num_threads=1))
    wrong = replace(by_hand, model=replace(by_hand.model, num_layers=3))
    with pytest.raises(ConfigError, match="'num_layers'"):
        train_run(wrong)


def test_actions_that_its_representation_cannot_hold_are_refused(start, tmp_path):
    settings = further(tmp_path, start)
    curved = press(2, 12, (0.1, 0.2), (0.3, 0.4), LENGTH)
    curved[2:12, 0] = np.random.default_rng(0).uniform(size=10)
    np.save(tmp_path / "other" / "curved_actions.npy", curved)
    with pytest.raises(ActionError, match=r"cannot be trained further.*'path'.*for a new model"):
        train_run(settings)


def test_latents_of_another_shape_or_norm_are_refused():
    start = Checkpoint(make_model("latents"), {}, provenance={"layer_normed": True})
    spec, shapes = start.model.action_spec, start.model.condition.inputs
    settings = SimpleNamespace(model=start.model.config, folders=["more"])
    other = SimpleNamespace(input_shapes={"state": (4, 6), "goal": (4, 6)}, layer_normed=True)
    with pytest.raises(ConfigError, match=r"^more: the condition's inputs are .*\(4, 6\)"):
        taken_up(start, settings, spec, other, True)
    plain = SimpleNamespace(input_shapes=shapes, layer_normed=False)
    with pytest.raises(DataError, match=r"^more: .*layer_normed False"):
        taken_up(start, settings, spec, plain, True)


@pytest.mark.parametrize("told", [None, 0.5])
def test_displacements_stay_in_their_unit_or_come_to_be_in_the_one_told(start, tmp_path, told):
    before = load_checkpoint(start).model.action_spec
    changes = {} if told is None else {"displacement_scale": told}
    found = train_run(further(tmp_path, start, num_epochs=1, **changes)).model.action_spec
    assert found == replace(before, displacement_scale=told or before.displacement_scale)
    assert before.displacement_scale != 0.5


def test_a_model_that_comes_to_see_correspondences_does_what_it_did_until_it_learns():
    start = Checkpoint(make_model("latents"), {}, provenance={"layer_normed": True})
    spec, shapes = start.model.action_spec, start.model.condition.inputs
    data = SimpleNamespace(input_shapes=shapes, layer_normed=True)
    config = replace(start.model.config, correspondences=True)
    settings = SimpleNamespace(model=config, folders=["more"])
    grown = taken_up(start, settings, spec, data, True)
    assert grown.config == config
    rng = torch.Generator().manual_seed(0)
    latents = {name: torch.randn(2, *shape, generator=rng) for name, shape in shapes.items()}
    with torch.no_grad():
        expected = start.model.eval().encode(latents)
        torch.testing.assert_close(grown.eval().encode(latents), expected)
        torch.nn.init.normal_(grown.condition_encoder.correspondences.embed.weight)
        assert (grown.encode(latents) - expected).abs().max() > 0.01
    again = taken_up(replace(start, model=grown), settings, spec, data, True)
    torch.testing.assert_close(again.state_dict(), grown.state_dict())


def test_what_sees_correspondences_cannot_be_made_blind(tmp_path):
    model = make_model("latents", correspondences=True)
    save_checkpoint(Checkpoint(model, model.state_dict()), tmp_path / "seeing.pt")
    told = {"start_from": tmp_path / "seeing.pt", "data_dir": tmp_path, "val_data_dir": tmp_path}
    assert settings_of_start(told).model.correspondences
    with pytest.raises(ConfigError, match=r"differ.*'correspondences'"):
        settings_of_start({**told, "correspondences": False})
    write_data(tmp_path)
    blind = replace(model.config, correspondences=False)
    by_hand = RunSettings(**told, save_dir=tmp_path / "run", model=blind, action_block=LENGTH)
    with pytest.raises(ConfigError, match=r"differ.*'correspondences'"):
        train_run(by_hand)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"broken\.pt"):
        further(tmp_path, tmp_path / "broken.pt")
