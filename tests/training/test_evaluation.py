"""The protocols, on models that are known exactly and on random ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.training import make_examples, make_model

from vj2_ddim_plugin.ddim import add_noise
from vj2_ddim_plugin.errors import ScheduleError, VJ2DDIMError
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training import evaluation
from vj2_ddim_training.config import EvaluationSettings
from vj2_ddim_training.evaluation import evaluate, recreate_from


def measure(model, held_out, steps, training=None, **settings):
    return evaluate(model, held_out, steps, EvaluationSettings(**settings), training=training)


PROTOCOLS = ["conditional", "denoise@0.25", "denoise@0.5", "denoise@0.75"]
PROTOCOLS += ["inversion", "inversion-euler", "generate"]


class Oracle(torch.nn.Module):
    """Knows the answer: its condition tokens *are* x_0. Predicts it in the schedule's type."""

    def __init__(self, template, std=0.0):
        super().__init__()
        self.action_spec, self.schedule = template.action_spec, template.schedule
        self.condition, self.condition_encoder = template.condition, torch.nn.Identity()
        self.std = std
        rows, channels = self.action_spec.diffused_shape
        self.null_condition = torch.nn.Parameter(torch.zeros(1, rows, channels))
        self.asked = []

    def encode(self, inputs):
        return inputs["answer"]

    def forward(self, sample, timesteps, condition):
        self.asked.append(int(timesteps[0]))
        alpha = self.schedule.alpha_cumprod(int(timesteps[0]))
        gain = alpha**0.5 * self.std**2 / (alpha * self.std**2 + 1 - alpha)
        x0 = condition + gain * (sample - alpha**0.5 * condition)
        epsilon = (sample - alpha**0.5 * x0) / (1 - alpha) ** 0.5
        return alpha**0.5 * epsilon - (1 - alpha) ** 0.5 * x0


class Answers:
    """Examples whose condition is x_0 itself."""

    def __init__(self, examples):
        self.examples, self.action_spec = examples, examples.action_spec

    def __len__(self):
        return len(self.examples)

    def batch(self, indices):
        batch = self.examples.batch(indices)
        return batch._replace(inputs={"answer": batch.original})


def test_structure_and_json():
    results = measure(make_model("sketch"), make_examples(6), [1, 4], num_generated=5)
    assert list(results) == PROTOCOLS
    for by_steps in results.values():
        assert list(by_steps) == ["1", "4"]
        for measures in by_steps.values():
            assert all(type(value) is float for value in measures.values())
    assert json.loads(json.dumps(results)).keys() == results.keys()


def test_unconditional_model_has_no_conditional_protocol():
    examples = make_examples(6, "none", "raw")
    model = make_model("none", "minimal")
    found = measure(model, examples, [2], num_generated=5)
    assert list(found) == PROTOCOLS[1:]


def test_a_perfect_model_recreates_perfectly():
    oracle = Oracle(make_model("sketch"))
    answers = Answers(make_examples(8))
    found = measure(oracle, answers, [1, 10], num_generated=4)
    for protocol in PROTOCOLS[:4]:
        for steps in ("1", "10"):
            measures = found[protocol][steps]
            assert measures["mse"] < 1e-8
            assert measures["mean_snr_db"] > 60
            assert measures["mean_snr_db_before_projection"] > 60
            for name in ("press_accuracy", "temporal_iou", "spatial_accuracy"):
                assert measures[name] == 1.0
            assert measures["validity_before_projection"] == 1.0


def test_inversion_of_a_collapsed_model_is_degenerate():
    """It makes one gesture whatever the noise: x_T is not Gaussian, and does not lead back."""
    found = measure(Oracle(make_model("sketch")), Answers(make_examples(8)), [10])
    for name in ("inversion", "inversion-euler"):
        assert found[name]["10"]["degenerate"] == 1.0


def test_inversion_of_an_exact_model_of_gaussian_data_is_not_degenerate():
    oracle, std = Oracle(make_model("sketch"), std=0.5), 0.5
    examples = make_examples(8, "none")
    shape = (1500, *examples.action_spec.diffused_shape)
    gaussian = std * np.random.default_rng(0).standard_normal(shape, np.float32)
    examples._original, examples.actions = gaussian, np.repeat(examples.actions[:1], 1500, axis=0)
    measures = evaluation._inversion(oracle, Answers(examples).batch(np.arange(1500)), 50)
    assert measures["inversion"]["degenerate"] == 0.0
    assert 0.9 < measures["inversion"]["lowest_std"] <= measures["inversion"]["highest_std"] < 1.1
    assert measures["inversion"]["worst_abs_mean"] < 0.1


