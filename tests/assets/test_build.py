"""The trained parts: made in order, made once, gone on with; and those that come shipped."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.race import benchmark

from vj2_ddim_benchmark.amortised.training import load_amortised
from vj2_ddim_benchmark.assets import build, shipped_assets
from vj2_ddim_benchmark.assets.build import (
    build_assets,
    build_variant,
    collect_latents,
    statistics_of,
)
from vj2_ddim_benchmark.assets.settings import AssetSettings, VariantSettings
from vj2_ddim_benchmark.assets.success import success_of, touch_screen_success, world_model_cost
from vj2_ddim_benchmark.race.tasks import plan
from vj2_ddim_benchmark.world import one_gesture_problems
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import DistillConfig, RankerConfig
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.ranker.network import load_ranker

# Settings that the trained parts are older than, with values that change nothing of them.
LATER = {
    "accumulate": 1, "compile": False, "dropout": 0.1, "log_every": 100,
    "lr_schedule": "warmup_cosine", "max_time": None, "num_workers": None, "patience": None,
    "precision": "float32", "run_name": None, "save_every": None, "save_minutes": 10.0,
    "wandb_artifact": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    full = AssetSettings()
    world_model = WorldModelConfig(
        num_trajectories=8, horizon=2, token_dim=4, width=8, num_layers=1, num_heads=1,
        num_epochs=4, batch_size=8, num_report_problems=2,
    )  # fmt: skip
    how = {"epoch_share": 0.4, "num_validation": 4, "longest_goal": 2}
    training = replace(full.training, num_epochs=2, batch_size=8, **how)
    ranker = RankerConfig(
        width=8, num_layers=1, nhead=1, num_queries=1, num_problems=8, num_epochs=1, batch_size=4
    )
    model = replace(full.model, d_model=16, num_layers=1, nhead=2, condition_tokens=2)
    student = DistillConfig(
        num_problems=8, num_noises=4, teacher_steps=2, kept_share=0.5, num_epochs=1, batch_size=4
    )
    parts = {"training": training, "ranker": ranker, "amortised": training, "model": model}
    parts["student"] = student
    sizes = {"num_trajectories": 8, "num_validation_trajectories": 3}
    return replace(full, world_model=world_model, **sizes, **parts)


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("assets")
    phases = []
    found = build_assets(folder, tiny, progress=lambda *told: phases.append(told[:3]), threads=1)
    return folder, found, phases


def test_parts_fit_one_another(built, tiny):
    folder, found, _ = built
    assert found.complete()
    assert found.world_model == folder / "world_model.pt"
    world_model = WorldModel.load(found.world_model)
    assert world_model.config == tiny.world_model
    bundle = read_bundle(found.bundle)
    shape = (tiny.world_model.num_tokens, tiny.world_model.token_dim)
    assert bundle.condition.inputs == {"state": shape, "goal": shape}
    assert bundle.action_spec.length == tiny.world_model.action_block
    assert "ranker.onnx" in {file.name for file in found.bundle.iterdir()}
    student = read_bundle(found.student)
    assert student.schedule.num_inference_steps == 1
    assert "ranker.onnx" in {file.name for file in found.student.iterdir()}
    assert student.action_spec == bundle.action_spec
    denoiser = load_checkpoint(found.denoiser / "best.pt")
    assert bundle.provenance["data_fingerprint"] == denoiser.data_fingerprint
    assert denoiser.training["config"]["num_threads"] == 1
    for kind, path in (("regression", found.regression), ("gaussian", found.gaussian)):
        assert load_amortised(path, kind).action_spec == bundle.action_spec


def test_success_on_validation_screens_chooses_the_denoiser(built):
    _, found, _ = built
    lines = (found.denoiser / "metrics.jsonl").read_text().splitlines()
    best = load_checkpoint(found.denoiser / "best.pt").metrics
    measured = [json.loads(line) for line in lines]
    assert best["success"] == max(line["success"] for line in measured)
    assert all(0 <= line["success_multimodal"] <= 1 for line in measured)


def test_latents_are_split_by_trajectory_and_come_from_this_world_model(built, tiny):
    _, found, _ = built
    spec = ActionSpec(representation="raw")
    splits = {
        name: open_trajectories(found.latents, spec, name) for name in ("train", "validation")
    }
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


def test_what_is_there_is_not_made_again(built, tiny, monkeypatch):
    folder, found, _ = built

    def refuse(*arguments, **settings):
        raise AssertionError("made again")

    makers = ("train_world_model", "collect_transitions", "train_run", "export_bundle")
    for name in (*makers, "train_amortised", "train_ranker", "distill_to"):
        monkeypatch.setattr(build, name, refuse)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert build_assets(folder, tiny).folder == found.folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_world_model_that_is_there_is_used(built, tiny, tmp_path):
    _, found, _ = built
    small = replace(tiny, ranker=None, student=None, amortised=None)
    made = build_assets(tmp_path, small, threads=1, world_model=found.world_model)
    assert not made.world_model.exists()
    assert not made.gaussian.exists()
    assert not (made.bundle / "ranker.onnx").exists()


def test_an_interrupted_denoiser_goes_on_and_is_the_same(built, tiny, tmp_path, monkeypatch):
    """Interrupted in the denoiser's second epoch; parts before it are linked, not made."""
    _, found, _ = built
    for part in ("world_model.pt", "latents"):
        (tmp_path / part).symlink_to(found.folder / part)
    steps = [done for phase, done, _ in built[2] if phase == "train the denoiser"]
    last = steps[-1]
    seen = []

    def interrupt(phase, done, total):
        if phase == "train the denoiser":
            seen.append(done)
            if done == last - 1 and seen.count(done) == 1:
                raise KeyboardInterrupt

    exported = []
    monkeypatch.setattr(build, "export_bundle", lambda *paths, ranker: exported.append(paths))
    alone = replace(tiny, ranker=None, student=None, amortised=None)
    with pytest.raises(KeyboardInterrupt):
        build_assets(tmp_path, alone, progress=interrupt, threads=1)
    assert exported == []
    made = build_assets(tmp_path, alone, progress=interrupt, threads=1)
    assert seen == steps
    assert exported == [(made.denoiser / "best.pt", made.bundle)]
    resumed = load_checkpoint(made.denoiser / "checkpoint.pt").model.state_dict()
    whole = load_checkpoint(found.denoiser / "checkpoint.pt").model.state_dict()
    assert all((resumed[name] == whole[name]).all() for name in whole)


