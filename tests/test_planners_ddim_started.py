"""DDIM-started planners: never worse than DDIM, honest accounts of both, and a real gain."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from vj2_ddim_benchmark.planners.candidate_cem import CandidateCEM
from vj2_ddim_benchmark.planners.ddim_started import (
    StartedOptimizer,
    WarmStarted,
    ddim_adam,
    ddim_cem,
)
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.gesture_cem import COVARIANCES, gesture_cem
from vj2_ddim_benchmark.planners.gradient_descent import (
    LEARNING_RATES,
    GradientDescentOptimizer,
    gradient_descent,
)
from vj2_ddim_benchmark.planners.parameter_spaces import GestureParameters
from vj2_ddim_benchmark.planners.registry import REGISTRY, entries_of
from vj2_ddim_benchmark.planners.starts import any_gestures
from vj2_ddim_benchmark.protocol.tuning import TUNED_DIR, read_tuned
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanConstraints, PlanningProblem, PlanResult
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

SPEC = ActionSpec(max_press_steps=200, path_knots=3)  # what the touch screen's gestures need
FREE = ActionSpec(
    action_block=4,
    channels=("x", "y"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    press_channel=None,
    representation="raw",
)


class Quadratic(QuadraticCost):
    """The public fake, with its torch side."""

    def torch_cost(self, actions):
        target = torch.as_tensor(np.asarray(self.target), dtype=actions.dtype)
        return (actions - target).square().mean(dim=(2, 3))


def sampler(spec=SPEC, **settings):
    model = GaussianModel(spec, NoiseSchedule(), std=0.5)
    return DDIMOptimizer(model, **{"num_candidates": 8, "num_inference_steps": 3, **settings})


def descent(spec=SPEC, **settings):
    def draw(num, rng):
        return rng.uniform(-1, 1, (num, spec.action_block, spec.num_channels))

    return GradientDescentOptimizer(
        spec, lambda p: p.cost.torch_cost,
        **{"method": "adam", "lr": 0.05, "num_iterations": 5, "draw_gestures": draw, **settings},
    )  # fmt: skip


def started(how, spec=SPEC, **settings):
    if how == "cem":
        return StartedOptimizer(sampler(spec), CandidateCEM(spec, **settings))
    return StartedOptimizer(sampler(spec), WarmStarted(descent(spec, **settings)))


def touch_targets(num, seed=5):
    """Valid gestures `[B, 1, L, A]`."""
    return SPEC.project(any_gestures(num, np.random.default_rng(seed)))[:, None]


def problem(cost, batch=1, **fields):
    return PlanningProblem(cost=cost, batch_size=batch, **fields)


HOWS = ("cem", "adam")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", HOWS)
def test_the_plan_is_never_worse_than_ddims(how, seed):
    asked = problem(Quadratic(touch_targets(3, seed)), 3, seed=seed)
    alone = sampler().optimize(asked)
    both = started(how).optimize(asked)
    assert (both.cost <= alone.cost).all()
    np.testing.assert_allclose(both.cost, asked.cost(both.actions[:, None])[:, 0], rtol=1e-6)
    assert SPEC.is_valid(both.actions).all()
    assert both.actions.shape == alone.actions.shape
    assert both.actions.dtype == alone.actions.dtype


def test_a_second_planner_that_finds_nothing_leaves_ddims_plan():
    asked = problem(Quadratic(touch_targets(2)), 2)
    alone = sampler().optimize(asked)
    both = StartedOptimizer(sampler(), WorseHalf()).optimize(asked)
    np.testing.assert_array_equal(both.actions, alone.actions)
    np.testing.assert_allclose(both.cost, alone.cost)
    np.testing.assert_array_equal(both.projection_distance, alone.projection_distance)


class WorseHalf:
    """A second planner whose answers and accounts are known."""

    def __init__(self, gain=(1.0, 1.0), stopped="finished"):
        self.gain, self.stopped = np.asarray(gain), stopped

    def __call__(self, asked, first, candidates, cost, /):
        self.asked, self.candidates, self.costs = asked, candidates, cost
        return PlanResult(
            actions=np.zeros_like(first.actions),
            cost=first.cost + self.gain,
            history=np.zeros((3, 2)),
            num_cost_evaluations=7,
            num_denoiser_evaluations=2,
            wall_time_s={"cost": 1.0, "think": 2.0, "total": 3.0},
            provider="hand",
            stopped_because=self.stopped,
            projection_distance=np.full(2, 9.0),
        )


def test_each_problem_gets_the_better_plan_and_the_accounts_are_sums():
    asked = problem(Quadratic(touch_targets(2)), 2, seed=3)
    alone, second = sampler().optimize(asked), WorseHalf(gain=(1.0, -1.0))
    both = StartedOptimizer(sampler(), second).optimize(asked)
    np.testing.assert_array_equal(both.actions, [alone.actions[0], np.zeros((250, 3))])
    np.testing.assert_allclose(both.cost, alone.cost + np.array([0.0, -1.0]))
    np.testing.assert_array_equal(both.projection_distance, [alone.projection_distance[0], 9.0])
    np.testing.assert_allclose(both.history, [*alone.history, both.cost])
    assert both.num_cost_evaluations == 2 * 8 + 7
    assert both.num_denoiser_evaluations == 2 * 8 * 3 + 2
    assert both.wall_time_s["think"] == 2.0
    assert 1.0 < both.wall_time_s["cost"] < 2.0
    assert 0 < both.wall_time_s["denoise"] < both.wall_time_s["total"] < 1.0  # the whole call's own
    assert (both.provider, both.stopped_because) == (alone.provider, "finished")
    assert not np.isnan(second.costs).any()


def test_the_second_planner_sees_all_ranked_candidates_with_their_cost():
    asked = problem(Quadratic(touch_targets(2)), 2, seed=3)
    alone, second = sampler().optimize(asked), WorseHalf()
    StartedOptimizer(sampler(), second).optimize(asked)
    assert second.candidates.shape == (2, 8, 250, 3)
    np.testing.assert_allclose(second.costs, asked.cost(second.candidates))
    best = second.candidates[np.arange(2), second.costs.argmin(axis=1)]
    np.testing.assert_array_equal(best, alone.actions)
    assert second.asked.cost is asked.cost


@pytest.mark.parametrize("how", HOWS)
def test_evaluations_are_those_that_were_asked_for(how):
    class Counting(Quadratic):
        rows = torch_rows = 0

        def __call__(self, candidates):
            self.rows += candidates.shape[0] * candidates.shape[1]
            return super().__call__(candidates)

        def torch_cost(self, actions):
            self.torch_rows += actions.shape[0] * actions.shape[1]
            return super().torch_cost(actions)

    cost = Counting(touch_targets(2))
    result = started(how).optimize(problem(cost, 2))
    assert result.num_cost_evaluations == cost.rows + cost.torch_rows
    by_hand = {"cem": 2 * (8 + 4 * 16), "adam": 2 * (8 + 6 + 2)}
    assert result.num_cost_evaluations == by_hand[how]
    assert result.num_denoiser_evaluations == 2 * 8 * 3
    phases = dict(result.wall_time_s)
    assert sum(phases.values()) - phases["total"] <= phases["total"]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_cem_reaches_the_optimum_from_ddims_candidates(covariance):
    straight = ActionSpec()
    space, wanted = GestureParameters(straight), np.array([0.3, -0.2, 0.4, 0.5, -0.4, 0.1])

    def cost(candidates):
        return ((space.encode(candidates)[..., 0] - wanted) ** 2).sum(axis=-1)

    asked = problem(cost, seed=1)
    improve = CandidateCEM(
        straight, num_samples=32, num_iterations=20, num_elites=8, smoothing=0.3, min_std=0.1,
        covariance=covariance,
    )  # fmt: skip
    found = StartedOptimizer(sampler(), improve).optimize(asked)
    assert sampler().optimize(asked).cost[0] > 0.2
    assert found.cost[0] < 0.02  # samples are never closer together than the floor of 0.1


def test_adam_reaches_the_optimum_from_ddims_plan():
    target = np.random.default_rng(0).uniform(-0.9, 0.9, (4, 2))
    found = started("adam", FREE, num_iterations=300, lr=0.02).optimize(problem(Quadratic(target)))
    np.testing.assert_allclose(found.actions[0], target, atol=1e-3)


def test_the_first_gaussian_is_that_of_the_elites():
    """Candidates on a line; the two best are 0 and 0.4: mean 0.2, standard deviation 0.2."""
    drawn = []

    def cost(candidates):
        drawn.append(candidates)
        return np.ones(candidates.shape[:2])

    places = np.array([0.8, 0.0, -0.8, 0.4])
    candidates = np.tile(places[None, :, None, None], (1, 1, 4, 2)).astype(np.float32)
    improve = CandidateCEM(FREE, num_samples=4000, num_iterations=1, num_elites=2)
    first = sampler(FREE).optimize(problem(QuadraticCost(np.zeros((4, 2)))))
    improve(problem(cost), first, candidates, np.array([[3.0, 1.0, np.inf, 2.0]]))
    (population,) = drawn
    np.testing.assert_allclose(population.mean(axis=(0, 1)), 0.2, atol=0.02)
    np.testing.assert_allclose(population.std(axis=(0, 1)), 0.2, atol=0.02)


def test_elites_are_carried_into_the_next_population():
    """Everything drawn is worse than the candidates, so the Gaussian never moves away from them."""
    drawn = []

    def cost(candidates):
        drawn.append(candidates)
        return np.full(candidates.shape[:2], 5.0)

    places = np.array([0.5, 0.5, -0.9])
    candidates = np.tile(places[None, :, None, None], (1, 1, 4, 2)).astype(np.float32)
    improve = CandidateCEM(
        FREE, num_samples=200, num_iterations=6, num_elites=2, smoothing=0.0, min_std=0.01
    )
    first = sampler(FREE).optimize(problem(QuadraticCost(np.zeros((4, 2)))))
    improve(problem(cost), first, candidates, np.array([[1.0, 1.0, 9.0]]))
    assert len(drawn) == 6
    for population in drawn:
        np.testing.assert_allclose(population.mean(axis=1), 0.5, atol=0.01)


@pytest.mark.parametrize("how", HOWS)
def test_a_plan_does_not_depend_on_its_batch_and_repeats(how):
    targets = touch_targets(3)
    planner = started(how)
    together = planner.optimize(problem(Quadratic(targets), 3, seed=7))
    again = planner.optimize(problem(Quadratic(targets), 3, seed=7))
    np.testing.assert_array_equal(together.actions, again.actions)
    for row in range(3):
        alone = planner.optimize(problem(Quadratic(targets[row : row + 1]), seed=7))
        np.testing.assert_allclose(alone.actions[0], together.actions[row], atol=1e-6)
    other = planner.optimize(problem(Quadratic(targets), 3, seed=8))
    assert np.abs(other.actions - together.actions).max() > 1e-3


@pytest.mark.parametrize("how", HOWS)
def test_a_deadline_is_kept(how):
    class Slow(Quadratic):
        def torch_cost(self, actions):
            time.sleep(0.005)
            return super().torch_cost(actions)

        def __call__(self, candidates):
            time.sleep(0.0003 * candidates.shape[1])
            return super().__call__(candidates)

    planner = started(how, num_iterations=10**6)
    cost = Slow(touch_targets(1))
    unhurried = sampler().optimize(problem(cost, seed=0))
    result = planner.optimize(problem(cost, seed=0, deadline_s=0.3))
    assert result.stopped_because == "deadline"
    assert result.num_cost_evaluations > 8
    assert result.cost[0] <= unhurried.cost[0]
    assert result.wall_time_s["total"] < 5.0


def test_without_time_left_ddims_plan_is_the_answer():
    second = WorseHalf()
    result = StartedOptimizer(sampler(), second).optimize(
        problem(Quadratic(touch_targets(2)), 2, deadline_s=0.0)
    )
    assert not hasattr(second, "asked")
    assert result.stopped_because == "deadline"
    assert result.actions.shape == (2, 250, 3)


def test_the_second_gets_what_the_first_leaves_and_its_deadline_counts():
    second = WorseHalf(stopped="deadline")
    asked = problem(Quadratic(touch_targets(2)), 2, deadline_s=50.0)
    result = StartedOptimizer(sampler(), second).optimize(asked)
    assert 0 < second.asked.deadline_s < 50.0
    assert result.stopped_because == "deadline"


@pytest.mark.parametrize("how", HOWS)
def test_a_warm_start_that_is_best_is_kept(how):
    target = touch_targets(1)
    result = started(how).optimize(problem(Quadratic(target), init_action=target[:, 0]))
    np.testing.assert_array_equal(result.actions, target[:, 0])
    assert result.cost[0] == 0.0


def test_problems_it_cannot_keep_are_refused():
    planner = started("cem")
    cost = Quadratic(touch_targets(1))
    with pytest.raises(ContextError, match="needs a cost"):
        planner.optimize(PlanningProblem(batch_size=1))
    for changes in (
        {"frozen_action": np.zeros((1, 3, 3))},
        {"constraints": PlanConstraints(action_low=np.zeros(3))},
    ):
        with pytest.raises(ContextError, match="keeps neither"):
            planner.optimize(problem(cost, **changes))
    assert isinstance(planner, ActionOptimizer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_samples": 0},
        {"num_iterations": 0},
        {"num_elites": 0},
        {"smoothing": 1.0},
        {"min_std": -1.0},
        {"covariance": "round"},
        {"seed": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        CandidateCEM(SPEC, **wrong)


def test_entries_reuse_the_recorded_sweeps_of_their_parents(monkeypatch):
    """Nothing of their own is tuned, and what is reused is the winner on file."""
    monkeypatch.setattr(DDIMOptimizer, "from_bundle", lambda path, **settings: sampler())
    assets = BuildAssets(SPEC, bundle=TUNED_DIR)
    cem, adam = ddim_cem(16), ddim_adam(16, 10)
    assert (cem.name, adam.name) == ("ddim-16-cem", "ddim-16-adam-10")
    assert not cem.search_space
    assert not adam.search_space
    winner = json.loads((TUNED_DIR / "gesture-cem-8x16.json").read_text())["winner"]
    improve = cem.build(assets, {}).improve
    for name in ("num_elites", "smoothing", "covariance"):
        assert getattr(improve, name) == winner[name]
    winner = json.loads((TUNED_DIR / "gradient-descent-adam-10.json").read_text())["winner"]
    built = adam.build(assets, {}).improve.optimizer
    assert (built.lr, built.num_iterations, built.method) == (winner["lr"], 10, "adam")
    assert entries_of([cem.name, adam.name]) == tuple(
        entry for entry in REGISTRY if entry.name in (cem.name, adam.name)
    )


def test_a_fixed_start_is_in_the_name_and_the_only_one_tried():
    entry = gradient_descent("adam", 10, start="zeros")
    assert entry.name == "gradient-descent-adam-10-zeros"
    assert entry.search_space == {"lr": LEARNING_RATES["adam"], "start": ("zeros",)}
    with pytest.raises(ConfigError, match="start must be"):
        gradient_descent("adam", 10, start="nowhere")
    with pytest.raises(ConfigError, match="single descent"):
        gradient_descent("adam", 10, start="zeros", num_restarts=4)


@pytest.mark.parametrize(
    "entry",
    [e for e in REGISTRY if e.name.startswith("gradient-descent")],
    ids=lambda entry: entry.name,
)
def test_every_descent_of_the_registry_is_tuned_within_its_space(entry):
    winner = read_tuned(TUNED_DIR, entry)
    assert winner["start"] in entry.search_space["start"]
    assert winner["lr"] in entry.search_space["lr"]


def test_the_parent_has_every_setting_that_is_reused():
    assert {"num_elites", "smoothing", "covariance", "std"} == set(gesture_cem(8, 16).search_space)


def test_without_a_bundle_it_says_what_to_pass():
    for entry in (ddim_cem(16), ddim_adam(16, 10)):
        with pytest.raises(ConfigError, match="bundle=None; give bundle"):
            entry.build(replace(BuildAssets(SPEC)), {})
