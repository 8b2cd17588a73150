"""The trained parts that come with the package: whole, small, and what their record says."""

import numpy as np
import pytest

from vj2_ddim_benchmark.amortised import load_amortised
from vj2_ddim_benchmark.assets import Assets, shipped_assets
from vj2_ddim_benchmark.assets.build import collect_latents, statistics_of
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.race.tasks import plan
from vj2_ddim_benchmark.world import one_gesture_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.optimizer import DDIMOptimizer

MOST_BYTES = 10_000_000
NUM_PROBLEMS = 66


@pytest.fixture(scope="module")
def assets():
    return shipped_assets()


def test_they_are_small_enough_to_ship(assets):
    sizes = [path.stat().st_size for path in assets.folder.rglob("*") if path.is_file()]
    assert sum(sizes) < MOST_BYTES


def test_every_file_is_the_one_that_was_recorded(assets):
    assert assets.read_provenance()["sha256"] == assets.hashes()


def test_they_were_made_with_what_the_command_uses_today(assets):
    settings = AssetSettings()
    assert assets.read_provenance()["settings"] == settings.as_json()
    assert WorldModel.load(assets.world_model).config == settings.world_model
    spec = read_bundle(assets.bundle).action_spec
    for kind, path in (("regression", assets.regression), ("gaussian", assets.gaussian)):
        assert load_amortised(path, kind).action_spec == spec


def test_one_sample_succeeds_as_often_as_recorded(assets):
    """On fresh validation problems, within four standard errors of the two shares."""
    recorded = assets.read_provenance()["denoiser"]["success"]
    problems = one_gesture_problems(NUM_PROBLEMS, split="validation", seed=11)
    with DDIMOptimizer.from_bundle(assets.bundle, provider="cpu", num_candidates=1) as optimizer:
        result = plan(
            optimizer,
            WorldModel.load(assets.world_model),
            problems.start.render(),
            problems.goal.render(),
            with_cost=False,
            seed=3,
        )
    reached = problems.start.execute(result.actions).matches(problems.goal.state).mean()
    error = np.sqrt(recorded * (1 - recorded) * (1 / NUM_PROBLEMS + 1 / 300))
    assert abs(reached - recorded) < 4 * error


def test_the_command_collects_the_data_that_was_recorded(assets):
    """Of the validation split, which is small; the encoder, the screens and the gestures count."""
    recorded = assets.read_provenance()["validation_data"]
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
    with pytest.raises(DataError, match=r"provenance\.json"):
        Assets(tmp_path).read_provenance()