@pytest.mark.parametrize("data_share", [1.0, 0.01])
def test_variants_take_as_many_steps_however_little_data_they_see(data_share):
    settings = VariantSettings(data_share=data_share, steps=3000).applied_to(AssetSettings())
    training = settings.training
    assert settings.num_trajectories == int(data_share * AssetSettings().num_trajectories)
    examples = settings.num_trajectories * 22  # 4 x 4 nearest, 3 + 2 + 1 farther
    steps = math.ceil(math.ceil(training.epoch_share * examples) / training.batch_size)
    assert 3000 <= steps * training.num_epochs < 3000 + training.num_epochs
    assert training.num_epochs >= 5
    assert training.num_cycles == 1


def test_a_variant_differs_in_what_was_asked_for(built, tiny, tmp_path, monkeypatch):
    _, found, _ = built
    monkeypatch.setattr(build, "AssetSettings", lambda: tiny)

    def make(name, **changes):
        settings = VariantSettings(steps=5, threads=1, **changes)
        return build_variant(tmp_path / name, settings, found.world_model)

    bundles = {
        name: make(name, data_share=share, representation=name)
        for name, share in (("held", 0.5), ("raw", 1.0))
    }
    for name, bundle in bundles.items():
        assert read_bundle(bundle).action_spec.representation == name
    with pytest.raises(ConfigError, match="representation 'rwa' is unknown"):
        make("bad", representation="rwa")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ConfigError, match="data_share"):
        make("raw", data_share=0.5, representation="raw")


def test_the_shell_makes_the_same_with_its_options(tmp_path, monkeypatch, capsys, built):
    _, found, _ = built
    asked = []

    def refuse(folder, settings, *others):
        asked.append((folder, settings, others[-1]))
        raise ConfigError("enough")

    monkeypatch.setattr(build, "build_assets", refuse)
    monkeypatch.setattr(build, "build_variant", refuse)
    assert benchmark("assets", "build", "--out", tmp_path, "--threads", 3) == 1
    assert benchmark("assets", "build", "--out", tmp_path, "--small") == 1
    model = ("--world-model", found.world_model)
    options = ("--out", tmp_path, "--data-share", 0.5, "--representation", "held", "--steps", 9)
    assert benchmark("assets", "denoiser", *options, *model) == 1
    assert [each[:2] for each in asked] == [
        (tmp_path, AssetSettings()),
        (tmp_path, AssetSettings.small()),
        (tmp_path, VariantSettings(data_share=0.5, representation="held", steps=9)),
    ]
    assert asked[0][2] == 3
    assert benchmark("assets", "denoiser", "--out", tmp_path, "--steps", 0) == 1
    assert "--steps must be at least 1; found 0" in capsys.readouterr().err


