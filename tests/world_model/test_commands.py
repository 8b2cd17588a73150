"""The commands `collect`, `train`, `report`, `embed`, `speed` and `picture`."""

import json
from dataclasses import replace

import h5py
import pytest
from builders.world_model import TINY
from matplotlib.image import imread as read_png
from typer.testing import CliRunner

from vj2_ddim_benchmark.world.collect import load_transitions
from vj2_ddim_benchmark.world_model import commands
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.errors import CheckpointError


def run(*arguments, code=0):
    result = CliRunner().invoke(commands.app, map(str, arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_collect_train_report_embed_work_one_after_another(tmp_path, monkeypatch):
    monkeypatch.setattr(WorldModelConfig, "quick", classmethod(lambda cls: TINY))
    model, screens, latents = tmp_path / "w.pt", tmp_path / "s.h5", tmp_path / "latents"

    output = run(
        "train", "--out", model, "--quick", "--num-trajectories", 9, "--horizon", 2, "--epochs", 1
    )
    assert "best of" in output
    assert "overall" in output
    assert WorldModel.load(model).config == replace(TINY, num_trajectories=9)

    run("collect", "--out", screens, "--num-trajectories", 4, "--horizon", 2, "--split", "test")
    with h5py.File(screens) as file:
        assert file["frames"].shape == (4, 3, 64, 64, 3)
        assert file.attrs["split"] == "test"

    run("report", model, "--num-problems", 3, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["num_problems"] == 3
    assert 0 <= report["measures"]["overall"]["best_of_64_succeeds"] <= 1

    output = run("report", model, "--transitions", screens, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["num_problems"] == 3
    assert set(report["measures"]["overall"]) <= {
        "prediction_error",
        "true_below_others",
        "true_first",
    }
    assert f"{report['num_problems']} problems of the recorded split" in output

    run("embed", model, screens, screens, "--validation", screens, "--out", latents)
    manifest = json.loads((latents / "manifest.json").read_text())
    assert manifest["layer_normed"] == TINY.layer_norm
    for split, num in (("train", 8), ("validation", 4)):
        with h5py.File(latents / manifest["splits"][split][0]) as file:
            assert file["embeddings"].shape == (num, 3, 64, 8)
            assert file["actions"].shape == (num, 2, 250, 3)
    run("embed", model, screens, "--changes-only", "--out", tmp_path / "changes")
    files = json.loads((tmp_path / "changes" / "manifest.json").read_text())["splits"]["train"]
    touches = 0
    for name in files:
        with h5py.File(tmp_path / "changes" / name) as file:
            touches += file["actions"].shape[0] * file["actions"].shape[1]
    states = load_transitions(screens).states
    assert touches == (states[:, 1:] != states[:, :-1]).any(axis=-1).sum() < 8
    with pytest.raises(CheckpointError, match="no such file"):  # errors are the main command's
        run("report", tmp_path / "absent.pt")


def test_speed_counts_transitions_in_both_clocks(tmp_path):
    path = tmp_path / "speed.json"
    output = run("speed", "--num-screens", 8, "--size", 32, "--num-repeats", 3, "--json", path)
    measured = json.loads(path.read_text())
    assert (measured["num_screens"], measured["size"]) == (8, 32)
    for clock, seconds in measured["repeats"].items():
        assert len(seconds) == 3
        rate = measured["transitions_per_second"][clock]
        assert rate == pytest.approx(8 / sorted(seconds)[1])
        assert f"{rate:.0f}" in output
    assert measured["environment"]["numpy"]
    assert "--num-repeats" in run("speed", "--num-repeats", 0, code=2)


def test_picture_draws_every_kind(tmp_path):
    path = tmp_path / "widgets.png"
    run("picture", "--out", path, "--split", "test")
    pixels = read_png(path)
    assert pixels.shape[1] > 800
    assert 10_000 < path.stat().st_size < 250_000
