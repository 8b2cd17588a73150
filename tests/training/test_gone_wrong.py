"""Training that has gone wrong stops, says where, and leaves the last good checkpoint."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.runs import EPOCH, Line, make_loop
from builders.training import make_examples, make_model, make_settings, write_data

from vj2_ddim_plugin.errors import CheckpointError, ConfigError, TrainingError
from vj2_ddim_training.config import EvaluationSettings, RankerConfig, TrainingConfig
from vj2_ddim_training.evaluation import evaluate
from vj2_ddim_training.loop import name_rows
from vj2_ddim_training.ranker.training import JudgedCandidates, RankerTask
from vj2_ddim_training.resumable import run_resumably
from vj2_ddim_training.run import train_run
from vj2_ddim_training.trainer import DenoiserTask
from vj2_ddim_training.validation import tried_out


@pytest.mark.parametrize(
    ("what", "step", "said"),
    [
        ("nan", 4, "the loss is nan in step 5, epoch 2"),
        ("inf", 3, "the loss is inf in step 4, epoch 2"),
        ("-inf", 5, "the loss is -inf in step 6, epoch 2"),
        ("exploded", 4, r"the loss went from .* in step 5, epoch 2"),
        ("gradient", 4, r"norm of the gradient is .* in step 5, epoch 2"),
        ("memory", 4, r"there is not the memory for step 5, epoch 2.*smaller batches"),
        ("weight", 5, r"weight bias is not finite after step 6, epoch 2"),
    ],
)
def test_a_step_gone_wrong_keeps_the_last_epoch(tmp_path, what, step, said):
    file = tmp_path / "state"
    with pytest.raises(TrainingError, match=said) as caught:
        run_resumably(make_loop(Line(what, step)), file, {})
    if what != "weight":
        first = ", ".join(map(str, range(step, step + 8)))
        assert f"whose batch is examples {first} and 4 more" in str(caught.value)
    assert str(caught.value).endswith(f"{file} is that of epoch 1")
    kept = torch.load(file, weights_only=True)["state"]
    assert (kept["step"], kept["epoch"]) == (EPOCH, 1)
    assert all(weight.isfinite().all() for weight in kept["model"].values())
    run_resumably(loop := make_loop(Line()), file, {})
    assert loop.step == 3 * EPOCH


def test_nothing_bad_is_kept_when_stopped(tmp_path):
    loop = make_loop(Line("weight", 1))
    loop.progress = lambda done, total, line: (_ for _ in ()).throw(KeyboardInterrupt)
    loop.task.at = 0
    with pytest.raises(TrainingError, match="not finite after step 1"):
        run_resumably(loop, tmp_path / "state", {})
    assert not (tmp_path / "state").exists()


def test_a_loss_may_be_negative_and_may_fall_and_rise_within_reason():
    loop = make_loop(Line())
    loop.losses = [-3.0]
    for fine in (-5.0, 9e3, 0.0):
        loop._require_sound(fine, 1.0, 0)
    with pytest.raises(TrainingError, match="went from -3"):
        loop._require_sound(3.1e4, 1.0, 0)


@pytest.mark.parametrize("lr", [100.0, 1e6])
def test_a_learning_rate_too_high_leaves_the_run_before_as_it_was(tmp_path, lr):
    write_data(tmp_path / "data")
    train_run(settings := make_settings(tmp_path, num_epochs=1))
    before = {path: path.read_bytes() for path in settings.save_dir.rglob("*.*")}
    wrong = replace(settings.training, lr=lr, num_epochs=20)
    with pytest.raises(TrainingError, match=r"diverged.*(whose batch is|none of it was kept)"):
        train_run(replace(settings, training=wrong, overwrite=True))
    assert {path: path.read_bytes() for path in settings.save_dir.rglob("*.*")} == before


def test_a_model_that_gives_nothing_finite_is_not_measured():
    model = make_model()
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(math.nan)
    with pytest.raises(TrainingError, match=r"output at timestep \d+ is not finite"):
        evaluate(model, make_examples(4), [2], EvaluationSettings(num_generated=2))


def test_tasks_name_their_batches():
    task = DenoiserTask(make_model(), TrainingConfig(batch_size=4), make_examples(12))
    assert sorted(task.rows(0).tolist() + task.rows(1).tolist() + task.rows(2).tolist()) == list(
        range(12)
    )
    assert task.batch_name(1) == name_rows(task.rows(1).tolist())
    arrays = np.zeros((4, 3, 16), np.float32), np.zeros((4, 5, 4, 2), np.float32)
    judged = JudgedCandidates(*arrays, np.random.default_rng(0).random((4, 5)))
    ranker = torch.nn.Linear(1, 1)
    assert RankerTask(ranker, judged, RankerConfig(), None).batch_name(0).startswith("problems ")


@pytest.mark.parametrize("found", [{"success": math.nan}, {}, 0.5, {"success": None}])
def test_a_judge_must_say_success(found):
    with pytest.raises(ConfigError, match="judge must return a mapping with 'success'"):
        tried_out(lambda model: found, None)


LARGE = {"epoch_share": math.inf, "ema_decay": math.nan, "clip_norm": 1e31, "seed": 2**64}
LARGE |= {
    "lr": 1e30,
    "weight_decay": 1e30,
    "auxiliary_weight": 1e30,
    "num_epochs": 10**30,
    "batch_size": 10**10,
    "num_threads": 10**6,
}


@pytest.mark.parametrize("name", LARGE)
def test_numbers_that_no_training_can_have(name):
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        TrainingConfig(**{name: LARGE[name]})


def test_a_broken_state_is_named_in_one_line(tmp_path):
    for content in (b"", b"half", b"\x80\x04cos\nsystem\n(S'x'\ntR."):
        (tmp_path / "state").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"state: cannot be taken up.*Delete it") as found:
            run_resumably(make_loop(Line()), tmp_path / "state", {})
        assert len(str(found.value)) < 300
