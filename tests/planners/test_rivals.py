"""The rivals' mathematics by hand and by torch, and the study that compares them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.amortised import SPEC, make_context, make_model, tap_latents, taps
from builders.race import benchmark
from scipy.stats import trim_mean
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vj2_ddim_benchmark import rivals
from vj2_ddim_benchmark.amortised.base import Chance, Sampling
from vj2_ddim_benchmark.amortised.iterative import NEARLY
from vj2_ddim_benchmark.amortised.mixture import mixture_loss
from vj2_ddim_benchmark.assets import success
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.planners.cross_entropy import Gaussian, GestureCEM
from vj2_ddim_benchmark.planners.prism import FusedGaussian, PrismOptimizer
from vj2_ddim_benchmark.report import seeds
from vj2_ddim_benchmark.world.problems import TrueCost, one_gesture_problems
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.examples import open_examples

CONTEXT = make_context(3)
STATE, GOAL = (torch.from_numpy(CONTEXT[name]) for name in ("state", "goal"))
SHAPE = SPEC.diffused_shape
PLAIN = TrainingConfig(condition_dropout=0.0, auxiliary_weight=0.0)


def of_seed(seed):
    return torch.Generator().manual_seed(seed)


def chance(seed):
    return Chance(of_seed(seed), PLAIN)


class TestMixture:
    def test_its_loss_has_the_gradient_of_torch_s_likelihood(self):
        drawn = torch.randn(4, 5, 3, 2, 2, generator=of_seed(0), dtype=torch.double)
        original = torch.randn(4, 2, 2, generator=of_seed(1), dtype=torch.double)
        ours = [drawn[:, :, 0, 0, 0], drawn[:, :, 1], drawn[:, :, 2]]
        free, mean, log_std = ours = [each.clone().requires_grad_() for each in ours]
        gaussians = Independent(Normal(mean, log_std.exp()), 2)
        likelihood = MixtureSameFamily(Categorical(logits=free), gaussians).log_prob(original)
        grad, of = torch.autograd.grad, (original, free.log_softmax(-1), mean, log_std)
        expected = grad(-likelihood.mean() / 4, ours)
        torch.testing.assert_close(grad(mixture_loss(*of), ours, retain_graph=True), expected)
        weighted, weight = grad(mixture_loss(*of, beta=1.0), ours), log_std.detach().exp() ** 2
        torch.testing.assert_close(weighted[0], expected[0])
        torch.testing.assert_close(weighted[1:], tuple(weight * each for each in expected[1:]))

    def test_draws_have_the_predicted_weights_means_and_stds(self):
        model, num = make_model("mixture"), 20_000
        with torch.no_grad():
            log_weights, mean, log_std = (of.numpy() for of in model.components(STATE, GOAL))
        how, rng = Sampling(greedy=False), np.random.default_rng(0)
        drawn = model.draw(CONTEXT, how, num, rng)
        expected = np.einsum("bj,bjmc->bmc", np.exp(log_weights), mean)
        squares = np.einsum("bj,bjmc->bmc", np.exp(log_weights), mean**2 + np.exp(2 * log_std))
        error = np.sqrt((squares - expected**2) / num)
        assert (np.abs(drawn.mean(axis=1) - expected) < 5 * error).all()
        np.testing.assert_allclose((drawn**2).mean(axis=1), squares, rtol=0.1)
        greedy = model.draw(CONTEXT, Sampling(), 4, np.random.default_rng(0))
        likeliest = mean[np.arange(3), log_weights.argmax(axis=1)]
        np.testing.assert_allclose(greedy[:, 0], likeliest, atol=1e-6)


class TestFlow:
    def test_euler_s_steps_through_a_known_field(self, monkeypatch):
        """x' = a x + t b: x after n steps of 1/n, in numpy."""
        model = make_model("flow")
        monkeypatch.setattr(model, "ask", lambda x, time, condition: -0.7 * x + 2.0 * time)
        how = Sampling(num_steps=5, std_scale=0.5)
        found = model.draw(CONTEXT, how, 2, np.random.default_rng(3))
        x = 0.5 * np.random.default_rng(3).standard_normal((2, *SHAPE))
        for step in range(5):
            x = x + (-0.7 * x + 2.0 * step / 5) / 5
        np.testing.assert_allclose(found, np.tile(x, (3, 1, 1, 1)), atol=1e-5)

    def test_the_true_velocity_has_no_loss_and_guidance_leads_away_from_none(self, monkeypatch):
        model, original = make_model("flow"), torch.randn(3, *SHAPE, generator=of_seed(2))

        def true_velocity(x, time, condition):  # x_t = (1 - t) z + t x is known, and so is x
            return (original - x) / (1 - time[:, None, None])

        inputs = {"state": STATE, "goal": GOAL}
        assert model.loss(original, inputs, chance(4)) > 0.1
        monkeypatch.setattr(model, "ask", true_velocity)
        assert model.loss(original, inputs, chance(4)) < 1e-6
        null = model.network.null_condition

        def by_condition(x, time, condition):
            return torch.full_like(x, 3.0 if torch.equal(condition[:1], null) else 5.0)

        monkeypatch.setattr(model, "ask", by_condition)
        found = model.draw(
            CONTEXT,
            Sampling(std_scale=0.0, guidance_scale=1.5),
            1,
            np.random.default_rng(0),
        )
        np.testing.assert_allclose(found, 3.0 + 1.5 * 2.0, rtol=1e-6)


