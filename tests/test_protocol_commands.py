"""What the benchmark's commands pass on, print and write."""

import inspect
import json

import builders.training as tiny
import numpy as np
import pytest
import torch

from vj2_ddim_benchmark import commands, latency_commands, tune_commands
from vj2_ddim_benchmark.assets import Assets, AssetSettings
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

    def build_assets(*arguments):
        asked.append(arguments)
        raise Stop

    monkeypatch.setattr(commands, "build_assets", build_assets)
    monkeypatch.setattr(commands, "shipped_assets", lambda: Assets(tmp_path / "shipped"))
    for how in ({"retrain": True}, {"small_sampler": True}):
        with pytest.raises(Stop):
            commands.benchmark(tmp_path, planners=["random-gestures-16"], threads=threads, **how)
    (folder, settings, _, given), (small_folder, small, _, small_given, world_model) = asked
    assert (folder, settings) == (tmp_path / "assets", AssetSettings.full())
    assert (small_folder, small) == (tmp_path / "small", AssetSettings.small())
    assert world_model == tmp_path / "shipped" / "world_model.pt"
    assert (given, small_given) == (threads, threads)


def test_only_what_is_not_given_is_taken_from_the_shipped_parts(tmp_path, monkeypatch):
    made = Assets(tmp_path / "shipped")
    monkeypatch.setattr(commands, "shipped_assets", lambda: made)
    raced = []

    class Benchmark:
        def __init__(self, world_model, bundle, **settings):
            amortised = settings["regression"], settings["gaussian"]
            raced.append((world_model, bundle, *amortised, settings["threads"]))
            raise Stop

    monkeypatch.setattr(commands, "Benchmark", Benchmark)
    given = tmp_path / "given"
    parts = ("world_model", "bundle", "regression", "gaussian")
    for chosen in ((), ("world_model",), ("bundle",), ("regression", "gaussian"), parts):
        with pytest.raises(Stop):
            commands.benchmark(
                tmp_path,
                **dict.fromkeys(chosen, given),
                planners=["random-gestures-16"],
                threads=2,
            )
        wanted = [given if part in chosen else getattr(made, part) for part in parts]
        assert raced[-1] == (*wanted, 2)


@pytest.mark.parametrize(
    "command",
    [commands.benchmark, tune_commands.benchmark_tune, latency_commands.latency],
    ids=lambda command: command.__name__,
)
def test_every_command_uses_two_threads_unless_told(command):
    assert inspect.signature(command).parameters["threads"].default == 2