def test_inversion_hides_the_condition():
    """Given a condition that tells everything, x_T would carry nothing."""
    oracle = Oracle(make_model("sketch"), std=0.5)
    seen = []
    forward = oracle.forward
    oracle.forward = lambda *inputs: (seen.append(inputs[2]), forward(*inputs))[1]
    evaluation._inversion(oracle, Answers(make_examples(3)).batch(np.arange(3)), 2)
    assert seen
    assert all((tokens == 0).all() for tokens in seen)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_denoise_starts_at_its_share_of_the_schedule_with_that_much_noise(share):
    oracle = Oracle(make_model("sketch"))
    samples = []
    forward = oracle.forward
    oracle.forward = lambda *inputs: (samples.append(inputs[0].numpy()), forward(*inputs))[1]
    batch = Answers(make_examples(5)).batch(np.arange(5))
    recreate_from(oracle, batch, share, 4, seed=3)
    start = int(1000 * share)
    assert oracle.asked[0] == start
    assert len(oracle.asked) == 4
    assert oracle.asked == sorted(oracle.asked, reverse=True)
    noise = np.random.default_rng(3).standard_normal(batch.original.shape, np.float32)
    expected = add_noise(batch.original, noise, start, oracle.schedule)
    np.testing.assert_allclose(samples[0], expected, rtol=1e-6)


def test_denoise_caps_its_steps_at_the_timesteps_there_are():
    schedule = NoiseSchedule("cosine", "v_prediction", num_train_timesteps=20)
    model = make_model("sketch", schedule=schedule)
    found = measure(model, make_examples(4), [20], num_generated=3)
    assert "20" in found["denoise@0.25"]


def test_more_steps_than_timesteps_is_an_error():
    with pytest.raises(ScheduleError, match="num_inference_steps"):
        measure(make_model(), make_examples(4), [1001], num_generated=3)


def test_zero_terminal_snr_has_no_inversion():
    model = make_model(schedule=NoiseSchedule("zero_terminal_snr", "v_prediction"))
    found = measure(model, make_examples(4), [3], num_generated=3)
    assert [name for name in found if name.startswith("inversion")] == []
    assert {"conditional", "denoise@0.5", "generate"} < set(found)


def test_num_sequences_are_spread_and_num_generated_counts():
    examples = make_examples(9)
    asked, batch = [], examples.batch
    examples.batch = lambda rows: (asked.append(rows.tolist()), batch(rows))[1]
    for num in (4, 100, 0):
        measure(make_model(), examples, [1], num_sequences=num, num_generated=2)
    assert asked == [[0, 2, 4, 6], list(range(9)), list(range(9))]


def test_a_model_that_was_never_without_a_condition_generates_with_one():
    """What its null condition gives means nothing."""
    model, blind = make_model("sketch"), make_model("sketch")
    blind.condition = replace(blind.condition, guidance=False)
    for weight in (model.null_condition, blind.null_condition):
        weight.data.fill_(np.nan)
    with pytest.raises(VJ2DDIMError):
        measure(model, make_examples(4), [1], num_generated=7)
    found = measure(blind, make_examples(4), [1], num_generated=7)
    assert {"conditional", "generate"} < set(found)
    assert not {"inversion", "inversion-euler"} & set(found)
    assert np.isfinite(found["generate"]["1"]["variance_ratio_x"])


def test_same_seed_same_measures_other_seed_others():
    model, examples = make_model(), make_examples(6)

    one, again, other = (
        measure(model, examples, [3], num_generated=20, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one["conditional"] != other["conditional"]
    assert one["generate"] != other["generate"]


@pytest.mark.parametrize("clip", [True, False])
def test_clipping_is_on_or_off_for_all_but_inversion(clip, monkeypatch):
    clipped = []
    sample = evaluation.ddim_sample

    def record(*arguments, **settings):
        clipped.append(settings.get("correct") is not None)
        return sample(*arguments, **settings)

    monkeypatch.setattr(evaluation, "ddim_sample", record)
    measure(make_model(), make_examples(4), [3], num_generated=3, clip=clip)
    names = ["conditional", *["denoise"] * 3, *["inversion"] * 2, "generate"]
    assert clipped == [clip and name != "inversion" for name in names]


def test_memorisation_is_measured_against_the_training_set():
    model, examples = make_model(), make_examples(10)
    far, near = make_examples(200, seed=7).actions, examples.actions

    def ratio(training):
        found = measure(model, examples, [3], training, num_generated=30)
        return found["generate"]["3"]["memorisation_ratio"]

    assert ratio(near) > 100 * ratio(far)  # the held-out set itself has distance 0 to itself


def test_a_model_is_left_as_it_was():
    model = make_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    measure(model, make_examples(3), [2], num_generated=3)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
