"""Where numbers and pictures go."""

import json
import warnings

import numpy as np
import pytest
import torch
from builders.training import make_settings, vj2_ddim, write_data

from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.run import train_run
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.watch import describe, noise_reduction

PICTURES = ("noise", "sequences")
DISABLED = TrainingConfig(wandb_mode="disabled")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracked")
    write_data(root / "data")
    train_run(make_settings(root, num_epochs=3, picture_every=2))
    return root / "run"


def test_one_line_an_epoch_with_every_measure(run):
    lines = lines_of(run / "metrics.jsonl")
    assert [(line["epoch"], line["step"]) for line in lines] == [(i, 3 * i) for i in (1, 2, 3)]
    for line in lines:
        assert {"loss", "lr", "validation_loss"} < set(line)
        for protocol in ("conditional", "denoise@0.5", "inversion", "inversion-euler"):
            assert "mean_snr_db" in line[protocol]["10"]
        assert "gesture_type_distance" in line["generate"]["10"]


@pytest.fixture(scope="module")
def pictures_of_runs_are_empty():
    """Here they are looked at."""


def test_pictures_every_so_many_epochs_and_at_the_end(run):
    names = sorted(path.name for path in (run / "pictures").iterdir())
    expected = [f"epoch_{epoch:04d}_{what}.png" for epoch in (2, 3) for what in PICTURES]
    assert names == sorted(expected)
    for path in (run / "pictures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_run_folder_holds_what_it_should_and_no_wandb_when_disabled(run):
    assert sorted(path.name for path in run.iterdir()) == [
        "best.pt",
        "checkpoint.pt",
        "config.yaml",
        "metrics.jsonl",
        "pictures",
        "report.html",
        "run.json",
    ]


def test_a_new_run_forgets_unless_resumed(tmp_path):
    folder = RunFolder(tmp_path)
    Tracker(folder, {}, DISABLED).log(1, 3, {"loss": 0.5, "generate": {"10": {"tv": 0.1}}})
    Tracker(folder, {}, DISABLED, resume=True).log(2, 6, {"loss": 0.25})
    assert lines_of(folder.metrics) == [
        {"epoch": 1, "step": 3, "loss": 0.5, "generate": {"10": {"tv": 0.1}}},
        {"epoch": 2, "step": 6, "loss": 0.25},
    ]
    folder.begin()
    Tracker(folder, {}, DISABLED).log(1, 3, {})
    assert len(lines_of(folder.metrics)) == 1


def test_forget_after_keeps_earlier_epochs_byte_for_byte(tmp_path):
    folder = RunFolder(tmp_path)
    tracker = Tracker(folder, {}, DISABLED)
    for epoch in (1, 2, 3):
        tracker.log(epoch, epoch, {"loss": 1 / 3})
    kept = folder.metrics.read_text().splitlines(keepends=True)[:2]
    tracker.forget_after(2)
    assert folder.metrics.read_text() == "".join(kept)


def test_metrics_are_strict_json_even_when_a_number_is_not_finite(tmp_path):
    """`NaN` is no JSON: other tools would refuse the whole file."""
    folder = RunFolder(tmp_path)
    numbers = {"loss": float("nan"), "generate": {"10": {"density": float("inf")}}}
    Tracker(folder, {}, DISABLED).log(1, 3, numbers)

    def refuse(constant):
        raise AssertionError(constant)

    line = json.loads(folder.metrics.read_text(), parse_constant=refuse)
    assert line["loss"] is None
    assert line["generate"]["10"]["density"] is None


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    module = pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"wandb|pydantic")
        yield module


