"""The training loop: what it learns, what it averages, how its learning rate moves."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.training import make_examples, make_model, make_settings, write_data

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.diffusion_model import PLAIN, diffusion_loss, draw
from vj2_ddim_training.run import train_run
from vj2_ddim_training.run_folder import RunFolder
from vj2_ddim_training.trainer import Trainer


class NoValidation:
    """Measures nothing, keeps what it was told."""

    held_out, judge = make_examples(2), None

    def __init__(self):
        self.tracker, self.lines, self.asked = self, [], []

    def measure(self, model, epoch, step, last):
        self.asked.append((epoch, step, last))
        return {}

    def log(self, epoch, step, numbers):
        self.lines.append({"epoch": epoch, "step": step, **numbers})

    def log_step(self, step, numbers):
        """Each hundredth step's numbers are another test's."""

    def forget_after(self, epoch, step):
        self.lines = [line for line in self.lines if line["epoch"] <= epoch]


def make_trainer(folder, model=None, examples=None, **config):
    settings = {"num_epochs": 2, "batch_size": 4, "device": "cpu", "num_validation": 2, **config}
    model, examples = model or make_model(), examples or make_examples(12)
    return Trainer(model, TrainingConfig(**settings), examples, NoValidation(), RunFolder(folder))


def weights_of(module):
    return {name: weight.clone() for name, weight in module.state_dict().items()}


def test_training_lowers_the_loss_far_below_the_start(tmp_path):
    examples = make_examples(64)
    model = make_model("sketch", d_model=32)
    trainer = make_trainer(tmp_path, model, examples, num_epochs=50, batch_size=32, lr=2e-2)

    def loss(model):
        batch = examples.batch(np.arange(64))
        inputs = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
        generator = torch.Generator().manual_seed(0)
        original = torch.from_numpy(batch.original)
        config = replace(PLAIN, noises_per_example=8)
        return float(diffusion_loss(model.eval(), original, inputs, generator, config).detach())

    start = loss(trainer.model)
    trained = trainer.run().model
    assert loss(trained) < 0.5 * start


def test_average_by_hand(tmp_path):
    trainer = make_trainer(tmp_path, num_epochs=4, ema_decay=0.5, lr=0.05)
    seen = []
    trainer.loop.progress = lambda done, total, line: seen.append(weights_of(trainer.model))
    trainer.run()
    average = {name: weight.double() for name, weight in seen[0].items()}
    for count, current in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        for name, weight in current.items():
            average[name] = decay * average[name] + (1 - decay) * weight.double()
    assert len(seen) == 12
    found = trainer.checkpoint().model.state_dict()
    for name, weight in average.items():
        torch.testing.assert_close(found[name].double(), weight, atol=1e-6, rtol=1e-5)
    assert any(not torch.allclose(found[name], seen[-1][name]) for name in found)


def test_learning_rate_warms_up_and_falls_as_a_cosine_by_hand(tmp_path):
    trainer = make_trainer(tmp_path, num_epochs=4, warmup_share=0.25, lr=0.1)
    used = [trainer.loop.optimizer.param_groups[0]["lr"]]  # of the step to come
    groups = trainer.loop.optimizer.param_groups
    trainer.loop.progress = lambda done, total, line: used.append(groups[0]["lr"])
    trainer.run()
    expected = [0.1 / 3, 0.2 / 3, 0.1]
    expected += [0.05 * (1 + math.cos(math.pi * i / 9)) for i in range(10)]
    np.testing.assert_allclose(used, expected, atol=1e-9)
    assert used[-1] == pytest.approx(0.0, abs=1e-12)


def test_every_example_is_seen_once_an_epoch_in_a_new_order(tmp_path):
    examples = make_examples(10)
    asked = []
    batch = examples.batch
    examples.batch = lambda indices: (asked.append(list(indices)), batch(indices))[1]
    make_trainer(tmp_path, examples=examples).run()
    assert [len(indices) for indices in asked] == [4, 4, 2, 4, 4, 2]  # the last one is not dropped
    first, second = [i for part in asked[:3] for i in part], [i for part in asked[3:] for i in part]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_an_epoch_may_be_a_share_of_the_data_drawn_anew(tmp_path):
    trainer = make_trainer(tmp_path, examples=make_examples(12), num_epochs=2, epoch_share=0.5)
    seen = []
    batch = trainer.train_set.batch
    trainer.train_set.batch = lambda indices: seen.append(indices) or batch(indices)
    trainer.run()
    first, second = np.concatenate(seen[:2]), np.concatenate(seen[2:])
    assert len(set(first.tolist())) == len(set(second.tolist())) == 6
    assert set(first.tolist()) != set(second.tolist())


def test_success_chooses_the_best_checkpoint_and_resuming_remembers_it(tmp_path):
    """The loss is not asked: of 0.2, 0.7, 0.1, 0.3 the second epoch is kept, and after a resume."""
    trainer = make_trainer(tmp_path, num_epochs=4)
    told = iter([0.2, 0.7, 0.1, 0.3])
    trainer.validation.measure = lambda *asked: {"success": next(told)}
    trainer.run()
    best = load_checkpoint(trainer.folder.best)
    assert (best.metrics["success"], best.training["epoch"]) == (0.7, 1)
    assert load_checkpoint(trainer.folder.checkpoint).metrics["success"] == 0.3
    again = make_trainer(tmp_path, num_epochs=4)
    again.resume()
    assert again.best == 0.7


def test_gradients_are_clipped(tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, model, clip_norm=1e-3)
    norms = []

    def record(optimizer, arguments, settings):
        gradients = [weight.grad.flatten() for weight in model.parameters()]
        norms.append(float(torch.cat(gradients).norm()))

    trainer.loop.optimizer.register_step_pre_hook(record)
    trainer.run()
    assert len(norms) == 6
    assert max(norms) <= 1e-3 * (1 + 1e-4)


def test_noise_and_dropout_are_not_drawn_from_one_stream(tmp_path, monkeypatch):
    """Equally seeded, dropout masks would follow the noise they are meant to be independent of."""
    noise, dropout = [], []

    def record_draw(schedule, shape, generator, *rest):
        noise.append(generator.initial_seed())
        return draw(schedule, shape, generator, *rest)

    def record_loss(*arguments):
        dropout.append(torch.initial_seed())
        return diffusion_loss(*arguments)

    monkeypatch.setattr("vj2_ddim_training.reading.draw", record_draw)
    monkeypatch.setattr("vj2_ddim_training.diffusion_model.diffusion_loss", record_loss)
    make_trainer(tmp_path).run()
    assert len(noise) == len(dropout) == len(set(noise) | set(dropout)) / 2 == 6


def test_same_seed_same_run_other_seed_other_run(tmp_path):
    write_data(tmp_path / "data")

    def run(name, seed):
        train_run(make_settings(tmp_path, save_dir=tmp_path / name, seed=seed))
        weights = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["ema_weights"]
        return weights, (tmp_path / name / "metrics.jsonl").read_text()

    torch.manual_seed(1)
    one, one_metrics = run("a", 3)
    torch.manual_seed(2)  # whatever state the process is in
    again, again_metrics = run("b", 3)
    other, other_metrics = run("c", 4)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert one_metrics == again_metrics
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert one_metrics != other_metrics


def test_evaluates_every_so_many_epochs_and_at_the_end(tmp_path):
    trainer = make_trainer(tmp_path, num_epochs=5, evaluate_every=2)
    trainer.run()
    assert trainer.validation.asked == [(2, 6, False), (4, 12, False), (5, 15, True)]
    assert [line["epoch"] for line in trainer.validation.lines] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(line["loss"]) for line in trainer.validation.lines)


def test_losses_logged_are_the_epochs_mean(tmp_path):
    trainer = make_trainer(tmp_path)
    told = []
    trainer.loop.progress = lambda done, total, line: told.append((done, total, line))
    trainer.run()
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in told} == {6}
    losses = [float(line.removeprefix("loss ").split(",")[0]) for _, _, line in told]
    found = [line["loss"] for line in trainer.validation.lines]
    np.testing.assert_allclose(found, [np.mean(losses[:3]), np.mean(losses[3:])], atol=1e-4)


AT_LEAST_ONE = ("num_epochs", "batch_size", "evaluate_every", "picture_every", "num_threads")
AT_LEAST_ONE += ("num_validation", "noises_per_example")
BAD_NUMBERS = {"clip_norm": 0.0, "ema_decay": 1.5, "condition_dropout": -0.1, "warmup_share": 2.0}
BAD_NUMBERS |= {"lr": -1.0, "weight_decay": -0.1, "seed": -1}


def test_settings_out_of_range_are_refused_by_name():
    bad = [*BAD_NUMBERS.items(), ("lr", float("nan")), *((name, 0) for name in AT_LEAST_ONE)]
    for name, value in bad:
        with pytest.raises(ConfigError, match=name):
            TrainingConfig(**{name: value})


def test_a_device_that_is_not_there_is_an_error_and_costs_no_earlier_run(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    write_data(tmp_path / "data")
    train_run(make_settings(tmp_path))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(ConfigError, match="device 'cuda' was asked for"):
        train_run(make_settings(tmp_path, device="cuda", overwrite=True))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])


def test_the_cosine_by_epoch_is_torch_s(tmp_path):
    how = {"lr": 1e-3, "num_epochs": 5, "lr_schedule": "cosine_by_epoch"}
    trainer = make_trainer(tmp_path, **how)
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=5)
    for epoch in range(5):
        assert trainer.loop.learning_rate.get_last_lr() == pytest.approx(theirs.get_last_lr())
        trainer.loop.run(3 * epoch + 2)  # of three steps
        assert trainer.loop.learning_rate.get_last_lr() == pytest.approx(theirs.get_last_lr())
        trainer.loop.run(3 * epoch + 3)
        adam.step()
        theirs.step()
    with pytest.raises(ConfigError, match="num_cycles must be 1 with lr_schedule='cosine_by"):
        TrainingConfig(num_cycles=2, **how)


def test_dropout_is_that_of_minimal_s_layers(tmp_path):
    write_data(tmp_path / "data")
    runs = [
        train_run(make_settings(tmp_path, "minimal", num_epochs=1, overwrite=True, dropout=share))
        for share in (0.1, 0.0)
    ]
    assert not torch.equal(*(run.weights["denoiser.layer_norm.weight"] for run in runs))
    denoiser = runs[0].model.denoiser
    denoiser.set_dropout(0.25)
    shares = {
        each.p if isinstance(each, torch.nn.Dropout) else each.dropout
        for each in denoiser.modules()
        if isinstance(each, torch.nn.Dropout | torch.nn.MultiheadAttention)
    }
    assert shares == {0.25}