def test_mip_asks_twice_the_second_time_around_the_first_answer(monkeypatch):
    model, asked = make_model("mip"), []

    def ask(x, time, condition):
        asked.append((x.clone(), time))
        return 0.5 * x + 1.0 + time

    monkeypatch.setattr(model, "ask", ask)
    found = model.draw(CONTEXT, Sampling(std_scale=2.0), 3, np.random.default_rng(5))
    noise = 2.0 * np.random.default_rng(5).standard_normal((3, *SHAPE))
    noise[0] = 0.0
    near = NEARLY * 1.0 + (1 - NEARLY) * noise  # the first answer, to zeros at 0, is 1
    np.testing.assert_allclose(found, np.tile(0.5 * near + 1.0 + NEARLY, (3, 1, 1, 1)), atol=1e-5)
    assert [time for _, time in asked[:2]] == [0.0, NEARLY]

    original, asked[:] = torch.randn(3, *SHAPE, generator=of_seed(2)), []
    loss = model.loss(original, {"state": STATE, "goal": GOAL}, chance(7))
    z = torch.randn(3, *SHAPE, generator=of_seed(7))
    near = NEARLY * original + (1 - NEARLY) * z
    torch.testing.assert_close(asked[1][0], near)
    errors = [(1.0 - original).square().mean(), (0.5 * near + 1.9 - original).square().mean()]
    torch.testing.assert_close(loss, sum(errors))


def test_inverse_dynamics_is_told_how_many_steps_are_left_and_is_asked_for_one(tmp_path):
    model = make_model("inverse-dynamics")
    with torch.no_grad():
        (one, _), (three, _) = (model(STATE, GOAL, torch.full((3,), left)) for left in (1, 3))
    assert (one - three).abs().max() > 1e-3
    drawn = model.draw(CONTEXT, Sampling(), 1, np.random.default_rng(0))
    np.testing.assert_allclose(drawn[:, 0], one, atol=1e-6)

    points = np.random.default_rng(0).uniform(size=(2 * 3, 2))
    states, _ = tap_latents(np.random.default_rng(1).uniform(size=(2 * 4, 2)))
    latents, actions = states.reshape(2, 4, *states.shape[1:]), taps(points).reshape(2, 3, -1, 3)
    write_trajectories_h5(
        tmp_path / "data", latents, actions, {"train": range(2)}, layer_normed=False
    )
    examples = open_examples(tmp_path / "data", SPEC, "latents", longest_goal=2)
    rows = np.arange(len(examples))
    of, steps = examples.batch(rows).inputs, examples.goal_steps(rows)
    flat = latents.reshape(8, -1)
    places = [
        np.abs(of[name].reshape(len(rows), 1, -1) - flat).sum(-1).argmin(1)
        for name in ("state", "goal")
    ]
    np.testing.assert_array_equal(steps, places[1] - places[0])
    assert set(steps) == {1, 2}


class TestPrism:
    def test_precisions_add_and_an_unsure_prior_says_nothing(self):
        plain = Gaussian(np.full((1, 2, 1), 1.0), 0.5, 0.01)
        sure = np.array([[[0.5], [1e9]]])
        fused = FusedGaussian(plain, np.full((1, 2, 1), 3.0), sure)
        mean = fused.sample(np.zeros((1, 2, 1)))[0, 0, :, 0]
        np.testing.assert_allclose(mean, [2.0, 1.0])
        std = fused.sample(np.ones((1, 2, 1)))[0, 0, :, 0] - mean
        np.testing.assert_allclose(std, [0.5 / np.sqrt(2), 0.5])

    def test_other_priors_are_refused(self):
        with pytest.raises(ConfigError, match="must be a 'gaussian' of 'path' gestures"):
            PrismOptimizer(SPEC, make_model("regression"), GestureCEM())
        with pytest.raises(ConfigError, match="covariance must be 'diagonal'"):
            PrismOptimizer(SPEC, make_model("gaussian"), GestureCEM(covariance="full"))


def test_the_true_cost_of_what_reaches_the_goal_is_nothing():
    problems = one_gesture_problems(40, split="validation", seed=3)
    idle = np.zeros_like(problems.actions)
    cost = TrueCost(problems)(np.stack([idle, problems.actions], axis=1))
    np.testing.assert_array_equal(cost[:, 1], 0.0)
    assert (cost[:, 0] > 0).all()
    rows = np.array([7, 2])
    np.testing.assert_array_equal(
        TrueCost(problems.select(rows))(idle[rows][:, None])[:, 0], cost[rows, 0]
    )