def test_training_finds_success_and_cost_by_a_file_or_the_shipped(built, tiny):
    _, found, _ = built
    model = load_checkpoint(found.denoiser / "best.pt").model
    by_file = touch_screen_success(str(found.world_model))(model)
    assert by_file == success_of(WorldModel.load(found.world_model))(model)
    ranker = load_ranker(found.denoiser / "ranker.pt", model).ranker
    chosen = touch_screen_success(str(found.world_model))(model, ranker)
    assert set(chosen) == set(by_file)
    assert all(0.0 <= share <= 1.0 for share in chosen.values())
    assert by_file["success"] == load_checkpoint(found.denoiser / "best.pt").metrics["success"]
    shape = (2, tiny.world_model.num_tokens, tiny.world_model.token_dim)
    state, goal = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    candidates = np.zeros((2, 3, tiny.world_model.action_block, 3), np.float32)
    costs = world_model_cost(str(found.world_model))({"state": state, "goal": goal}, candidates)
    wanted = LatentCost(WorldModel.load(found.world_model), state, goal)(candidates)
    np.testing.assert_array_equal(costs, wanted)


ROOT = Path(__file__).parents[2]
MOST_BYTES = 15_000_000
NUM_PROBLEMS = 66


@pytest.fixture(scope="module")
def assets():
    return shipped_assets()


def provenance_of(assets):
    return json.loads(assets.provenance.read_text())


def test_they_are_small_and_every_file_is_the_one_that_was_recorded(assets):
    sizes = [path.stat().st_size for path in assets.folder.rglob("*") if path.is_file()]
    assert sum(sizes) < MOST_BYTES
    assert provenance_of(assets)["sha256"] == (hashes := assets.hashes())
    raced = json.loads((ROOT / "benchmark/results/touch_screen_setup.json").read_text())["fixed"]
    assert raced["world_model_sha256"] == hashes["world_model.pt"]
    assert raced["bundle_sha256"] == hashes["bundle/bundle.json"]


def without_later(settings):
    """Settings as they were when there were fewer; the others are as if they were not there."""
    if not isinstance(settings, dict):
        return settings
    of_the_world_model = {"encoder", "num_moved"}  # its settings are compared as a whole
    later = {*LATER, *of_the_world_model, "correspondences", "displacement_scale"}
    return {name: without_later(of) for name, of in settings.items() if name not in later}


def test_they_were_made_with_what_the_command_uses_today(assets):
    settings = AssetSettings()
    assert provenance_of(assets)["settings"] == without_later(settings.as_json())
    for training in (settings.training, settings.amortised):
        assert {name: getattr(training, name) for name in LATER} == LATER
    assert WorldModel.load(assets.world_model).config == settings.world_model
    spec = read_bundle(assets.bundle).action_spec
    for kind, path in (("regression", assets.regression), ("gaussian", assets.gaussian)):
        assert load_amortised(path, kind).action_spec == spec


def test_one_sample_succeeds_as_often_as_recorded(assets):
    """On fresh validation problems, within four standard errors of the two shares."""
    recorded = provenance_of(assets)["denoiser"]["success"]
    problems = one_gesture_problems(NUM_PROBLEMS, split="validation", seed=11)
    model, pictures = WorldModel.load(assets.world_model), (problems.start, problems.goal)
    asked = model, *(screens.render() for screens in pictures)
    with DDIMOptimizer.from_bundle(assets.bundle, provider="cpu", num_candidates=1) as optimizer:
        result = plan(optimizer, *asked, with_cost=False, seed=3)
    reached = problems.start.execute(result.actions).matches(problems.goal.state).mean()
    error = np.sqrt(recorded * (1 - recorded) * (1 / NUM_PROBLEMS + 1 / 300))
    assert abs(reached - recorded) < 4 * error


def test_the_command_collects_the_data_that_was_recorded(assets):
    """Of the validation split, which is small; the encoder, the screens and the gestures count."""
    recorded = provenance_of(assets)["validation_data"]
    latents, actions = collect_latents(
        WorldModel.load(assets.world_model), AssetSettings(), "validation"
    )
    found = statistics_of(latents[:, :-1], actions)
    for name, values in recorded.items():
        assert found[name] == pytest.approx(values, rel=1e-5, abs=1e-6), name


def test_missing_parts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vj2_ddim_benchmark.assets.SHIPPED", tmp_path)
    with pytest.raises(DataError, match="--retrain"):
        shipped_assets()
