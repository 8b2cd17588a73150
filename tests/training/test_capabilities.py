"""What a model was not trained for is refused, from the checkpoint to the plan."""

import json

import pytest
from builders.training import make_model, vj2_ddim

from vj2_ddim_plugin import DDIMOptimizer
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError, ScheduleError, VJ2DDIMError
from vj2_ddim_plugin.spec import ConditionSpec
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.diffusion_model import TorchSampler


def saved(folder, condition="sketch", **training):
    model = make_model(condition)
    config = TrainingConfig(**training).to_dict()
    checkpoint = Checkpoint(model, model.state_dict(), {"config": config} if training else {})
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


@pytest.fixture(scope="module")
def unguided(tmp_path_factory):
    """A checkpoint of training without dropout of the condition, and its bundle."""
    folder = tmp_path_factory.mktemp("unguided")
    checkpoint = saved(folder, condition_dropout=0.0)
    assert vj2_ddim("export", checkpoint, "--out", folder / "bundle") == 0
    return checkpoint, folder / "bundle"


def test_guidance_is_refused_where_it_was_not_trained(unguided):
    checkpoint, bundle = unguided
    assert read_bundle(bundle).condition.guidance is False
    assert json.loads((bundle / "bundle.json").read_text())["condition"]["guidance"] is False
    for make in (
        lambda **told: DDIMOptimizer.from_bundle(bundle, **told),
        lambda **told: DDIMOptimizer(TorchSampler(load_checkpoint(checkpoint).model), **told),
    ):
        for scale in (3.0, 0.0, 1.0001):
            with pytest.raises(ConfigError, match=r"guidance_scale .* condition_dropout of 0.2"):
                make(guidance_scale=scale)
        make(guidance_scale=1.0).close()


def test_the_command_line_refuses_it_too(unguided, capsys):
    assert vj2_ddim("plan", unguided[1], "--guidance-scale", 3) == 1
    assert "trained without its condition" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("training", [{"condition_dropout": 0.2}, {}])
def test_guidance_is_there_where_it_was_trained_or_nobody_says_otherwise(tmp_path, training):
    model = load_checkpoint(saved(tmp_path, **training)).model
    assert model.condition.guidance
    assert "guidance" not in model.condition.to_dict()  # older plugins read it
    DDIMOptimizer(TorchSampler(model), guidance_scale=3.0)


@pytest.mark.parametrize("guidance", [True, False])
def test_what_is_stored_is_what_is_read(guidance):
    spec = ConditionSpec("sketch", {"sketch": (6,)}, 6, 16, guidance)
    assert ConditionSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("found", ["yes", 1, None, [True]])
def test_a_manifest_says_yes_or_no(found):
    values = ConditionSpec("sketch", {"sketch": (6,)}, 6, 16).to_dict()
    with pytest.raises(VJ2DDIMError, match="guidance must be true or false"):
        ConditionSpec.from_dict({**values, "guidance": found})


@pytest.mark.parametrize("dropout", [1.0, 1.5, -0.1, float("nan")])
def test_a_condition_that_is_never_seen_is_refused(dropout):
    with pytest.raises(ConfigError, match="condition_dropout must be at least 0 and below 1"):
        TrainingConfig(condition_dropout=dropout)


@pytest.mark.parametrize(
    ("condition", "told", "message"),
    [
        ("none", {"guidance_scale": 2.0}, "needs a conditional model"),
        ("sketch", {"num_ranked": 2}, "needs a ranker"),
        ("sketch", {"num_inference_steps": 1001}, "1001"),
        ("sketch", {"eta": 1.1}, "eta must be"),
    ],
)
def test_the_others_of_the_kind(condition, told, message):
    with pytest.raises((ConfigError, ScheduleError), match=message):
        DDIMOptimizer(TorchSampler(make_model(condition)), **told)
