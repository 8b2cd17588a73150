"""Runs of training that must be the same, and one that goes wrong."""

import json
import math

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
