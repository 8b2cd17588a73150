"""The benchmark's trained parts: made in order, made once, gone on with after an interruption."""

from dataclasses import replace

import numpy as np
import pytest

from vj2_ddim_benchmark import assets
from vj2_ddim_benchmark.assets import AssetSettings, build_assets
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.data.trajectories import open_trajectories


@pytest.fixture(scope="module", autouse=True)
def tiny():
    quick = AssetSettings.quick()
    world_model = WorldModelConfig(
        num_trajectories=8, horizon=2, token_dim=4, width=8, num_layers=1, num_heads=1,
        num_epochs=1, batch_size=8, num_report_problems=2,
    )  # fmt: skip
    settings = replace(
        quick,
        world_model=world_model,
        num_trajectories=8,
        num_validation_trajectories=3,
        model=ModelConfig(
            d_model=16, num_layers=1, nhead=2, condition="latents", condition_layers=1,
            condition_tokens=2,
        ),
        training=replace(quick.training, num_epochs=2, batch_size=8, num_validation=4),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssetSettings, "quick", classmethod(lambda cls: settings))
        yield settings


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny):
    run = tmp_path_factory.mktemp("run")
    phases = []
    found = build_assets(run, quick=True, progress=lambda *told: phases.append(told), threads=1)
    return run, found, phases


def test_parts_fit_one_another(built, tiny):
    run, found, _ = built
    assert found.world_model_path == run / "assets" / "world_model.pt"
    world_model = WorldModel.load(found.world_model_path)
    assert world_model.config == tiny.world_model
    bundle = read_bundle(found.bundle_path)
    shape = (tiny.world_model.num_tokens, tiny.world_model.token_dim)
    assert bundle.condition.inputs == {"state": shape, "goal": shape}
    assert bundle.action_spec.length == tiny.world_model.action_block
    denoiser = load_checkpoint(run / "assets" / "denoiser" / "checkpoint.pt")
    assert bundle.provenance["data_fingerprint"] == denoiser.data_fingerprint
    assert denoiser.training["config"]["num_threads"] == 1


def test_latents_are_split_by_trajectory_and_come_from_this_world_model(built, tiny):
    run, _, _ = built
    spec = ActionSpec(representation="raw")
    latents = run / "assets" / "latents"
    splits = {name: open_trajectories(latents, spec, name) for name in ("train", "validation")}
    horizon = tiny.world_model.horizon
    assert len(splits["train"]) == 8 * horizon
    assert len(splits["validation"]) == 3 * horizon
    states = [split.gather(np.arange(len(split)))[0] for split in splits.values()]
    assert states[0].shape[1:] == (tiny.world_model.num_tokens, tiny.world_model.token_dim)
    assert all(np.isfinite(state).all() for state in states)


def test_progress_comes_by_phase_and_in_order(built):
    _, _, phases = built
    names = list(dict.fromkeys(phase for phase, _, _ in phases))
    assert names[0] == "collect"
    assert names.index("train") < names.index("collect for the denoiser")
    assert names.index("collect for the denoiser") < names.index("train the denoiser")
    for name in names:
        steps = [(done, total) for phase, done, total in phases if phase == name]
        assert all(0 < done <= total for done, total in steps), name


def test_what_is_there_is_not_made_again(built, monkeypatch):
    run, found, _ = built

    def refuse(*arguments, **settings):
        raise AssertionError("made again")

    for name in ("train_world_model", "collect_transitions", "train_run", "export_bundle"):
        monkeypatch.setattr(assets, name, refuse)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert build_assets(run, quick=True) == found
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_an_interrupted_denoiser_goes_on_and_is_the_same(built, tmp_path, monkeypatch):
    """Interrupted in the denoiser's second epoch; parts before it are copied, not made."""
    run, _, _ = built
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "world_model.pt").symlink_to(run / "assets" / "world_model.pt")
    (tmp_path / "assets" / "latents").symlink_to(run / "assets" / "latents")
    seen = []

    def interrupt(phase, done, total):
        if phase == "train the denoiser":
            seen.append(done)
            if done == 3 and seen.count(3) == 1:
                raise KeyboardInterrupt

    exported = []
    monkeypatch.setattr(assets, "export_bundle", lambda *paths: exported.append(paths))
    with pytest.raises(KeyboardInterrupt):
        build_assets(tmp_path, quick=True, progress=interrupt)
    assert exported == []
    build_assets(tmp_path, quick=True, progress=interrupt)
    assert seen == [1, 2, 3, 4]
    checkpoint = tmp_path / "assets" / "denoiser" / "checkpoint.pt"
    assert exported == [(checkpoint, tmp_path / "assets" / "bundle")]
    resumed = load_checkpoint(checkpoint).model.state_dict()
    whole = load_checkpoint(run / "assets" / "denoiser" / "checkpoint.pt").model.state_dict()
    assert all((resumed[name] == whole[name]).all() for name in whole)
