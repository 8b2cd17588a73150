"""A student ends in a step or two where its teacher ends in many."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from builders.runs import assert_equal
from builders.training import make_examples, make_model, vj2_ddim, write_data

from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import silent
from vj2_ddim_plugin.ddim import add_noise, clip_to, ddim_sample
from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.gestures import diffused_bounds
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ConditionSpec
from vj2_ddim_training import distillation
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.config import DistillConfig, RankerConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.distillation import distill, learn, lessons_of
from vj2_ddim_training.ranker.network import (
    RankedSampler,
    RankerNetwork,
    TrainedRanker,
    load_ranker,
    model_fingerprint,
    save_ranker,
)

TINY = DistillConfig(
    num_problems=8, num_noises=3, teacher_steps=3, middle_share=0.34, num_epochs=3, batch_size=4
)
MEAN, STD = 0.3, 0.2


class Closed:
    """A teacher that knows its data: independent entries, of one Gaussian or evenly of two."""

    def __init__(self, model, ways=(MEAN,)):
        self.action_spec, self.condition = model.action_spec, ConditionSpec()
        self.schedule, self.ways = NoiseSchedule(), np.array(ways)

    def encode(self, context):
        return None

    def denoise(self, sample, timestep, condition):
        alpha = self.schedule.alpha_cumprod(timestep)
        signal, spread = alpha**0.5, alpha * STD**2 + 1 - alpha
        of_way = sample[..., None] - signal * self.ways  # [n, M, C, ways]
        weight = np.exp(-(of_way**2).sum(axis=(1, 2), keepdims=True) / (2 * spread))
        share = weight / weight.sum(axis=-1, keepdims=True)
        original = (share * (self.ways + signal * STD**2 / spread * of_way)).sum(axis=-1)
        return ((signal * sample - original) / (1 - alpha) ** 0.5).astype(np.float32)

    def flow(self, sample, timestep):
        """Where the exact ODE of one Gaussian ends: it keeps the number of standard deviations."""
        alpha = self.schedule.alpha_cumprod(timestep)
        deviation = (sample - alpha**0.5 * MEAN) / (alpha * STD**2 + 1 - alpha) ** 0.5
        return MEAN + STD * deviation


def student_of(teacher, steps=1):
    config = DistillConfig(
        num_problems=64, num_noises=16, teacher_steps=20, guidance_scale=1.0, batch_size=8,
        num_epochs=10, lr=1e-2, num_inference_steps=steps, ema_decay=0.99,
    )  # fmt: skip
    lessons = lessons_of(teacher, make_examples(64, condition="none"), config)
    model = make_model("none", schedule=NoiseSchedule(num_inference_steps=steps))
    return TorchSampler(learn(model, lessons, config))


def test_a_step_or_two_arrive_where_the_flow_of_a_gaussian_does(monkeypatch):
    monkeypatch.setattr(distillation, "PROBLEMS_AT_ONCE", 2)  # many timesteps in the middle
    teacher = Closed(make_model("none"))
    student = student_of(teacher, steps=2)
    rng = np.random.default_rng(9)
    original, noise = rng.standard_normal((2, 500, *student.action_spec.diffused_shape), np.float32)
    noisy = add_noise(MEAN + STD * original, noise, 400, teacher.schedule)
    for begin, steps, start in ((noise, 1, 999), (0.5 * noise, 2, 999), (noisy, 1, 400)):
        wanted, found = teacher.flow(begin, start), sampled(student, begin, steps, start)
        assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.4 * STD
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.98


def test_of_two_ways_both_are_kept_and_their_average_is_not_taught():
    student = student_of(Closed(make_model("none"), ways=(-0.6, 0.6)))
    noise = np.random.default_rng(9).standard_normal((1000, *student.action_spec.diffused_shape))
    mean = sampled(student, noise.astype(np.float32), 1).mean(axis=(1, 2))
    assert 0.4 < (mean > 0).mean() < 0.6
    assert (np.abs(mean) < 0.3).mean() < 0.1


def sampled(model, noise, steps, start=None, tokens=None):
    denoise = partial(model.denoise, condition=tokens)
    return ddim_sample(denoise, noise, model.schedule, steps, start_timestep=start)


def test_guidance_is_in_what_the_teacher_samples():
    model, examples = make_model("sketch"), make_examples(8)
    lessons = lessons_of(TorchSampler(model), examples, replace(TINY, guidance_scale=1.5))
    rows = np.random.default_rng(TINY.seed).permutation(8)
    context, flat = examples.batch(rows).inputs, lessons.sample[:, :2].reshape(16, -1, 1)
    optimizer = DDIMOptimizer(TorchSampler(model), num_inference_steps=3, guidance_scale=1.5)
    assert lessons.timestep.tolist() == [[999, 999, lessons.timestep[0, 2]]] * 8
    tokens = [np.repeat(each, 2, axis=0) for each in optimizer.model.encode(context)]
    np.testing.assert_array_equal(lessons.condition, tokens[0][::2])
    bounds = (bound.astype(np.float32) for bound in diffused_bounds(model.action_spec))
    conditional, free = (partial(optimizer.model.denoise, condition=each) for each in tokens)
    guided = lambda x, t: free(x, t) + 1.5 * (conditional(x, t) - free(x, t))  # noqa: E731
    expected = ddim_sample(guided, flat, model.schedule, 3, correct=clip_to(tuple(bounds)))
    np.testing.assert_allclose(lessons.result[:, :2].reshape(16, -1, 1), expected, atol=1e-5)


class FirstEntry(TorchSampler):
    """Its ranker prefers what is small in its first entry, whatever the condition."""

    def ranker(self, candidates, condition):
        assert len(candidates) == len(condition)
        return candidates[:, 0, 0]


def test_what_the_ranker_does_not_like_is_taught_as_the_nearest_that_it_likes():
    sampler, examples = FirstEntry(make_model("sketch")), make_examples(8)
    config = replace(TINY, num_noises=7, middle_share=0.15)  # one of them begins in the middle
    all_of_them = lessons_of(sampler, examples, config)
    found = lessons_of(sampler, examples, replace(config, kept_share=0.5))
    np.testing.assert_array_equal(found.sample[:, :6], all_of_them.sample[:, :6])
    for ends, taught in zip(all_of_them.result[:, :6], found.result[:, :6], strict=True):
        kept = sorted(ends, key=lambda end: end[0, 0])[:3]
        nearest = [min(kept, key=lambda other: np.sum((other - end) ** 2)) for end in ends]
        np.testing.assert_array_equal(taught, nearest)


def student(teacher, progress=silent, config=TINY, **settings):
    return distill(teacher, make_examples(8), config, progress, **settings)


def teacher_of(model):
    return Checkpoint(model, model.state_dict(), provenance={"layer_normed": True})


@pytest.mark.parametrize("judged", [False, True])
def test_interrupted_and_resumed_it_is_the_same_and_the_teacher_is_not_asked_twice(
    judged, tmp_path, monkeypatch
):
    teacher, told = teacher_of(make_model("sketch")), {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.9}
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}

    def measure(model):
        seen.append(model)
        return {"success": told[len(seen)]}

    how = {"success": measure} if judged else {}
    seen = []
    expected = student(teacher, **how)

    def stop(phase, done, total, line="", /):
        if (phase, done) == ("train the student", step):
            raise KeyboardInterrupt

    for step in (1, 2, 3, 5):
        seen, file = [], tmp_path / f"{step}.resume"
        with pytest.raises(KeyboardInterrupt):
            student(teacher, stop, resume_file=file, **how)
        with monkeypatch.context() as patched:
            patched.delattr(distillation, "_lessons")
            found = student(teacher, resume_file=file, **how)
        for one, other in ((found, expected),):
            assert_equal(dict(one.model.state_dict()), dict(other.model.state_dict()))
            assert_equal(dict(one.weights), dict(other.weights))
        assert found.metrics == expected.metrics == ({"success": 0.9} if judged else {})
    assert_equal(dict(teacher.model.state_dict()), before)
    with pytest.raises(CheckpointError, match=r"other settings.*'lr'"):
        student(teacher, config=replace(TINY, lr=1.0), resume_file=file)


def test_a_teacher_that_cannot_be_distilled_is_refused():
    with pytest.raises(ConfigError, match=r"predicts epsilon.*v_prediction or sample"):
        student(teacher_of(make_model("none", "minimal")))
    with pytest.raises(ConfigError, match=r"guidance_scale 1.25 needs a conditional teacher"):
        student(teacher_of(make_model("none")))
    with pytest.raises(ConfigError, match=r"kept_share 0.5 needs the teacher's ranker"):
        student(teacher_of(make_model("sketch")), config=replace(TINY, kept_share=0.5))
    model = make_model("sketch")
    parts = model.config, model.action_spec, model.schedule, model.condition.inputs
    with pytest.raises(ConfigError, match="condition_dropout"):
        student(teacher_of(DiffusionModel(*parts, guidance=False)))


def test_the_command_makes_a_student_with_its_ranker(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    model, run, out = make_model("sketch"), tmp_path / "run", tmp_path / "student"
    run.mkdir()
    save_checkpoint(teacher_of(model), run / "best.pt")
    config = RankerConfig(width=16, num_layers=1, nhead=2)
    network = RankerNetwork(config, model.action_spec, model.condition)
    save_ranker(TrainedRanker(network, model_fingerprint(model), "", {}), run / "ranker.pt")
    small = ("--num-problems", 8, "--num-epochs", 2, "--batch-size", 4, "--teacher-steps", 3)
    small += ("--judge", "builders.training:make_judge=0.1,0.9,0.9", "--num-threads", 1)
    small += ("--ranker", run / "ranker.pt", "--kept-share", 0.5)
    command = ("distill", run / "best.pt", data, "--out", out, *small)
    assert vj2_ddim(*command) == 0
    assert "success" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "ranker.pt"]
    assert vj2_ddim(*command) == 1
    assert "--overwrite" in capsys.readouterr().err
    made = load_checkpoint(out / "checkpoint.pt")
    assert made.provenance["made_by"] == "vj2-ddim distill"
    assert made.provenance["layer_normed"] is True
    sampler = RankedSampler(made.model, load_ranker(out / "ranker.pt", made.model).ranker)
    problem = PlanningProblem(make_examples(2).batch(np.arange(2)).inputs)
    plan = partial(DDIMOptimizer, sampler, num_candidates=4, num_ranked=1)
    assert plan().optimize(problem).num_denoiser_evaluations == 2 * 4
    with pytest.raises(ConfigError, match="never was"):
        plan(guidance_scale=1.25)


def test_a_bundle_of_a_student_takes_its_own_number_of_steps(tmp_path):
    config = replace(TINY, guidance_scale=1.0, num_inference_steps=2)
    made = distill(teacher_of(make_model("none")), make_examples(8, "none"), config)
    save_checkpoint(made, tmp_path / "student.pt")
    export_bundle(tmp_path / "student.pt", tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle").schedule.num_inference_steps == 2
    for told, steps in (({}, 2), ({"num_inference_steps": 5}, 5)):
        with DDIMOptimizer.from_bundle(tmp_path / "bundle", provider="cpu", **told) as optimizer:
            result = optimizer.optimize(PlanningProblem({}, batch_size=1, seed=3))
        assert result.num_denoiser_evaluations == steps
        own = DDIMOptimizer(TorchSampler(made.model), **told)
        expected = own.optimize(PlanningProblem({}, batch_size=1, seed=3)).actions
        np.testing.assert_allclose(result.actions, expected, atol=1e-5)