def test_weights_and_biases_offline_mirrors_a_run_and_keeps_its_artifacts(tmp_path, wandb, capsys):
    write_data(tmp_path / "data")
    settings = make_settings(
        tmp_path, num_epochs=1, log_every=2, wandb_mode="offline", wandb_project="a-project",
        run_name="a name", wandb_artifact=True,
    )  # fmt: skip
    train_run(settings)
    told = ("export", tmp_path / "run" / "checkpoint.pt", "--out", tmp_path / "bundle", "--wandb")
    assert vj2_ddim(*told) == 0
    wandb.teardown()  # as at the end of the process: its helper has written everything
    run_id = RunFolder(tmp_path / "run").read_identity()["tracker"]["id"]
    assert f"bundle-{run_id}" in capsys.readouterr().out
    records = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert all(run_id in path.parent.name for path in records)
    content = b"".join(path.read_bytes() for path in records)
    names = ["loss", "lr", "generate/10/coverage", "pictures/noise"]
    names += [f"train/{name}" for name in TOLD] + ["train/activations/denoiser.embed/std"]
    names += ["val/loss", "val/mse", "val/mae", "val/mse_std", "val/variance_ratio_x"]
    names += ["val/reconstructions", f"checkpoint-{run_id}", f"bundle-{run_id}"]
    names += ["a-project", "a name", "num_parameters", "run_table"]
    missing = [name for name in names if name.encode() not in content]
    assert missing == []
    media = tmp_path / "run" / "wandb"
    assert len(list(media.glob("offline-run-*/files/media/images/pictures/*.png"))) == 2
    (table,) = media.glob("offline-run-*/files/media/table/val/*.json")
    table = json.loads(table.read_text())
    assert table["columns"] == [
        "epoch", "sample", "original", "noisy", "recreated", "mse", "mae",
    ]  # fmt: skip
    assert [row[:2] for row in table["data"]] == [[1, 0], [1, 1]]


def test_a_run_without_a_tracker_has_nowhere_to_keep_artifacts(run, tmp_path, capsys):
    told = ("export", run / "checkpoint.pt", "--out", tmp_path / "bundle", "--wandb")
    assert vj2_ddim(*told) == 1
    assert "run.json: names no Weights & Biases run" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


TOLD = (
    "loss", "gradient_norm", "seconds_per_sample", "weight_norm", "noise_reduction",
    "learning_rate",
)  # fmt: skip


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    root = tmp_path_factory.mktemp("watched")
    write_data(root / "data")
    train_run(make_settings(root, num_epochs=3, log_every=2))
    return root / "run"


def test_one_line_of_steps_every_so_many(watched):
    lines = lines_of(watched / "steps.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for line in lines:
        assert set(line["train"]) == {*TOLD, "activations"}
        layers = line["train"]["activations"]
        assert {"denoiser.embed", "condition_encoder.embed", "denoiser.output"} < set(layers)
        for of in layers.values():
            assert set(of) == {"mean", "std", "dead", "saturated"}
            assert 0.0 <= of["dead"] <= 1.0
            assert of["std"] >= 0.0


def test_looking_changes_no_bit(watched, tmp_path):
    (tmp_path / "data").symlink_to(watched.parent / "data")
    train_run(make_settings(tmp_path, num_epochs=3))
    assert not (tmp_path / "run" / "steps.jsonl").exists()
    one, other = (load_checkpoint(run / "checkpoint.pt") for run in (watched, tmp_path / "run"))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    first, second = ((run / "metrics.jsonl").read_text() for run in (watched, tmp_path / "run"))
    assert first == second


def test_lines_of_steps_that_are_taken_again_are_dropped(watched):
    folder = RunFolder(watched)
    before, lines = folder.metrics.read_bytes(), folder.steps.read_bytes()
    Tracker(folder, {}, DISABLED).forget_after(3, 5)
    assert [line["step"] for line in lines_of(folder.steps)] == [2, 4]
    assert folder.metrics.read_bytes() == before
    folder.steps.write_bytes(lines)


def test_what_a_layer_puts_out_by_hand():
    found = describe(torch.tensor([[[1.0, 2.0], [1.0, -2.0]], [[1.0, 12.0], [1.0, 0.0]]]))
    values = [1.0, 2.0, 1.0, -2.0, 1.0, 12.0, 1.0, 0.0]
    assert found.tolist() == pytest.approx([np.mean(values), np.std(values), 1 / 2, 1 / 8])


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_the_share_of_the_noise_that_goes(prediction_type):
    torch.manual_seed(0)
    original, noise = torch.randn(2, 6, 4, 3).unbind()
    alpha = torch.linspace(0.01, 0.99, 6)[:, None, None]
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    noisy = signal * original + spread * noise

    def found(x0):
        epsilon = (noisy - signal * x0) / spread
        output = {"epsilon": epsilon, "sample": x0, "v_prediction": signal * epsilon - spread * x0}
        return float(
            noise_reduction(noisy, output[prediction_type], original, alpha, prediction_type)
        )

    assert found(original) == pytest.approx(1.0, abs=1e-5)
    assert found(noisy / signal) == pytest.approx(0.0, abs=1e-4)
    left = (0.5 * spread * noise).square().mean() / (spread * noise).square().mean()
    assert found(original + 0.5 * spread / signal * noise) == pytest.approx(
        1 - float(left), abs=1e-4
    )
