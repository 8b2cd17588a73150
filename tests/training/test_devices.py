"""Several devices, mixed precision and parts of a batch: the run that one device makes."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from builders.runs import assert_same_run
from builders.training import make_settings, measure_the_loss_alone, write_data

from vj2_ddim_plugin.cli import main
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.devices import choose_devices
from vj2_ddim_training.run import settings_of_run, train_run

CLOSE = {"rtol": 1e-3}  # of the losses: sums over processes are added up in another order
EPOCHS = 2000


@pytest.fixture(autouse=True)
def little_is_measured(monkeypatch):
    measure_the_loss_alone(monkeypatch)


@pytest.fixture
def root(tmp_path):
    write_data(tmp_path / "data", num=11)  # in batches of 5: shares of 3 and 2, and of 1 and none
    return tmp_path


def losses_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def interrupted_at(step):
    def progress(done, total, line):
        if done == step:
            raise KeyboardInterrupt

    return progress


WORDS = ["--save-dir", "run", "--data-dir", "data", "--val-data-dir", "data"]
WORDS += ["--sequence-length", "20", "--d-model", "16", "--num-layers", "1", "--nhead", "2"]
WORDS += ["--lr", "1e-3", "--batch-size", "5", "--num-epochs", str(EPOCHS)]
WORDS += ["--evaluate-every", str(EPOCHS), "--num-validation", "4", "--wandb", "disabled"]
WORDS += ["--timestep-spacing", "linspace"]


class Torchrun:
    """A run of two processes, which is stopped in its midst."""

    def __init__(self, root, *words):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        command += ["-m", "vj2_ddim_training", *words]
        self.said = root / "said.txt"
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        how = {"cwd": root, "env": env, "stdout": subprocess.DEVNULL}
        with open(self.said, "w") as stream:
            self.process = subprocess.Popen(command, stderr=stream, **how)

    def kill(self, rank):
        """Kill the process of a rank; returns the exit status of all, and what was said."""
        for child in psutil.Process(self.process.pid).children():
            if child.environ().get("RANK") == str(rank):
                child.kill()
        return self.process.wait(60), self.said.read_text()


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def one_of(count, rank, root, port, words):
    """What `torchrun` starts, without a Python of its own."""
    os.chdir(root)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    names |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    with open(root / f"said_{rank}.txt", "w", buffering=1) as sys.stderr:
        main(["train", *words])


def started(count, root, words):
    context, port = multiprocessing.get_context("fork"), free_port()
    what = [(count, rank, root, port, words) for rank in range(count)]
    processes = [context.Process(target=one_of, args=arguments) for arguments in what]
    for process in processes:
        process.start()
    return processes


def wait_for(folder, epochs, alive):
    file = folder / "metrics.jsonl"
    while not file.exists() or len(file.read_bytes().splitlines()) < epochs:
        assert alive()
        time.sleep(0.02)


def test_killed_with_two_stopped_with_three_ended_with_one(root):
    """The losses of every epoch are those of a run of one process that nothing happened to."""
    settings = make_settings(root, batch_size=5, num_epochs=EPOCHS, evaluate_every=EPOCHS)
    settings = replace(settings, data_dir=root / "data", save_dir=root / "run")
    run = Torchrun(root, *WORDS)
    wait_for(root / "run", 2, lambda: run.process.poll() is None)
    status, said = run.kill(1)
    assert status != 0
    assert "SIGKILL" in said  # torchrun's; the other says nothing where that ends it too early
    killed = load_checkpoint(root / "run" / "checkpoint.pt").training
    assert killed["step"] >= 6

    three = started(3, root, ["--save-dir", "run", "--resume", "--accumulate", "2"])
    wait_for(root / "run", killed["epoch"] + 2, lambda: all(each.is_alive() for each in three))
    for process in three:
        process.terminate()
    for process in three:
        process.join(60)
    assert [process.exitcode for process in three] == [128 + signal.SIGTERM] * 3
    stopped = load_checkpoint(root / "run" / "checkpoint.pt").training
    assert stopped["step"] > killed["step"]

    last = 3 * (stopped["epoch"] + 2)
    with pytest.raises(KeyboardInterrupt):
        train_run(settings_of_run(root / "run"), interrupted_at(last + 1))
    with pytest.raises(KeyboardInterrupt):
        train_run(replace(settings, save_dir=root / "whole"), interrupted_at(last + 1))
    np.testing.assert_allclose(losses_of(root / "run"), losses_of(root / "whole"), **CLOSE)
    assert len(losses_of(root / "run")) == last / 3


def test_a_process_whose_other_was_killed_says_so_and_what_is_kept(root):
    both = started(2, root, WORDS)
    wait_for(root / "run", 2, lambda: all(each.is_alive() for each in both))
    both[1].kill()
    for process in both:
        process.join(60)
    assert both[0].exitcode == 1
    said = " ".join((root / "said_0.txt").read_text().split())
    assert "the training cannot go on" in said
    assert "run/checkpoint.pt is that of" in said
    assert load_checkpoint(root / "run" / "checkpoint.pt").training["step"] >= 6


def test_parts_of_a_batch_are_one_step(root):
    settings = make_settings(root, batch_size=5, condition_dropout=0.5)
    parts = make_settings(root, batch_size=5, accumulate=3, condition_dropout=0.5)
    train_run(settings)
    train_run(replace(parts, save_dir=root / "parts"))
    np.testing.assert_allclose(losses_of(root / "parts"), losses_of(root / "run"), rtol=1e-5)


def test_bfloat16_follows_float32_and_leaves_nothing_behind(root):
    train_run(replace(make_settings(root, precision="bfloat16"), save_dir=root / "mixed"))
    train_run(make_settings(root))
    weights = load_checkpoint(root / "mixed" / "checkpoint.pt").weights
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    mixed, full = losses_of(root / "mixed"), losses_of(root / "run")
    np.testing.assert_allclose(mixed, full, rtol=0.02)
    assert mixed != full


def test_float16_asks_for_a_gpu_and_compile_for_the_compiler(root, monkeypatch):
    with pytest.raises(ConfigError, match=r"'float16' needs a GPU.*bfloat16"):
        choose_devices(TrainingConfig(precision="float16", device="cpu"))
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    train_run(make_settings(root, compile=True))
    train_run(replace(make_settings(root), save_dir=root / "plain"))
    assert len(compiled) == 1
    assert losses_of(root / "run") == losses_of(root / "plain")


def test_a_loss_looked_at_late_is_the_same_run(root, monkeypatch):
    train_run(make_settings(root))
    choose = choose_devices

    def as_on_a_gpu(config):
        devices = choose(config)
        devices.check_every = 2
        return devices

    monkeypatch.setattr("vj2_ddim_training.run.choose_devices", as_on_a_gpu)
    train_run(replace(make_settings(root), save_dir=root / "late"))
    assert_same_run(root / "late", root / "run")
