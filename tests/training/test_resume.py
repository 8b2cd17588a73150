"""An interrupted run that is resumed is the run that was not interrupted, to the last bit."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from builders.runs import assert_same_run
from builders.training import make_settings, measure_the_loss_alone, write_data

from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import load_checkpoint, save_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.processes import hold_interrupts
from vj2_ddim_training.run import train_run
from vj2_ddim_training.run_folder import RunFolder, Tracker
from vj2_ddim_training.validation import Validation

EPOCH = 3  # steps


@pytest.fixture(scope="module", autouse=True)
def loss_is_all_that_is_measured():
    with pytest.MonkeyPatch.context() as patch:
        measure_the_loss_alone(patch)
        yield


@pytest.fixture(scope="module", params=["dit", "minimal"])
def architecture(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(architecture, tmp_path_factory):
    root = tmp_path_factory.mktemp(architecture)
    write_data(root / "data")
    train_run(make_settings(root, architecture, num_epochs=3))
    return root / "run"


@pytest.fixture
def settings(architecture, tmp_path):
    write_data(tmp_path / "data")
    return make_settings(tmp_path, architecture, num_epochs=3)


def interrupt_at(*steps):
    left = list(steps)

    def progress(done, total, line):
        if done in left:
            left.remove(done)
            raise KeyboardInterrupt

    return progress


def test_interrupted_anywhere_and_resumed(settings, uninterrupted, tmp_path):
    for step in (1, EPOCH, EPOCH + 2, 3 * EPOCH - 1, 3 * EPOCH):
        here = replace(settings, save_dir=tmp_path / f"at_{step}")
        with pytest.raises(KeyboardInterrupt):
            train_run(here, interrupt_at(step))
        assert load_checkpoint(here.save_dir / "checkpoint.pt").training["step"] == step
        train_run(replace(here, resume=True))
        assert_same_run(here.save_dir, uninterrupted)


def test_interrupted_twice_in_one_epoch(settings, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, interrupt_at(EPOCH + 1))
    with pytest.raises(KeyboardInterrupt):
        train_run(replace(settings, resume=True), interrupt_at(EPOCH + 2))
    train_run(replace(settings, resume=True))
    assert_same_run(settings.save_dir, uninterrupted)


def test_interrupted_while_validating(settings, uninterrupted, monkeypatch):
    measure = Validation.measure

    def interrupt(*arguments):
        monkeypatch.setattr(Validation, "measure", measure)
        raise KeyboardInterrupt

    monkeypatch.setattr(Validation, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_run(settings)
    train_run(replace(settings, resume=True))
    assert_same_run(settings.save_dir, uninterrupted)


def test_killed_between_the_metrics_and_the_checkpoint(settings, uninterrupted, monkeypatch):
    """A full disk, say: the epoch is in metrics.jsonl, but not in the checkpoint."""
    saved = 0

    def fail_at_second(checkpoint, path):
        nonlocal saved
        saved += 1
        if saved == 2:
            raise CheckpointError("no space left")
        save_checkpoint(checkpoint, path)

    monkeypatch.setattr("vj2_ddim_training.trainer.save_checkpoint", fail_at_second)
    with pytest.raises(CheckpointError, match="no space"):
        train_run(settings)
    with open(settings.save_dir / "metrics.jsonl", "a") as stream:
        stream.write('{"epoch": 3, "cut')  # and a line that was not written whole
    train_run(replace(settings, resume=True))
    assert_same_run(settings.save_dir, uninterrupted)


def test_ctrl_c_in_the_middle_of_an_update_waits_for_its_end(settings, uninterrupted):
    """The weights are stepped, the learning rate not yet: no moment to write a checkpoint."""
    step = torch.optim.AdamW.step
    calls = 0

    def interrupted_step(optimizer, *arguments):
        nonlocal calls
        calls += 1
        result = step(optimizer, *arguments)
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
        return result

    torch.optim.AdamW.step = interrupted_step
    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(settings)
    finally:
        torch.optim.AdamW.step = step
    assert load_checkpoint(settings.save_dir / "checkpoint.pt").training["step"] == 5
    train_run(replace(settings, resume=True))
    assert_same_run(settings.save_dir, uninterrupted)


def test_resuming_a_finished_run_changes_nothing(settings, uninterrupted):
    train_run(settings)
    train_run(replace(settings, resume=True))
    assert_same_run(settings.save_dir, uninterrupted)


def test_ctrl_c_leaves_a_checkpoint_that_loads_and_frees_the_folder(settings):
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, interrupt_at(2))
    assert not (settings.save_dir / "run.lock").exists()
    loaded = load_checkpoint(settings.save_dir / "checkpoint.pt")
    assert not loaded.model.training
    assert loaded.training["step"] == 2


def test_a_real_ctrl_c_ends_the_process_and_leaves_a_checkpoint(tmp_path):
    write_data(tmp_path / "data")
    arguments = ["--data-dir", "data", "--val-data-dir", "data", "--save-dir", "run"]
    arguments += ["--sequence-length", "20", "--d-model", "16", "--num-layers", "1"]
    arguments += ["--num-epochs", "10000", "--evaluate-every", "10000", "--wandb", "disabled"]
    code = (
        "import os, signal, sys, threading, time\n"
        "from vj2_ddim_training import run_folder\n"
        "def stop():\n"
        "    while not os.path.exists('run/checkpoint.pt'): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=stop, daemon=True).start()\n"
        "from vj2_ddim_plugin.cli import main\n"
        "main(['train', *sys.argv[2:]])\n"
    )
    command = [sys.executable, "-c", code, "train", *arguments]
    settings = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "timeout": 60, "text": True}
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, **settings)
    assert found.returncode != 0
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "run" / "run.lock").exists()
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").training["step"] > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 2e-3}, r"'lr': \(0.001, 0.002\)"),
        ({"seed": 1}, "'seed'"),
        ({"representation": "held"}, "'action_spec'"),
        ({"schedule": NoiseSchedule("linear", "v_prediction")}, "'schedule'"),
        ({"schedule": NoiseSchedule("cosine", "sample")}, "'schedule'"),
        ({"condition": "none"}, "'condition'"),
        ({"patch_size": 1}, "'patch_size'"),
        ({"data_dir": "other"}, "'data'"),
        ({"val_data_dir": "other"}, "'validation_data'"),
    ],
)
def test_other_settings_or_data_are_refused_by_name(tmp_path, change, named):
    write_data(tmp_path / "data")
    write_data(tmp_path / "other", seed=9)
    train_run(make_settings(tmp_path, num_epochs=1))
    change = {name: tmp_path / of if of == "other" else of for name, of in change.items()}
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    settings = make_settings(tmp_path, **{"num_epochs": 1, "resume": True, **change})
    with pytest.raises(CheckpointError, match=named) as caught:
        train_run(settings)
    assert "checkpoint.pt" in str(caught.value)
    assert "overwrite" in str(caught.value)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_another_representation_of_the_same_shape_is_refused(tmp_path):
    write_data(tmp_path / "data")
    train_run(make_settings(tmp_path, num_epochs=1, representation="held"))
    with pytest.raises(CheckpointError, match=r"action_spec.*held.*raw"):
        train_run(make_settings(tmp_path, num_epochs=1, representation="raw", resume=True))


def test_device_threads_and_wandb_may_differ(tmp_path):
    write_data(tmp_path / "data")
    train_run(make_settings(tmp_path, num_epochs=1))
    changes = {"device": "cpu", "num_threads": 1, "wandb_project": "other"}
    train_run(make_settings(tmp_path, num_epochs=1, resume=True, **changes))


def test_a_checkpoint_without_training_state_cannot_be_resumed(tmp_path):
    write_data(tmp_path / "data")
    train_run(make_settings(tmp_path, num_epochs=1))
    path = tmp_path / "run" / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["training"]["optimizer"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"lacks \['optimizer'\]"):
        train_run(make_settings(tmp_path, num_epochs=1, resume=True))


def test_resume_and_overwrite_together_destroy_nothing(tmp_path):
    write_data(tmp_path / "data")
    train_run(make_settings(tmp_path, num_epochs=1))
    with pytest.raises(ConfigError, match=r"resume=True.*overwrite=True"):
        train_run(make_settings(tmp_path, num_epochs=1, resume=True, overwrite=True))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").training["epoch"] == 1


def test_forget_after_without_metrics(tmp_path):
    config = TrainingConfig(wandb_mode="disabled")
    Tracker(RunFolder(tmp_path), {}, config, resume=True).forget_after(3)
    assert list(tmp_path.iterdir()) == []


def test_held_interrupt_comes_once_and_after_the_block():
    done = []

    def interrupted_twice():
        with hold_interrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the block")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert done == ["the rest of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with hold_interrupts():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_checkpoint_from_before_a_setting_existed_is_resumed(tmp_path):
    write_data(tmp_path / "data")
    settings = make_settings(tmp_path, num_epochs=1)
    train_run(settings)
    path = tmp_path / "run" / "checkpoint.pt"
    checkpoint = load_checkpoint(path)
    del checkpoint.training["config"]["num_cycles"]
    save_checkpoint(checkpoint, path)
    assert train_run(replace(settings, resume=True)).training["config"]["num_cycles"] == 1
