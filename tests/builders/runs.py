"""Runs of training that must be the same, and processes that are killed on the way."""

import json
import math
import subprocess
import sys

import torch

from vj2_ddim_training.loop import StatelessTask, TrainingLoop, name_rows

EPOCH = 3  # steps


class Line(StatelessTask):
    """Fits one number; at `step` the loss, the gradient or the weight goes wrong."""

    steps_per_epoch, total_steps = EPOCH, 3 * EPOCH

    def __init__(self, what="", step=-1):
        self.model = torch.nn.Linear(1, 1)
        self.what, self.at = what, step

    def loss(self, step):
        loss = self.model(torch.ones(1)).square().sum()
        if step != self.at:
            return loss
        if self.what == "weight":
            with torch.no_grad():
                self.model.bias += math.inf
            return loss
        factor = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "exploded": 1e9}
        if self.what == "gradient":  # sqrt has an infinite slope at 0
            return loss + (self.model.weight * 0.0).sqrt().sum()
        if self.what == "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return loss * factor[self.what]

    def batch_name(self, step):
        return name_rows(range(step, step + 12))


def make_loop(task):
    adam = torch.optim.AdamW(task.model.parameters(), 1e-3)
    constant = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0)
    return TrainingLoop(task, adam, constant, clip_norm=1.0, ema_decay=0.9)


def results(folder):
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    return content, (folder / "metrics.jsonl").read_text()


def assert_equal(one, other, path=""):
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{path}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other or (one != one and other != other), path


def assert_same_run(folder, other):
    (content, metrics), (other_content, other_metrics) = results(folder), results(other)
    assert_equal(content, other_content)
    assert metrics == other_metrics
    epochs = [json.loads(line)["epoch"] for line in metrics.splitlines()]
    assert epochs == list(range(1, content["training"]["epoch"] + 1))


STARTS = """
import contextlib, io, os, signal, sys, time
from vj2_ddim_plugin.cli import main

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        main(sys.argv[1:])  # once here: what it imports is there for all
print("ready", flush=True)
for line in sys.stdin:  # seconds to live or "", the file for what is said, the arguments
    life, log, *words = line.rstrip("\\n").split("\\t")
    began, child = time.monotonic(), os.fork()
    if child == 0:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        try:
            main(words)
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 99
        os._exit(status if isinstance(status, int) else 1)
    if life:
        time.sleep(float(life))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)
"""


class Starter:
    """Runs the command line in one process after the other, without importing torch for each.

    The `words` are run in the process that they are all forked from.
    """

    def __init__(self, folder, *words):
        self.folder = folder
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", STARTS, *map(str, words)]
        self.process = subprocess.Popen(command, cwd=folder, **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *words, life=""):
        """The exit status (-9 if killed after its life), the seconds it took, and what it said."""
        log = self.folder / "said.txt"
        self.process.stdin.write("\t".join(map(str, (life, log, *words))) + "\n")
        self.process.stdin.flush()
        status, seconds = self.process.stdout.readline().split()
        return int(status), float(seconds), log.read_text()

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
