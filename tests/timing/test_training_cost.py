"""The original's algorithm written plainly, against ours; and the commands that compare."""

import json

import numpy as np
import pytest
import torch
from builders.race import benchmark
from builders.training import make_gestures, make_spec, write_data

from vj2_ddim_benchmark import recreation, training_cost
from vj2_ddim_benchmark.original import Draw, OriginalTraining, OriginalTransformer
from vj2_ddim_benchmark.training_cost import AS_PUBLISHED, PLAIN, Contender, denoiser_loop
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE
from vj2_ddim_training.config import ORIGINAL_TRAINING, ModelConfig, TrainingConfig
from vj2_ddim_training.examples import GestureExamples

SIZE = ModelConfig("minimal", 16, 2, 2, 1, 32)
EPOCHS, BATCH, NUM = 3, 4, 12


@pytest.fixture
def both():
    """Ours and the original's, of the same weights, on the same gestures."""
    spec = make_spec("raw", normalized=False)
    examples = GestureExamples(make_gestures(NUM), spec, "none", "")
    how = {"num_epochs": EPOCHS, "batch_size": BATCH, "lr": 1e-3, **ORIGINAL_TRAINING}
    loop = denoiser_loop(SIZE, ORIGINAL_SCHEDULE, TrainingConfig(**how), examples)
    network = OriginalTransformer(*spec.diffused_shape, 16, 2, 2, 32)
    network.load_state_dict(loop.task.model.denoiser.state_dict())
    actions = torch.from_numpy(examples.actions)
    return loop, OriginalTraining(network, actions, 1e-3, EPOCHS, BATCH)


def draw_of(task, step):
    """What a step of ours draws, in its order; the dropout's numbers are left to come."""
    noise, dropout = np.random.SeedSequence((0, step)).generate_state(2)
    torch.manual_seed(int(dropout))
    generator = torch.Generator().manual_seed(int(noise))
    original = torch.from_numpy(task.examples.batch(task.rows(step)).original).float()
    timesteps = torch.randint(1000, (len(original),), generator=generator)
    return Draw(original, timesteps, torch.randn(original.shape, generator=generator))


def test_equal_weights_and_draws_give_the_original_s_run(both):
    """Through three epochs, so that the learning rate's course is the same as well."""
    loop, plain = both
    for epoch in range(EPOCHS):
        steps = range(epoch * 3, epoch * 3 + 3)
        losses = [plain.step(draw_of(loop.task, step)) for step in steps]
        plain.end_epoch(losses)
        loop.run(3 * (epoch + 1))
        assert loop.epoch_losses[-1] == pytest.approx(np.mean(losses), rel=1e-4)
        assert loop.learning_rate.get_last_lr() == pytest.approx(
            plain.learning_rate.get_last_lr(), abs=1e-12
        )
    for name, weight in plain.model.state_dict().items():
        for ours in (loop.task.model, loop.model):  # no average is kept
            torch.testing.assert_close(  # Adam's first steps are as long for the least gradient
                ours.denoiser.state_dict()[name], weight, rtol=1e-3, atol=5e-4
            )


def test_an_epoch_of_the_original_is_one_pass(both):
    _, plain = both
    seen = []
    plain.step = lambda draw: plain.optimizer.step() or seen.extend(draw.original) or 0.5
    plain.epoch()
    assert plain.epoch_losses == [0.5]
    assert sorted(map(float, map(torch.sum, seen))) == sorted(map(float, plain.actions.sum((1, 2))))


def test_cost_until_as_good_by_hand():
    of = Contender("x", lambda: 0.0, lambda: None)
    of.wall_s, of.processor_s = [1.0, 2.0, 4.0], [0.5, 0.5, 0.5]
    of.quality = [{"mse": 3.0}, {"mse": 1.0}, {"mse": 2.0}]
    assert of.cost_of(1.5) == {"epochs": 2, "wall_s": 3.0, "processor_s": 1.0}
    assert of.cost_of(0.5) is None


def test_the_command_times_all_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training_cost, "PUBLISHED", SIZE)
    ours = {name: (SIZE if of[0].architecture == "minimal" else
                   ModelConfig(d_model=16, num_layers=1, nhead=2, patch_size=10, condition="none"),
                   of[1]) for name, of in training_cost.OURS.items()}  # fmt: skip
    monkeypatch.setattr(training_cost, "OURS", ours)
    path = tmp_path / "cost.json"
    few = ["--num-made", 24, "--num-validation", 4, "--num-sequences", 8, "--num-epochs", 2]
    assert benchmark("training", *few, "--target-epochs", 1, "--json", path) == 0
    found = json.loads(path.read_text())
    assert list(found["contenders"]) == [PLAIN, *ours]
    for of in found["contenders"].values():
        assert len(of["losses"]) == len(of["wall_s"]) == len(of["quality"]) == 2
    original = found["contenders"][PLAIN]
    assert original["times_faster"] == pytest.approx(
        sum(original["processor_s"]) / original["to_equal_quality"]["processor_s"]
    )
    assert found["to_targets"]["wall_s"] > 0
    assert isinstance(found["to_targets"]["reached"], bool)
    printed = capsys.readouterr().out
    assert "times faster" in printed
    assert AS_PUBLISHED in printed


def test_recreations_are_told_by_protocol_and_measured(tmp_path, capsys, monkeypatch):
    tiny = ModelConfig(d_model=16, num_layers=1, nhead=2, patch_size=10, condition="none")
    ours = {"minimal, tuned": (SIZE, {}), "dit": (tiny, {})}
    monkeypatch.setattr(recreation, "OURS", ours)
    train, held_out = (
        write_data(tmp_path / name, 8, 250, seed) for name, seed in (("t", 0), ("v", 1))
    )
    path = tmp_path / "r.json"
    few = ["--num-epochs", 1, "--vae-epochs", 40, "--sketch-epochs", 1]
    told = ["--data-dir", train, "--val-data-dir", held_out]
    assert benchmark("recreation", *told, *few, "--json", path) == 0
    found = json.loads(path.read_text())["measures"]
    by = ["VAE", "minimal, tuned", "dit"]
    denoised = {f"denoise@{share} {name}" for share in (0.25, 0.5) for name in by}
    told = {"conditional VAE", "conditional dit"}
    assert set(found) == {"any noise", "any random gesture"} | denoised | told
    assert all(of["mse"]["std"] > 0 for of in found.values())
    assert "±" in capsys.readouterr().out


def test_a_vae_learns_what_it_is_told():
    actions = make_gestures(64)
    sketch = recreation.sketch_of(actions, make_spec("raw"))
    vae = recreation.train_vae(actions, sketch, 400, 0)
    told = recreation._decoded(vae, torch.zeros(64, 60), torch.from_numpy(sketch), actions.shape)
    assert np.mean((told - actions) ** 2) < 0.5 * actions.var()


def test_one_folder_alone_is_refused(tmp_path, capsys):
    assert benchmark("training", "--data-dir", tmp_path) == 1
    assert "--data-dir and --val-data-dir go together" in capsys.readouterr().err
