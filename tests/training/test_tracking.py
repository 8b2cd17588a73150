"""Where numbers and pictures go."""

import json
import warnings

import pytest
from builders.training import make_settings, write_data
from matplotlib.figure import Figure

from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.run import train_run
from vj2_ddim_training.run_folder import RunFolder, Tracker

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
        "checkpoint.pt",
        "metrics.jsonl",
        "pictures",
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


def test_weights_and_biases_offline_writes_numbers_and_pictures(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"wandb|pydantic")
        project = TrainingConfig(wandb_project="a-project")
        tracker = Tracker(RunFolder(tmp_path), {"lr": 0.1}, project)
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        tracker.picture("noise", 1, 3, figure)
        tracker.log(1, 3, {"loss": 0.5, "generate": {"10": {"coverage": 0.75}}})
        tracker.close()
        wandb.teardown()  # as at the end of the process: its helper has written everything
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (record,) = run.glob("*.wandb")
    content = record.read_bytes()
    for word in (b"a-project", b"generate/10/coverage", b"pictures/noise", b"loss"):
        assert word in content
    assert list(run.glob("files/media/images/pictures/*.png"))
    assert lines_of(tmp_path / "metrics.jsonl")[0]["loss"] == 0.5
