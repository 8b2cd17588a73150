"""A run is one run: its data, its settings, its name at Weights & Biases, its folder."""

import json
import sys
import types
from dataclasses import replace

import pytest
import torch
from builders.training import make_settings, vj2_ddim, write_data

from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.run import settings_of_run, train_run
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.validation import Validation


@pytest.fixture(autouse=True)
def loss_is_all_that_is_measured(monkeypatch):
    monkeypatch.setattr("vj2_ddim_training.validation.evaluate", lambda *arguments, **settings: {})
    picture = "epoch_{:04d}_noise.png"

    def draw(validation, model, epoch, step):
        folder = validation.tracker._folder.pictures
        folder.mkdir(exist_ok=True)
        (folder / picture.format(epoch)).write_bytes(b"picture")

    monkeypatch.setattr(Validation, "_pictures", draw)


@pytest.fixture
def trained(tmp_path):
    write_data(tmp_path / "data")
    write_data(tmp_path / "other", seed=9)
    settings = make_settings(tmp_path, picture_every=1)
    train_run(settings)
    return settings


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resume_alone_suffices(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "data")  # paths that were told are not those of today
    before = torch.load(trained.save_dir / "checkpoint.pt", weights_only=True)
    assert vj2_ddim("train", "--save-dir", trained.save_dir, "--resume") == 0
    after = torch.load(trained.save_dir / "checkpoint.pt", weights_only=True)
    assert after["training"]["config"] == before["training"]["config"]
    assert after["training"]["step"] == before["training"]["step"] == 6
    settings = settings_of_run(trained.save_dir)
    assert settings.training == trained.training
    assert (settings.folders, settings.resume) == (trained.folders, True)
    assert settings.schedule == trained.schedule


def test_more_epochs_extend_a_finished_run(trained, caplog):
    command = ["train", "--save-dir", trained.save_dir, "--resume", "--num-epochs", "4"]
    assert vj2_ddim(*command) == 0
    assert "goes on to 4 epochs instead of 2" in caplog.text
    lines = lines_of(trained.save_dir)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines][1::2] == pytest.approx([0.0, 0.0], abs=1e-12)
    long = train_run(replace(trained, save_dir=trained.save_dir / "long",
                             training=replace(trained.training, num_epochs=4)))  # fmt: skip
    straight = [line["lr"] for line in lines_of(trained.save_dir / "long")]
    assert lines[2]["lr"] == pytest.approx(straight[2])  # the course of the longer run
    assert (
        long.training["step"]
        == load_checkpoint(trained.save_dir / "checkpoint.pt").training["step"]
    )
    assert vj2_ddim("train", "--save-dir", trained.save_dir, "--resume", "--num-epochs", "3") == 1


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["--lr", "0.5"], "'lr': (0.001, 0.5)"),
        (["--d-model", "32"], "'d_model': (16, 32)"),
        (["--seed", "5"], "'seed': (0, 5)"),
        (["--val-data-dir", "other"], "'validation_data'"),
        (["--data-dir", "other"], "'data'"),
        (["--prediction-type", "sample"], "'schedule'"),
        (["--overwrite"], "give one of them"),
        (["--num-epochs", "1"], "at least 2, which are done"),
    ],
)
def test_what_is_told_again_must_agree(trained, tmp_path, monkeypatch, capsys, told, said):
    monkeypatch.chdir(tmp_path)
    before = content_of(trained.save_dir)
    assert vj2_ddim("train", "--save-dir", "run", "--resume", *told) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert content_of(trained.save_dir) == before


def test_a_new_run_needs_data(tmp_path, capsys):
    assert vj2_ddim("train", "--save-dir", tmp_path / "run", "--data-dir", tmp_path) == 1
    assert "--data-dir and --val-data-dir must be given" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"data": 1, "tracker": null}', "{}",
                                  '{"data": {}, "tracker": 3}', "[" * 99999])  # fmt: skip
