"""What the benchmark's commands pass on, print and write."""

import inspect
import json

import numpy as np
import pytest
import tiny
import torch

from vj2_ddim_benchmark import assets, commands
from vj2_ddim_export.export import export_bundle
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def same_threads():
    """The commands set torch's threads; the other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency")
    model = tiny.make_model(condition="latents")
    checkpoint = Checkpoint(model, model.state_dict(), {}, "f" * 16, {}, {"made_by": "a test"})
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    export_bundle(folder / "checkpoint.pt", folder / "bundle")
    return folder / "bundle"


def test_latency_prints_a_table_and_writes_json(bundle, tmp_path, capsys):
    out = tmp_path / "latency.json"
    flags = ("--num-plans", 2, "--num-inference-steps", 3, "--threads", 1, "--json", out)
    assert tiny.vj2_ddim("latency", bundle, *flags) == 0
    measured = json.loads(out.read_text())
    assert (measured["num_plans"], measured["num_inference_steps"]) == (2, 3)
    assert measured["environment"]["torch_threads"] == 1
    for name in ("plugin", "original"):
        assert 0.0 < measured[name]["p50_ms"] <= measured[name]["p95_ms"]
    ratio = measured["original"]["p50_ms"] / measured["plugin"]["p50_ms"]
    np.testing.assert_allclose(measured["ratio_p50"], ratio)
    assert measured["overhead"] >= 1.0  # the whole call holds its ONNX Runtime calls
    printed = capsys.readouterr().out
    for name in ("plugin", "original"):
        assert name in printed
        assert f"{measured[name]['p50_ms']:.2f}" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]


def test_latency_of_what_is_no_bundle_is_an_error(tmp_path, capsys):
    assert tiny.vj2_ddim("latency", tmp_path / "nothing") == 1
    assert "nothing" in capsys.readouterr().err


class Stop(Exception):
    """Ends a command where it would begin to train or to race."""


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_trained_first_uses_the_same_threads(tmp_path, monkeypatch, threads):
    asked = []

    def build_assets(run_dir, quick, progress, threads):
        asked.append((run_dir, quick, threads))
        raise Stop

    monkeypatch.setattr(assets, "build_assets", build_assets)
    with pytest.raises(Stop):
        commands.benchmark(tmp_path, quick=True, planners=["ddim-16"], threads=threads)
    assert asked == [(tmp_path, True, threads)]


def test_only_what_is_not_given_is_taken_from_the_trained_parts(tmp_path, monkeypatch):
    made = assets.Assets(tmp_path / "made.pt", tmp_path / "made")
    monkeypatch.setattr(assets, "build_assets", lambda *settings: made)
    raced = []

    class Benchmark:
        def __init__(self, world_model, bundle, **settings):
            raced.append((world_model, bundle, settings["threads"]))
            raise Stop

    monkeypatch.setattr(commands, "Benchmark", Benchmark)
    given = tmp_path / "given"
    for world_model, bundle in ((None, None), (given, None), (None, given), (given, given)):
        with pytest.raises(Stop):
            commands.benchmark(
                tmp_path, bundle=bundle, world_model=world_model, planners=["ddim-1"], threads=2
            )
    assert raced == [
        (made.world_model_path, made.bundle_path, 2),
        (given, made.bundle_path, 2),
        (made.world_model_path, given, 2),
        (given, given, 2),
    ]


@pytest.mark.parametrize("name", ["benchmark", "benchmark_tune", "latency"])
def test_every_command_uses_two_threads_unless_told(name):
    assert inspect.signature(getattr(commands, name)).parameters["threads"].default == 2
