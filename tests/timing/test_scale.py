"""The comparison at scale: passes of the right kind are timed, and summed up as they should be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.bundles import make_bundle
from builders.race import benchmark

from vj2_ddim_benchmark.settings import PredictorSize, ScaleSettings
from vj2_ddim_benchmark.timing import scale
from vj2_ddim_benchmark.timing.scale import measure_scale, whole_plans
from vj2_ddim_benchmark.timing.scale_predictor import Descent, ScalePredictor, ScaleProblem
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import load_checkpoint

TINY = PredictorSize(depth=2, width=16, num_heads=2, num_frames=3, num_tokens=15)
RESULTS = Path(__file__).parents[2] / "benchmark" / "results"
PARTS = {
    "descent_step": [5.0, 2.0, 3.0],
    "trainable_descent_step": [4.0],
    "ranked_chunk": [2.0],
    "ddim_one": [0.1],
    "ddim_candidates": [0.5],
}


@pytest.fixture
def drawn():
    """Latents and actions that fit the tiny predictor."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, TINY.num_frames, TINY.num_patches, TINY.width, generator=generator)
    return z, torch.rand(1, TINY.num_frames, TINY.action_width, generator=generator)


def predictor(size=TINY):
    torch.manual_seed(0)
    return ScalePredictor(size).eval()


def test_sizes_by_hand():
    """VJ2-GUI's by default. A layer: 4 W^2 of attention, 8 of mixing, 9 W of biases, 4 of norms."""
    size = PredictorSize()
    assert (size.depth, size.width, size.num_heads, size.num_frames) == (24, 1024, 16, 8)
    assert (size.num_patches, size.num_tokens, size.action_width) == (16 * 16, 2056, 250 * 3)
    width, found = 16, sum(weight.numel() for weight in predictor().parameters())
    layers = 2 * (12 * width**2 + 13 * width)
    maps = 2 * (width**2 + width) + 750 * width + width
    assert found == layers + maps + 2 * width + 15 * width


def test_a_frame_sees_itself_and_those_before(drawn):
    (z, actions), model = drawn, predictor()
    before = model(z, actions)
    changed = actions.clone()
    changed[:, 1] += 1.0
    moved = (model(z, changed) - before).abs().amax(dim=(0, 2, 3))
    assert moved[0] == 0.0
    assert (moved[1:] > 1e-4).all()
    later = z.clone()
    later[:, 2, 0] += 1.0
    moved = (model(later, actions) - before).abs().amax(dim=(0, 3))
    assert (moved[:2] == 0.0).all()
    assert (moved[2] > 1e-5).all()  # every patch of the frame


def test_attention_is_that_of_the_formula_and_other_sizes_are_refused(drawn):
    """One layer, in numpy: softmax over allowed tokens alone."""
    size = PredictorSize(depth=1, width=8, num_heads=2, num_frames=2, num_tokens=6)
    block, mask = predictor(size).blocks[0], predictor(size).mask
    hidden = torch.randn(1, 6, 8)
    normed = block.norms[0](hidden)
    query, key, value = block.read(normed)[0].chunk(3, dim=-1)
    seen = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        logits = query[:, part] @ key[:, part].T / 2.0
        logits = logits.masked_fill(~mask, -torch.inf)
        seen.append(logits.softmax(dim=-1) @ value[:, part])
    after = hidden + block.write(torch.cat(seen, dim=-1))
    expected = after + block.mix(block.norms[1](after))
    torch.testing.assert_close(block(hidden, mask), expected, rtol=1e-5, atol=1e-5)
    z, actions = drawn  # of other sizes
    with pytest.raises(ContextError, match="latents"):
        predictor()(z[:, :2], actions[:, :2])
    with pytest.raises(ActionError, match="actions"):
        predictor()(z, actions[..., :-1])


@pytest.mark.parametrize(
    ("settings", "wrong", "message"),
    [
        (TINY, {"num_heads": 3}, "num_heads must divide width; found 3 and 16"),
        (TINY, {"num_tokens": 16}, "num_tokens must be num_frames"),
        (TINY, {"num_tokens": 3}, "num_tokens must be num_frames"),
        (TINY, {"depth": 0}, "depth must be at least 1; found 0"),
        (ScaleSettings(), {"rows_per_chunk": 17}, "must be 1 to num_candidates, 16; found 17"),
    ],
)
def test_settings_that_do_not_fit_one_another_are_refused(settings, wrong, message):
    with pytest.raises(ConfigError, match=message):
        replace(settings, **wrong)


@pytest.fixture
def problem():
    return ScaleProblem(TINY)


def watched(problem):
    """Rows of every forward pass, and whether it was recorded for a backward pass."""
    passes = []
    problem.predictor.register_forward_hook(
        lambda module, given, made: passes.append((len(given[0]), made.requires_grad))
    )
    return passes