class TestStatistics:
    def test_rows_hold_all_seeds_and_the_kinds_of_a_group(self):
        def result(method, seed, switch, tabs):
            one = {"success_switch": switch, "success_tabs": tabs}
            one |= {"success": (switch + tabs) / 2, "success_multimodal": tabs}
            return {"method": method, "seed": seed, "one": one, "one_ms": 1.0 + seed}

        runs = [result("ddim", seed, 0.5 + 0.1 * seed, 0.8) for seed in range(3)]
        runs += [result("flow", seed, 0.6, 0.2) for seed in range(2)]
        rows = seeds.summarise_rivals(runs, "ddim")
        assert (rows["ddim"]["seeds"], rows["ddim"]["one_ms"]) == ([0, 1, 2], 2.0)
        assert rows["ddim"]["one"]["all"]["by_seed"] == pytest.approx([0.65, 0.7, 0.75])
        assert rows["ddim"]["one"]["all"]["mean"] == pytest.approx(0.7)
        assert rows["ddim"]["one"]["multimodal"]["iqm"] == pytest.approx([0.8, 0.8, 0.8])
        better = {
            group: of["probability_that_ours_is_better"]
            for group, of in rows["flow"]["one"].items()
        }
        assert better["multimodal"] == [1.0, 1.0, 1.0]
        assert better["all"][0] == pytest.approx(
            (1 + 0.5) / 2
        )  # above, alike and below of switches

    def test_intervals_hold_the_figure_and_one_seed_has_none(self):
        rng = np.random.default_rng(0)
        tasks = list(rng.normal([[0.0], [1.0], [2.0]], 0.1, size=(3, 5)))
        point, low, high = seeds.interval(tasks, seeds.interquartile_mean)
        assert point == pytest.approx(trim_mean(np.ravel(tasks), 0.25))
        assert low < point < high
        assert (
            seeds.interval([task[:1] for task in tasks], seeds.interquartile_mean)[1:]
            == [pytest.approx(1.0, abs=0.2)] * 2
        )
        again = seeds.interval(tasks, seeds.interquartile_mean)
        assert again == [point, low, high]

    def test_the_probability_of_improvement_counts_pairs_of_runs(self):
        ours, theirs = (
            [np.array([3.0, 1.0]), np.array([5.0, 5.0])],
            [np.array([2.0, 1.0]), np.zeros(2)],
        )
        # 3 beats both, 1 loses and ties: (1 + 1 + 0 + 0.5) / 4; the other task is won always
        assert seeds.improvement(*ours, *theirs) == pytest.approx((2.5 / 4 + 1) / 2)


SMALL = {
    (rivals, "FULL"): AssetSettings(
        model=ModelConfig(num_layers=1, nhead=2, condition="latents", condition_tokens=2),
        num_validation_trajectories=4,
    ),
    (success, "NUM_NOISES"): 1,
    (rivals, "NUM_TIMED"): 1,
    (rivals, "RIVALS"): {
        name: replace(
            of, one=of.one and {}, ranked={key: given[:1] for key, given in of.ranked.items()}
        )
        for name, of in rivals.RIVALS.items()
    },
}


def test_the_study_trains_tunes_and_measures_each_once(tmp_path, capsys, monkeypatch):
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    out, found = tmp_path / "study", tmp_path / "rivals.json"
    words = ["--out", out, "--steps", 5, "--data-share", 0.0003, "--num-problems", 30]
    words += ["--num-validation", 30, "--seeds", 1, "--d-model", 16, "--json", found]
    assert benchmark("rivals", *words, "--methods", "ddim") == 0
    assert "goals reached, %" in capsys.readouterr().out
    (model,) = (out / "models").iterdir()
    assert torch.load(model)["training"]["seed"] == 1
    before = model.stat().st_mtime_ns
    assert benchmark("rivals", *words, "--methods", "ddim,prism") == 0
    assert model.stat().st_mtime_ns == before
    assert {path.name for path in (out / "models").iterdir()} == {"ddim-1.pt", "gaussian-1.pt"}
    study = json.loads(found.read_text())
    assert [(of["method"], of["seed"]) for of in study["results"]] == [("ddim", 1), ("prism", 1)]
    ours, prism = (study["methods"][name] for name in ("ddim", "prism"))
    assert "one" not in prism
    assert ours["one_ms"] > 0
    assert set(prism["ranked"]) == {"all", "multimodal"}
    assert study["tuned"]["ddim-one"]["provenance"] == {"split": "validation"}
    assert study["tuned"]["prism-ranked"]["winner"] == {"std": 0.5, "num_elites": 2}
    assert benchmark("rivals", *words, "--steps", 9) == 1
    assert "steps is 5, here it is 9" in capsys.readouterr().err
    assert benchmark("rivals", *words, "--methods", "vae") == 1
    assert "methods has 'vae'; use some of ddim, regression" in capsys.readouterr().err
