"""A run that ends before its last epoch, on purpose or not, and what is kept of it on the way."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from builders.runs import EPOCH, Line, assert_same_run, make_loop
from builders.training import make_settings, measure_the_loss_alone, write_data

from vj2_ddim_plugin.errors import ConfigError, TrainingError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.resumable import Keeper, run_resumably
from vj2_ddim_training.run import settings_of_run, train_run
from vj2_ddim_training.validation import Validation


@pytest.fixture(autouse=True)
def little_is_measured(monkeypatch):
    measure_the_loss_alone(monkeypatch)


@pytest.fixture
def settings(tmp_path):
    write_data(tmp_path / "data")
    return make_settings(tmp_path, num_epochs=4)


def changed(settings, name="run", **training):
    folder = settings.save_dir.with_name(name)
    return replace(settings, save_dir=folder, training=replace(settings.training, **training))


def resumed(settings, **told):
    return train_run(settings_of_run(settings.save_dir, told))


def forget(folder, **config):
    """As if a run had been told something else that does not change it."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    content["training"]["config"] |= config
    torch.save(content, folder / "checkpoint.pt")


def test_time_that_is_over_ends_the_run_and_it_goes_on(settings, monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    said = []
    short = changed(settings, max_time="8")
    trained = train_run(short, report=said.append)
    assert 0 < trained.training["step"] < 4 * EPOCH
    assert "the time of 8 is over after step" in said[-1]
    monkeypatch.undo()
    measure_the_loss_alone(monkeypatch)
    resumed(short, max_time=None)
    train_run(changed(settings, "whole"))
    assert_same_run(short.save_dir, settings.save_dir.with_name("whole"))


@pytest.mark.parametrize(
    ("told", "seconds"), [("30m", 1800), ("1.5h", 5400), ("2d", 172800), ("90", 90), ("7s", 7)]
)
def test_times(told, seconds):
    assert TrainingConfig(max_time=told).max_seconds == seconds


@pytest.mark.parametrize("told", ["", "m", "-3m", "0", "nan", "infd", "3w", "soon"])
def test_times_that_are_none(told):
    with pytest.raises(ConfigError, match=r"max_time must be a time such as 30m"):
        TrainingConfig(max_time=told)
    assert TrainingConfig().max_seconds == math.inf


@pytest.mark.parametrize("judged", [True, False])
def test_patience_ends_the_run_and_is_not_forgotten(settings, monkeypatch, judged):
    """The second validation is the best so far, and two more bring nothing; with more patience."""
    told = iter([0.3, 0.9, 0.5, 0.9, 1.0, 0.1, 0.1, 0.1])
    measure = {
        True: lambda: {"success": next(told)},
        False: lambda: {"validation_loss": -next(told)},
    }
    monkeypatch.setattr(Validation, "measure", lambda *arguments: measure[judged]())
    settings = changed(settings, patience=2, num_epochs=9)
    said = []
    trained = train_run(settings, report=said.append)
    assert trained.training["epoch"] == 4
    assert "stopped early, after epoch 4: 2 validations brought nothing better" in said[-1]
    best = load_checkpoint(settings.save_dir / "best.pt")
    assert best.training["epoch"] in (1, 3)
    resumed(settings)
    assert load_checkpoint(settings.save_dir / "checkpoint.pt").training["epoch"] == 4
    assert resumed(settings, patience=3).training["epoch"] == 8


def test_epochs_that_are_kept_and_go_with_their_run(settings):
    train_run(changed(settings, save_every=2))
    kept = {path.name for path in settings.save_dir.glob("epoch_*.pt")}
    assert kept == {"epoch_0002.pt", "epoch_0004.pt"}
    second = load_checkpoint(settings.save_dir / "epoch_0002.pt").training
    assert (second["epoch"], second["step"]) == (2, 2 * EPOCH)
    train_run(replace(settings, overwrite=True))
    assert not list(settings.save_dir.glob("epoch_*.pt"))


def test_killed_within_an_epoch_it_goes_on_from_its_midst(settings):
    def die(done, total, line):
        if done == 2 * EPOCH - 1:
            raise BaseException("as kill -9, it lets nothing more be done")

    often = changed(settings, save_minutes=1e-9)
    with pytest.raises(BaseException, match="as kill"):
        train_run(often, die)
    assert load_checkpoint(often.save_dir / "checkpoint.pt").training["step"] == 2 * EPOCH - 1
    resumed(often)
    train_run(changed(settings, "whole"))
    forget(often.save_dir, save_minutes=10.0)
    assert_same_run(often.save_dir, settings.save_dir.with_name("whole"))


@pytest.mark.parametrize("what", ["nan", "inf", "exploded", "gradient"])
@pytest.mark.parametrize("every", [2, 10])
def test_a_step_gone_wrong_that_is_looked_at_late(tmp_path, what, every):
    """As on a GPU; saving looks first, so that nothing bad is kept."""
    loop = make_loop(Line(what, 4))
    loop.devices.check_every = every
    saved = []
    keeper = Keeper(
        loop, lambda: saved.append(deepcopy(loop.state_dict())), tmp_path / "state", 1e-9
    )
    with pytest.raises(TrainingError, match=r"in step 5, epoch 2.*whose batch is examples 4, 5"):
        keeper.run()
    assert saved
    assert all(w.isfinite().all() for state in saved for w in state["model"].values())


def test_float16_leaves_out_steps_that_it_cannot_hold_but_not_for_ever(tmp_path):
    loop = make_loop(Line("gradient", 4))
    loop.devices.skips = True
    loop.devices.step = lambda adam: loop.step == 4 or adam.step()  # as its scaler does
    run_resumably(loop, None, {})
    assert loop.step == 3 * EPOCH
    loop.devices.skips = False
    with pytest.raises(TrainingError, match="norm of the gradient"):
        loop._require_sound(1.0, math.inf, 0)


def test_every_step_is_told_in_order(tmp_path):
    for every in (1, 4):
        loop, told = make_loop(Line()), []
        loop.devices.check_every = every
        loop.on_step = told.append
        loop.run()
        assert [done.step for done in told] == list(range(1, 3 * EPOCH + 1))
        losses = [done.loss for done in told]
        assert loop.epoch_losses == pytest.approx([sum(losses[i : i + 3]) / 3 for i in (0, 3, 6)])
        assert all(done.gradient_norm > 0 and done.samples_per_second > 0 for done in told)