def test_an_iteration_is_one_recorded_pass_of_one_plan_and_a_real_step(problem):
    passes, descent = watched(problem), Descent(problem, lr=0.5)
    start = descent.actions.detach().clone()
    wanted = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(problem.cost(wanted).sum(), wanted)
    passes.clear()
    cost = descent.step()
    assert passes == [(1, True)]
    torch.testing.assert_close(descent.actions.detach(), (start - 0.5 * gradient).clamp(0, 1))
    assert gradient.abs().max() > 0
    farther = Descent(problem, lr=1.0)
    costs = [farther.step() for _ in range(20)]
    assert costs[-1] < costs[0]
    np.testing.assert_allclose(cost, problem.rank(start.numpy().reshape(1, 1, 250, 3)), rtol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_weights_get_gradients_only_where_they_are_trainable(problem, frozen):
    reached, weight = [], problem.predictor.blocks[0].read.weight
    weight.requires_grad_(True)
    weight.register_post_accumulate_grad_hook(lambda w: reached.append(w.shape))
    Descent(problem, frozen=frozen).step()
    assert bool(reached) != frozen
    assert weight.grad is None
    assert not any(w.requires_grad for w in problem.predictor.parameters())


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 5])
def test_ranking_is_the_cost_in_chunks_and_leaves_no_graph(rows_per_chunk):
    problem = ScaleProblem(TINY, rows_per_chunk=rows_per_chunk)
    passes = watched(problem)
    candidates = np.random.default_rng(0).random((1, 5, 250, 3), np.float32)
    ranked = problem.rank(candidates)
    assert [rows for rows, _ in passes] == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[rows_per_chunk]
    assert not any(recorded for _, recorded in passes)
    for column in range(5):
        z, blocks = problem.states, torch.zeros(1, 3, 750)
        blocks[0, -1] = torch.from_numpy(candidates[0, column]).flatten()
        alone = (problem.predictor(z, blocks)[0, -1] - problem.goal[0]).abs().mean()
        np.testing.assert_allclose(ranked[0, column], float(alone), rtol=1e-5)


def test_whole_plans_by_hand():
    found = whole_plans(PARTS, ScaleSettings(num_inference_steps=5, rows_per_chunk=4))
    expected = {
        "gradient_descent": 30.0,
        "gradient_descent_trainable": 40.0,
        "ddim_one": 0.1,
        "ddim_ranked": 0.5 + 16 / 4 * 2.0,
        "ddim_ranker_checked": 0.5 + 0.1 + 0.5,
        "ddim_ranker": 0.6,
    }
    assert found["plans"] == pytest.approx(expected)
    assert found["ranking_share"] == 8.0 / 8.5
    assert found["ratios"]["gradient_descent"]["ddim_ranked"] == 30.0 / 8.5
    assert found["ratios"]["gradient_descent_trainable"]["ddim_one"] == 40.0 / 0.1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("scale") / "bundle", action_spec=ActionSpec())


def test_everything_is_timed_as_often_as_asked_and_written(tmp_path, bundle):
    before = torch.get_num_threads()
    path = tmp_path / "scale.json"
    size = ["--depth", 2, "--width", 16, "--heads", 2, "--frames", 3, "--tokens", 15]
    often = ["--turns", 2, "--num-plans", 3, "--num-candidates", 4, "--rows-per-chunk", 2]
    given = ["--bundle", bundle, "--num-inference-steps", 2, "--json", path]
    try:
        assert benchmark("scale", *size, *often, *given) == 0
    finally:
        torch.set_num_threads(before)
    measured = json.loads(path.read_text())
    settings = ScaleSettings(num_candidates=4, num_inference_steps=2, rows_per_chunk=2)
    for clock in ("wall", "processor"):
        timings = measured[clock]["timings"]
        assert {part: len(values) for part, values in timings.items()} == {
            "descent_step": 2, "trainable_descent_step": 2, "ranked_chunk": 2,
            "ddim_one": 6, "ddim_candidates": 6,
        }  # fmt: skip
        assert all(value > 0 for values in timings.values() for value in values)
        again = whole_plans(timings, settings)
        assert again == {name: measured[clock][name] for name in again}
    recorded = json.loads((RESULTS / "scale.json").read_text())
    assert measured.keys() == recorded.keys()
    assert measured["settings"].keys() == recorded["settings"].keys()
    assert measured["settings"]["size"] == vars(TINY)
    assert measured["settings"]["bundle"] == bundle.name
    assert measured["environment"]["torch_threads"] == 1
    assert measured["peak_memory_mb"] > 1
    with pytest.raises(ConfigError, match="action_width must be 750"):
        measure_scale(replace(TINY, action_width=12), ScaleSettings(), bundle)


def test_the_untrained_sampler_takes_latents_of_the_predictors_size(tmp_path, monkeypatch):
    """Up to the export, which is tested where it belongs and takes seconds."""
    exported = []
    monkeypatch.setattr(scale, "export_bundle", lambda *paths: exported.append(paths))
    folder = scale.untrained_bundle(tmp_path, TINY)
    ((checkpoint, out),) = exported
    assert out == folder
    model = load_checkpoint(checkpoint).model
    assert model.condition.inputs == {"state": (4, 16), "goal": (4, 16)}
    assert model.action_spec == ActionSpec()
