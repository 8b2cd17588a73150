"""A ranker learns the order that a cost gives, from its candidates to its file."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from builders.training import distance, make_examples, make_model, make_spec
from scipy.stats import spearmanr

from vj2_ddim_plugin.cli.console import silent
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, CostError
from vj2_ddim_plugin.gestures import decode, encode, is_valid
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.config import RankerConfig
from vj2_ddim_training.ranker.network import (
    RankedSampler,
    RankerNetwork,
    load_ranker,
    model_fingerprint,
    save_ranker,
)
from vj2_ddim_training.ranker.training import (
    JudgedCandidates,
    comparable,
    judge_candidates,
    measure_ranker,
    pairwise_loss,
    train_ranker,
)

TINY = RankerConfig(
    width=16, num_layers=1, nhead=2, num_queries=2, num_problems=8, num_sampled=2, num_perturbed=2,
    num_random=1, num_inference_steps=2, num_epochs=1, batch_size=4, held_out_share=0.25,
)  # fmt: skip
LEARNS = dataclasses.replace(
    TINY, width=32, num_problems=1400, num_sampled=1, num_random=8, num_epochs=14, batch_size=50,
    lr=4e-3, held_out_share=0.1,
)  # fmt: skip
SPEC = make_spec()


def train_tiny(model, cost=distance, config=TINY, progress=silent, **settings):
    return train_ranker(model, make_examples(8), cost, config, progress, **settings)


def assert_same_weights(ranker, weights):
    for name, weight in ranker.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)


@pytest.fixture(scope="module")
def model():
    return make_model("sketch")


@pytest.fixture(scope="module")
def trained(model):
    return train_ranker(model, make_examples(1400), distance, LEARNS)


@pytest.fixture
def quick(model):
    return train_tiny(model)


def test_it_ranks_candidates_of_problems_it_never_saw(model, trained):
    unseen = make_examples(40, seed=9)
    actions = make_examples(20, seed=5).actions
    sampler = RankedSampler(model, trained.ranker)
    context = unseen.batch(np.arange(40)).inputs
    tokens = sampler.encode(context).condition
    cost = distance(context, np.broadcast_to(actions, (40, *actions.shape)))
    diffused = encode(actions, SPEC)
    correlations = [
        spearmanr(sampler.ranker(diffused, np.repeat(tokens[i : i + 1], 20, axis=0)), cost[i])[0]
        for i in range(40)
    ]
    assert np.mean(correlations) > 0.8
    assert trained.metrics["spearman"] > 0.7


def test_alone_it_plans_better_than_chance_by_the_cost_it_learned(model, trained):
    context = make_examples(40, seed=9).batch(np.arange(40)).inputs
    sampler = RankedSampler(model, trained.ranker)

    def mean_cost(**settings):
        optimizer = DDIMOptimizer(sampler, num_inference_steps=3, **settings)
        plan = optimizer.optimize(PlanningProblem(context)).actions
        return distance(context, plan[:, None]).mean()

    assert mean_cost(num_candidates=16, num_ranked=1) < 0.7 * mean_cost(num_candidates=1)


def test_the_same_seed_gives_the_same_ranker_and_leaves_the_model_and_torch_alone(model, quick):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    again = train_tiny(model)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert_same_weights(quick.ranker, again.ranker.state_dict())
    assert_same_weights(model, before)
    other = train_tiny(model, config=dataclasses.replace(TINY, seed=1)).ranker.state_dict()
    assert any((other[name] != weight).any() for name, weight in quick.ranker.state_dict().items())


def interrupt_at(phase, step):
    def progress(told, done, total, line="", /):
        if (told, done) == (phase, step):
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("keep_best", [False, True])
def test_interrupted_and_resumed_it_is_the_same_and_no_cost_is_asked_twice(
    model, keep_best, tmp_path
):
    config, asked = dataclasses.replace(TINY, num_epochs=3), []

    def cost(context, candidates):
        asked.append(len(candidates))
        return distance(context, candidates)

    train = functools.partial(train_tiny, model, cost, config, keep_best=keep_best)
    expected = train()
    for step in (1, 2, 3, 5, 6):
        file = tmp_path / f"{step}.resume"
        with pytest.raises(KeyboardInterrupt):
            train(progress=interrupt_at("train the ranker", step), resume_file=file)
        asked.clear()
        found = train(resume_file=file)
        assert asked == []
        assert found.metrics == expected.metrics
        assert_same_weights(expected.ranker, found.ranker.state_dict())


def test_another_training_is_not_taken_up(model, tmp_path):
    file = tmp_path / "a.resume"
    train_tiny(model, resume_file=file)
    with pytest.raises(CheckpointError, match=r"other settings.*'lr'"):
        train_tiny(model, config=dataclasses.replace(TINY, lr=1.0), resume_file=file)
    file.write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"cannot be taken up.*Delete it"):
        train_tiny(model, resume_file=file)


def test_success_chooses_the_epoch(model):
    config = dataclasses.replace(TINY, num_epochs=3)
    seen = []

    def success(tried, ranker):
        assert tried is model
        seen.append({name: weight.clone() for name, weight in ranker.state_dict().items()})
        return {"success": [0.1, 0.9, 0.5, 0.9][len(seen) - 1]}

    found = train_tiny(model, config=config, keep_best=True, success=success)
    assert found.metrics["success"] == 0.9
    assert_same_weights(found.ranker, seen[1])
    assert_same_weights(train_tiny(model, config=config).ranker, seen[2])  # unchanged by measuring


def test_without_a_measure_the_share_of_cheapest_picked_chooses(model, monkeypatch):
    told = iter([0.2, 0.7, 0.7, 0.1, 0.7])
    training = "vj2_ddim_training.ranker.training"
    monkeypatch.setattr(f"{training}.measure_ranker", lambda *asked: {"best_in_1": next(told)})
    found = train_tiny(model, config=dataclasses.replace(TINY, num_epochs=4), keep_best=True)
    assert found.metrics == {"best_in_1": 0.7}  # of the later of the two
    assert next(told, None) is None
    with pytest.raises(ConfigError, match=r"needs a judge.*held_out_share above 0.0"):
        train_tiny(model, config=dataclasses.replace(TINY, held_out_share=0.0), keep_best=True)


# Candidates.


def test_the_cost_is_asked_of_valid_gestures_and_the_ranker_shown_the_same(model):
    asked = []

    def cost(context, candidates):
        asked.append((context["sketch"], candidates.copy()))
        return distance(context, candidates)

    examples = make_examples(8)
    told = []
    judged = judge_candidates(model, examples, cost, TINY, lambda *line: told.append(line))
    (sketch, actions), = asked  # fmt: skip
    assert actions.shape == (8, 1 + 2 + 2 + 1, 20, 3)
    assert is_valid(actions, SPEC).all()
    np.testing.assert_allclose(decode(judged.diffused, SPEC), actions, atol=1e-6)
    true = distance({"sketch": sketch}, actions)[:, 0]
    np.testing.assert_allclose(true, 0.01, atol=1e-5)  # the first is the example's own action
    others = examples.actions
    same = np.abs(actions[:, -1, None] - others).max(axis=(2, 3)).min(axis=1)
    np.testing.assert_allclose(same, 0.0, atol=1e-6)  # the last is some example's action
    np.testing.assert_array_equal(judged.cost, distance({"sketch": sketch}, actions))
    assert told == [("judge candidates", 8, 8)]


def test_a_cost_of_the_wrong_shape_or_one_that_tells_nothing_is_named(model):
    with pytest.raises(CostError, match=r"cost returned shape \(8,\).*\[B, K\] = \(8, 6\)"):
        train_tiny(model, lambda context, plans: np.zeros(8))
    with pytest.raises(CostError, match="hardly differs"):
        train_tiny(model, lambda context, plans: np.ones(plans.shape[:2]))
    with pytest.raises(CostError, match="finite for no candidate"):
        train_tiny(model, lambda context, plans: np.full(plans.shape[:2], np.nan))


def test_an_unconditional_model_has_no_ranker():
    unconditional = make_model("none")
    with pytest.raises(ConfigError, match="conditional model"):
        train_ranker(unconditional, make_examples(8, condition="none"), distance, TINY)
    with pytest.raises(ConfigError, match="unconditional"):
        RankerNetwork(TINY, SPEC, unconditional.condition)


# The loss.


def test_comparable_costs_by_hand():
    e = np.e
    np.testing.assert_allclose(
        comparable(np.array([[1.0, e], [e**2, e**3]])), [[-1, 1], [-1, 1]], rtol=1e-6
    )
    signed = comparable(np.array([[0.0, 2.0], [5.0, 7.0]]))  # no logarithm of these
    np.testing.assert_allclose(signed, [[-1, 1], [-1, 1]], rtol=1e-6)
    broken = comparable(np.array([[0.0, 2.0, np.inf], [np.nan, 2.0, 0.0]]))
    assert broken[0, 2] == broken[0, 1]
    assert broken[1, 0] == broken[1, 1]


def test_the_pairwise_loss_by_hand():
    cost, predicted = torch.tensor([[0.0, 0.2, 5.0]]), torch.tensor([[1.0, 0.0, 3.0]])
    pairs = [(0.2 / 0.4, -1.0), (1.0, 2.0), (1.0, 3.0)]  # (what is at stake, how right it is)
    expected = sum(weight * np.log1p(np.exp(-margin)) for weight, margin in pairs) / 2.5
    assert float(pairwise_loss(predicted, cost, 0.4)) == pytest.approx(expected, rel=1e-5)
    assert float(pairwise_loss(0 * predicted, cost, 0.4)) == pytest.approx(np.log(2.0), rel=1e-5)
    assert float(pairwise_loss(predicted, 0 * cost, 0.4)) == 0.0
    shifted = pairwise_loss(predicted + 7.0, cost, 0.4)
    torch.testing.assert_close(shifted, pairwise_loss(predicted, cost, 0.4))


def test_measures_of_a_ranker_that_is_right_and_of_one_that_is_wrong(model):
    ranker = RankerNetwork(TINY, SPEC, model.condition).eval()
    diffused = torch.randn(5, 6, *SPEC.diffused_shape)
    condition = torch.randn(5, model.condition.num_tokens, model.condition.width)
    with torch.no_grad():
        predicted = ranker.rank(diffused, condition).numpy()
    right = JudgedCandidates(condition.numpy(), diffused.numpy(), predicted)
    perfect = {"spearman": 1.0, "best_in_1": 1.0, "best_in_2": 1.0, "best_in_4": 1.0}
    assert measure_ranker(ranker, right) == pytest.approx(perfect)
    wrong = measure_ranker(ranker, right._replace(cost=-predicted))
    assert wrong["spearman"] == pytest.approx(-1.0)
    assert wrong["best_in_4"] == 0.0


def test_one_row_at_a_time_is_the_same_as_all_candidates_of_a_problem(model):
    ranker = RankerNetwork(TINY, SPEC, model.condition).eval()
    diffused = torch.randn(3, 4, *SPEC.diffused_shape)
    condition = torch.randn(3, model.condition.num_tokens, model.condition.width)
    with torch.no_grad():
        together = ranker.rank(diffused, condition)
        alone = ranker(diffused.flatten(0, 1), condition.repeat_interleave(4, dim=0))
    torch.testing.assert_close(alone.reshape(3, 4), together)


@pytest.mark.parametrize("representation", ["raw", "held", "path"])
def test_every_representation_can_be_ranked(representation):
    model = make_model("sketch", representation=representation)
    examples = make_examples(8, representation=representation)
    assert np.isfinite(train_ranker(model, examples, distance, TINY).metrics["spearman"])


# The file.


def test_a_ranker_comes_back_from_its_file(model, quick, tmp_path):
    save_ranker(quick, tmp_path / "ranker.pt")
    read = load_ranker(tmp_path / "ranker.pt", model)
    assert (read.metrics, read.provenance) == (quick.metrics, quick.provenance)
    assert read.data_fingerprint == make_examples(8).data_fingerprint
    assert read.ranker.config == TINY
    assert_same_weights(quick.ranker, read.ranker.state_dict())


def test_it_belongs_to_one_model(model, quick, tmp_path):
    save_ranker(quick, tmp_path / "ranker.pt")
    other = make_model("sketch", seed=1)
    assert model_fingerprint(other) != model_fingerprint(model)
    with pytest.raises(CheckpointError, match=r"belongs to the model .* Train the ranker again"):
        load_ranker(tmp_path / "ranker.pt", other)


def test_files_that_are_no_ranker_are_named(model, quick, tmp_path):
    path = tmp_path / "ranker.pt"
    with pytest.raises(CheckpointError, match="no such file"):
        load_ranker(path, model)
    path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        load_ranker(path, model)
    save_ranker(quick, path)
    content = torch.load(path, weights_only=True)
    lacking = {name: value for name, value in content.items() if name != "metrics"}
    wider = {**content, "config": {**content["config"], "width": 32}}
    for wrong, said in (
        ({"format": "something else"}, "is not a ranker"),
        (lacking, r"lacks the fields \['metrics'\]"),
        (wider, "do not fit one another"),
    ):
        torch.save(wrong, path)
        with pytest.raises(CheckpointError, match=said):
            load_ranker(path, model)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0}, {"num_epochs": 0}, {"num_sampled": -1}, {"num_problems": 1}, {"lr": 0.0},
        {"full_difference": 0.0}, {"held_out_share": 1.0}, {"seed": -1},
        {"num_sampled": 0, "num_perturbed": 0, "num_random": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        dataclasses.replace(TINY, **change)
    assert RankerConfig.from_dict(TINY.to_dict()) == TINY