def test_a_run_json_that_is_none_is_named(trained, text):
    (trained.save_dir / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json: .*(Delete|Repair|expected a JSON)"):
        settings_of_run(trained.save_dir)


def test_a_run_of_an_earlier_version_has_no_run_json(trained):
    (trained.save_dir / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"data_dir and val_data_dir must be given.*run\.json"):
        settings_of_run(trained.save_dir)
    train_run(replace(trained, resume=True))
    assert settings_of_run(trained.save_dir).folders == trained.folders


def test_the_old_run_stays_whole_until_the_new_one_can_go_on(trained, monkeypatch):
    before = content_of(trained.save_dir)
    settings = replace(trained, overwrite=True, training=replace(trained.training, num_epochs=1))

    def fails(*arguments):
        raise ZeroDivisionError

    def stops(done, total, line):
        raise KeyboardInterrupt

    for name in ("trainer.DenoiserTask.losses", "trainer.save_checkpoint", "run.Tracker.__init__"):
        with monkeypatch.context() as patch:
            patch.setattr(f"vj2_ddim_training.{name}", fails)
            with pytest.raises(ZeroDivisionError):
                train_run(settings)
        assert content_of(trained.save_dir) == before, name
    train_run(settings)
    names = sorted(path.name for path in trained.save_dir.rglob("*.*"))
    others = ["epoch_0001_noise.png", "metrics.jsonl", "report.html", "run.json"]
    assert names == ["best.pt", "checkpoint.pt", "config.yaml", *others]
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, stops)
    assert sorted(path.name for path in trained.save_dir.rglob("*.*")) == [
        "checkpoint.pt",
        "config.yaml",
        "report.html",
        "run.json",
    ]


class Wandb(types.ModuleType):
    """Stands in for the package: keeps what is asked of it, refuses without a key."""

    def __init__(self, key=True):
        super().__init__("wandb")
        self.key, self.asked, self.finished, self.Settings = key, [], [], dict

    def login(self, **how):
        if not self.key:
            raise RuntimeError("No API key configured.\nUse `wandb login` to log in.")

    def init(self, **how):
        self.login()
        self.asked.append(how)
        run = types.SimpleNamespace(id=how["id"] or f"new-{len(self.asked)}")
        run.log, run.finish = (
            lambda *a, **b: None,
            lambda exit_code: self.finished.append(exit_code),
        )
        return run


def online(settings, **changes):
    training = {"wandb_mode": "online", **changes}
    return replace(settings, training=replace(settings.training, **training))


def test_a_resumed_run_is_the_same_at_weights_and_biases(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb())
    settings = online(replace(trained, save_dir=trained.save_dir / "tracked"))

    def stops(done, total, line):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(settings, stops)
    assert RunFolder(settings.save_dir).read_identity()["tracker"]["id"] == "new-1"
    train_run(replace(settings, resume=True))
    train_run(replace(trained, save_dir=settings.save_dir, resume=True))  # disabled: not forgotten
    train_run(online(replace(settings, resume=True), wandb_mode="offline"))
    assert [how["id"] for how in wandb.asked] == [None, "new-1", "new-1"]
    assert [how["resume"] for how in wandb.asked] == [None, "allow", "allow"]
    train_run(online(replace(settings, resume=True), wandb_project="elsewhere"))
    assert (wandb.asked[-1]["id"], wandb.finished) == (None, [1, 0, 0, 0])
    (settings.save_dir / "wandb" / "offline-run-20260101-new-4").mkdir(parents=True)
    train_run(replace(settings, overwrite=True))
    assert wandb.asked[-1]["id"] is None
    assert not list((settings.save_dir / "wandb").iterdir())  # the old run's went with it


def test_without_a_key_nothing_is_touched(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Wandb(key=False))
    before = content_of(trained.save_dir)
    said = r"^wandb_mode='online' cannot start: No API key configured\. Use .*wandb_mode='offline'"
    for settings in (replace(trained, overwrite=True), replace(trained, save_dir=tmp_path / "new")):
        with pytest.raises(ConfigError, match=said) as caught:
            train_run(online(settings))
        assert "\n" not in str(caught.value)
    assert content_of(trained.save_dir) == before
    assert not (tmp_path / "new").exists()
