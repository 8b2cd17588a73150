"""`DDIMOptimizer` on an exact denoiser: what it returns, what it counts, what it refuses."""

import math

import numpy as np
import pytest
from builders.bundles import make_bundle
from builders.runtime import FREE as SPEC
from builders.runtime import SCHEDULE, TARGET

from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ConfigError, ContextError, ScheduleError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanningProblem
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.settings import declared
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

TOUCH = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6, representation="raw")


def make_optimizer(spec=SPEC, conditional=False, mean=0.0, std=0.5, model=None, **settings):
    model = model or GaussianModel(spec, SCHEDULE, mean, std, conditional)
    return DDIMOptimizer(
        model, **{"num_inference_steps": 4, "num_candidates": 8, "seed": 3, **settings}
    )


class Recorder:
    """A cost that keeps what it was asked and what it answered."""

    def __init__(self, cost):
        self.cost, self.candidates, self.answers = cost, [], []

    def __call__(self, candidates):
        self.candidates.append(np.array(candidates))
        self.answers.append(self.cost(candidates))
        return self.answers[-1]

    @property
    def num_asked(self):
        return sum(answer.size for answer in self.answers)


def test_it_is_an_action_optimizer():
    assert isinstance(make_optimizer(), ActionOptimizer)


def test_the_plan_is_the_best_of_all_candidates_with_exactly_its_cost():
    cost = Recorder(QuadraticCost(TARGET))
    result = make_optimizer(num_refinements=2).optimize(PlanningProblem(cost=cost, batch_size=3))
    candidates, answers = np.concatenate(cost.candidates, 1), np.concatenate(cost.answers, 1)
    assert candidates.shape == (3, 24, 6, 2)
    for row in range(3):
        best = answers[row].argmin()
        np.testing.assert_array_equal(result.actions[row], candidates[row, best])
        assert result.cost[row] == answers[row, best]
    recomputed = QuadraticCost(TARGET)(result.actions[:, None])[:, 0]
    np.testing.assert_array_equal(result.cost, recomputed)


def test_shapes_types_and_accounts_of_a_plan():
    result = make_optimizer().optimize(PlanningProblem(cost=QuadraticCost(TARGET), batch_size=2))
    assert result.actions.shape == (2, 6, 2)
    assert result.actions.dtype == np.float32
    assert result.cost.shape == result.projection_distance.shape == (2,)
    assert result.history.shape == (1, 2)
    assert result.provider == "exact"
    assert result.stopped_because == "finished"
    assert set(result.wall_time_s) == {"condition", "denoise", "cost", "project", "total"}
    parts = [seconds for phase, seconds in result.wall_time_s.items() if phase != "total"]
    assert all(seconds >= 0 for seconds in parts)
    assert sum(parts) <= result.wall_time_s["total"]


@pytest.mark.parametrize("refinements", [0, 1, 5])
def test_the_history_never_rises_and_ends_at_the_cost(refinements):
    result = make_optimizer(num_refinements=refinements).optimize(
        PlanningProblem(cost=QuadraticCost(TARGET), batch_size=2)
    )
    assert result.history.shape == (1 + refinements, 2)
    assert (np.diff(result.history, axis=0) <= 0).all()
    np.testing.assert_array_equal(result.history[-1], result.cost)


def test_refinement_helps():
    problem = PlanningProblem(cost=QuadraticCost(TARGET))
    plain, refined = (
        make_optimizer(num_refinements=rounds).optimize(problem).cost for rounds in (0, 8)
    )
    assert refined < 0.8 * plain


def test_refinement_re_noises_to_the_timestep_where_it_then_begins():
    class Watched(GaussianModel):
        seen = []

        def denoise(self, sample, timestep, condition):
            self.seen.append((timestep, sample.std()))
            return super().denoise(sample, timestep, condition)

    for spacing in ("linspace", "leading", "trailing"):
        model = Watched(SPEC, SCHEDULE, 0.0, 0.0)
        make_optimizer(
            model=model, num_candidates=400, num_refinements=1, timestep_spacing=spacing
        ).optimize(PlanningProblem(cost=QuadraticCost(TARGET)))
        timestep, std = model.seen[4]
        wanted = math.sqrt(1 - SCHEDULE.alphas_cumprod[timestep])  # the data are one point, 0
        assert std == pytest.approx(wanted, rel=0.1)
        Watched.seen.clear()


@pytest.mark.parametrize("refinements", [0, 3])
def test_a_good_warm_start_is_returned_as_it_is(refinements):
    warm = np.full((2, 6, 2), 0.5, np.float32)
    result = make_optimizer(num_refinements=refinements).optimize(
        PlanningProblem(cost=QuadraticCost(TARGET), init_action=warm)
    )
    np.testing.assert_array_equal(result.actions, warm)
    np.testing.assert_array_equal(result.cost, [0.0, 0.0])


def test_a_bad_warm_start_is_beaten_and_is_candidate_zero():
    cost, warm = Recorder(QuadraticCost(TARGET)), np.full((1, 6, 2), -1.0)
    result = make_optimizer().optimize(PlanningProblem(cost=cost, init_action=warm))
    np.testing.assert_array_equal(cost.candidates[0][:, 0], warm)
    assert cost.candidates[0].shape[1] == 9
    assert result.cost < cost.answers[0][0, 0]


def test_a_plan_is_never_worse_than_its_warm_start():
    rng = np.random.default_rng(0)
    for seed in range(20):
        warm = rng.uniform(-1, 1, (1, 6, 2)).astype(np.float32)
        cost = QuadraticCost(TARGET)
        result = make_optimizer(num_candidates=1).optimize(
            PlanningProblem(cost=cost, init_action=warm, seed=seed)
        )
        assert result.cost <= cost(warm[:, None])[0]


def test_a_warm_start_changes_no_other_candidate():
    costs = [Recorder(QuadraticCost(TARGET)) for _ in range(2)]
    warm = np.zeros((1, 6, 2))
    optimizer = make_optimizer(warm_start_share=0.0)
    optimizer.optimize(PlanningProblem(cost=costs[0], init_action=warm))
    optimizer.optimize(PlanningProblem(cost=costs[1]))
    np.testing.assert_array_equal(costs[0].candidates[0][:, 1:], costs[1].candidates[0])


def test_part_of_the_candidates_begin_near_the_warm_start():
    """With an exact denoiser of wide data, what is re-noised halfway stays near where it was."""
    cost = Recorder(QuadraticCost(TARGET))
    warm = np.full((1, 6, 2), 0.7, np.float32)
    model = GaussianModel(SPEC, SCHEDULE, 0.0, 2.0)
    make_optimizer(model=model, warm_start_share=0.5, refinement_strength=0.1).optimize(
        PlanningProblem(cost=cost, init_action=warm)
    )
    distance = np.abs(cost.candidates[0][0] - warm).mean(axis=(1, 2))
    assert distance[0] == 0.0
    assert len(distance) == 1 + 8
    assert distance[5:].max() < 0.5 * distance[1:5].mean()


def test_a_short_warm_start_is_continued_by_its_last_action_or_by_a_lifted_finger():
    cost = Recorder(lambda candidates: np.zeros(candidates.shape[:2]))
    short = np.array([[[0.1, 0.2], [0.3, 0.4]]])
    make_optimizer().optimize(PlanningProblem(cost=cost, init_action=short))
    wanted = np.concatenate([short[0], np.tile(short[0, -1:], (4, 1))])
    np.testing.assert_allclose(cost.candidates[0][0, 0], wanted, rtol=1e-6)
    touch = np.array([[[0.1, 0.2, 1.0], [0.1, 0.2, 1.0]]])
    make_optimizer(TOUCH).optimize(PlanningProblem(cost=cost, init_action=touch))
    wanted = np.concatenate([touch[0], np.zeros((8, 3))])
    np.testing.assert_allclose(cost.candidates[1][0, 0], wanted, rtol=1e-6)


def test_a_warm_start_is_not_written_to():
    warm = np.zeros((1, 6, 2), np.float32)
    warm.flags.writeable = False
    result = make_optimizer().optimize(
        PlanningProblem(cost=lambda c: np.zeros(c.shape[:2]), init_action=warm)
    )
    assert not np.shares_memory(result.actions, warm)


def test_a_cost_that_scribbles_on_its_candidates_does_not_change_the_plan():
    def scribbling(candidates):
        cost = QuadraticCost(TARGET)(candidates)
        candidates[...] = 99.0
        return cost

    plain, scribbled = (
        make_optimizer(num_refinements=1).optimize(PlanningProblem(cost=cost))
        for cost in (QuadraticCost(TARGET), scribbling)
    )
    np.testing.assert_array_equal(plain.actions, scribbled.actions)


def test_without_a_cost_one_sample_is_drawn_and_nothing_is_ranked():
    warm = np.zeros((2, 6, 2))
    result = make_optimizer(num_refinements=3).optimize(PlanningProblem(init_action=warm))
    assert result.num_cost_evaluations == 0
    assert result.num_denoiser_evaluations == 2 * 4
    assert np.isnan(result.cost).all()
    assert result.history.shape == (0, 2)
    assert (result.actions != 0).all()  # the sample, not the warm start


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_evaluations_are_counted_as_they_happen(guidance):
    class Counted(GaussianModel):
        rows = 0

        def denoise(self, sample, timestep, condition):
            self.rows += len(sample)
            return super().denoise(sample, timestep, condition)

    model, cost = (
        Counted(SPEC, SCHEDULE, 0.0, 0.5, conditional=True),
        Recorder(QuadraticCost(TARGET)),
    )
    result = make_optimizer(
        model=model,
        num_refinements=2,
        refinement_strength=0.5,
        guidance_scale=guidance,
        warm_start_share=0.25,
    ).optimize(PlanningProblem({"mean": np.zeros((3, 1))}, cost, init_action=np.zeros((3, 6, 2))))
    assert result.num_denoiser_evaluations == model.rows
    # of 8 candidates 6 take all 4 steps, 2 begin at the warm start and take half of them
    assert model.rows == 3 * (6 * 4 + 2 * 2 + 2 * 8 * 2) * (1 if guidance == 1.0 else 2)
    assert result.num_cost_evaluations == cost.num_asked == 3 * (1 + 8 + 2 * 8)


@pytest.mark.parametrize("deadline", [0.0, 1e-9, -1.0])
def test_a_deadline_returns_a_plan_and_says_so(deadline):
    result = make_optimizer(num_inference_steps=50, num_refinements=50).optimize(
        PlanningProblem(cost=QuadraticCost(TARGET), deadline_s=deadline, batch_size=2)
    )
    assert result.stopped_because == "deadline"
    assert np.isfinite(result.actions).all()
    assert np.isnan(result.cost).all()  # no time was left to ask for it
    assert result.num_cost_evaluations == 0
    assert result.num_denoiser_evaluations == 2 * 8  # one step, no refinement
    assert gestures.is_valid(result.actions, SPEC).all()


def test_a_generous_deadline_changes_nothing():
    results = [
        make_optimizer().optimize(PlanningProblem(cost=QuadraticCost(TARGET), deadline_s=deadline))
        for deadline in (None, 1e6)
    ]
    assert results[1].stopped_because == "finished"
    np.testing.assert_array_equal(results[0].actions, results[1].actions)


def test_nan_costs_count_as_the_worst():
    def cost(candidates):
        values = QuadraticCost(TARGET)(candidates)
        values[:, :-1] = np.nan
        return values

    recorder = Recorder(cost)
    result = make_optimizer().optimize(PlanningProblem(cost=recorder))
    np.testing.assert_array_equal(result.actions[0], recorder.candidates[0][0, -1])
    assert np.isfinite(result.cost).all()


def test_a_refinement_whose_costs_are_all_nan_keeps_the_best_so_far():
    calls = []

    def cost(candidates):
        calls.append(1)
        values = QuadraticCost(TARGET)(candidates)
        return values if len(calls) == 1 else np.full_like(values, np.nan)

    result = make_optimizer(num_refinements=2).optimize(PlanningProblem(cost=cost))
    plain = make_optimizer().optimize(PlanningProblem(cost=QuadraticCost(TARGET)))
    np.testing.assert_array_equal(result.actions, plain.actions)
    np.testing.assert_array_equal(result.history[:, 0], np.repeat(plain.cost, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_costs_that_rank_nothing_are_refused(value):
    def cost(candidates):
        values = np.zeros(candidates.shape[:2])
        values[1] = value
        return values

    with pytest.raises(ContextError, match="every candidate of problem 1"):
        make_optimizer().optimize(PlanningProblem(cost=cost, batch_size=3))


@pytest.mark.parametrize("shape", [(2,), (2, 8, 1), (8, 2), (2, 7), ()])
def test_a_cost_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ContextError, match=r"cost returned shape .* expected \[B, K\] = \(2, 8\)"):
        make_optimizer().optimize(PlanningProblem(cost=lambda c: np.zeros(shape), batch_size=2))


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ({}, "mean"),
        ({"mean": np.zeros((2, 1)), "goal": np.zeros((2, 1))}, "goal"),
        ({"goal": np.zeros((2, 1))}, "goal"),
        ({"mean": np.zeros((2, 3))}, r"'mean' has shape \(2, 3\); expected \[B, 1\]"),
        ({"mean": np.zeros(2)}, "'mean' has shape"),
        ({"mean": np.zeros((2, 1, 1))}, "'mean' has shape"),
        ({"mean": np.array([[0.0], [np.nan]])}, "'mean' has 1 values"),
        ({"mean": np.array([[np.inf], [-np.inf]])}, "'mean' has 2 values"),
        ({"mean": np.zeros((0, 1))}, "empty"),
    ],
)
def test_a_context_that_does_not_fit_is_refused_by_name(context, named):
    with pytest.raises(ContextError, match=named):
        make_optimizer(conditional=True).optimize(PlanningProblem(context))


def test_a_context_for_an_unconditional_model_is_refused():
    with pytest.raises(ContextError, match="mean"):
        make_optimizer().optimize(PlanningProblem({"mean": np.zeros((2, 1))}))


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((1, 7, 2), r"\(1, 7, 2\); expected \[B, 1 to 6, 2\]"),
        ((1, 0, 2), "init_action has shape"),
        ((1, 6, 3), "init_action has shape"),
        ((6, 2), "init_action has shape"),
        ((1, 1, 6, 2), "init_action has shape"),
    ],
)
def test_a_warm_start_of_the_wrong_shape_is_refused(shape, named):
    with pytest.raises(ContextError, match=named):
        make_optimizer().optimize(PlanningProblem(init_action=np.zeros(shape)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_warm_start_that_is_not_finite_is_refused(value):
    with pytest.raises(ContextError, match="init_action"):
        make_optimizer().optimize(PlanningProblem(init_action=np.full((1, 6, 2), value)))


@pytest.mark.parametrize(
    "problem",
    [
        PlanningProblem({"mean": np.zeros((2, 1))}, init_action=np.zeros((3, 6, 2))),
        PlanningProblem({"mean": np.zeros((2, 1))}, batch_size=3),
    ],
)
def test_batch_sizes_that_disagree_are_refused(problem):
    with pytest.raises(ContextError, match="batch sizes disagree"):
        make_optimizer(conditional=True).optimize(problem)


def test_an_empty_batch_is_refused():
    with pytest.raises(ContextError, match="empty"):
        make_optimizer().optimize(PlanningProblem(batch_size=0))


def test_projection_makes_valid_plans_and_says_what_it_moved():
    problem = PlanningProblem(batch_size=2)
    projected, bare = (
        make_optimizer(TOUCH, std=1.0, project=project).optimize(problem)
        for project in (True, False)
    )
    assert gestures.is_valid(projected.actions, TOUCH).all()
    assert not gestures.is_valid(bare.actions, TOUCH).any()
    np.testing.assert_array_equal(bare.projection_distance, 0.0)
    np.testing.assert_array_equal(gestures.project(bare.actions, TOUCH), projected.actions)
    moved = np.abs(projected.actions - bare.actions).max(axis=(1, 2))
    np.testing.assert_allclose(projected.projection_distance, moved)


def test_the_cost_judges_projected_plans():
    cost = Recorder(lambda candidates: np.zeros(candidates.shape[:2]))
    make_optimizer(TOUCH, std=1.0, num_refinements=1).optimize(PlanningProblem(cost=cost))
    assert all(gestures.is_valid(candidates, TOUCH).all() for candidates in cost.candidates)


def test_the_context_reaches_the_right_problem():
    means = np.array([[-0.5], [0.0], [0.5]], np.float32)
    result = make_optimizer(conditional=True, std=0.01).optimize(PlanningProblem({"mean": means}))
    np.testing.assert_allclose(
        result.actions, np.broadcast_to(means[:, :, None], (3, 6, 2)), atol=0.05
    )


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_guidance_moves_from_the_null_condition_through_the_condition(scale):
    means = np.array([[-0.4], [0.3]], np.float32)
    result = make_optimizer(conditional=True, std=0.01, guidance_scale=scale).optimize(
        PlanningProblem({"mean": means})
    )
    wanted = np.broadcast_to(scale * means[:, :, None], (2, 6, 2))
    np.testing.assert_allclose(result.actions, wanted, atol=0.06)


def test_guidance_of_an_unconditional_model_is_refused():
    with pytest.raises(ConfigError, match=r"guidance_scale 2.0 needs a conditional model"):
        make_optimizer(guidance_scale=2.0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_candidates", 0),
        ("num_refinements", -1),
        ("seed", -1),
        ("eta", -0.1),
        ("eta", 1.1),
        ("eta", math.nan),
        ("refinement_strength", 0.0),
        ("refinement_strength", 1.0),
        ("num_inference_steps", 0),
        ("num_inference_steps", 101),
        ("timestep_spacing", "banana"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_on_construction(setting, value):
    with pytest.raises(ConfigError, match=setting):
        make_optimizer(**{setting: value})


def test_a_negative_seed_of_a_problem_is_refused():
    with pytest.raises(ContextError, match=r"seed must be an integer of at least 0.*-1"):
        make_optimizer().optimize(PlanningProblem(seed=-1))


def test_errors_of_the_schedule_come_through():
    with pytest.raises(ScheduleError, match="1 to 100"):
        make_optimizer(num_inference_steps=1000)


def test_warming_up_runs_the_whole_loop_and_changes_no_plan():
    warmed, cold = make_optimizer(conditional=True), make_optimizer(conditional=True)
    warmed.warm_up(3)
    problem = PlanningProblem({"mean": np.zeros((2, 1))}, QuadraticCost(TARGET))
    np.testing.assert_array_equal(warmed.optimize(problem).actions, cold.optimize(problem).actions)


def test_two_blocks_are_planned_at_once():
    spec = ActionSpec(action_block=10, horizon=2, min_press_steps=2, max_press_steps=6)
    result = make_optimizer(spec).optimize(
        PlanningProblem(cost=lambda c: np.zeros(c.shape[:2]), batch_size=2)
    )
    assert result.actions.shape == (2, 20, 3)
    assert gestures.is_valid(result.actions, spec).all()


# Settings: whole, or as keywords.


def test_settings_may_be_given_whole_or_as_keywords():
    model = GaussianModel(SPEC, SCHEDULE)
    whole = SearchSettings(num_inference_steps=4, num_candidates=5)
    assert DDIMOptimizer(model, whole).settings == whole
    assert DDIMOptimizer(model, num_inference_steps=4, num_candidates=5).settings == whole
    changed = DDIMOptimizer(model, whole, num_candidates=7).settings
    assert changed == SearchSettings(num_inference_steps=4, num_candidates=7)


def test_a_bundle_takes_both_kinds_of_settings_in_both_ways(tmp_path):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    search, session = SearchSettings(num_inference_steps=2), SessionSettings("cpu", num_threads=1)
    whole = DDIMOptimizer.from_bundle(folder, search, session=session)
    keywords = {"provider": "cpu", "num_threads": 1, "num_inference_steps": 2}
    assert DDIMOptimizer.from_bundle(folder, **keywords).settings == whole.settings == search
    mixed = DDIMOptimizer.from_bundle(folder, search, session=session, num_candidates=3, seed=1)
    assert (mixed.settings.num_candidates, mixed.settings.num_inference_steps) == (3, 2)


def test_a_misspelt_setting_of_a_plan_is_named_before_the_bundle_is_opened(tmp_path):
    known = [*declared(SearchSettings), *declared(SessionSettings), "on_failure"]
    with pytest.raises(ConfigError, match=r"'num_candidate' is no setting.*num_candidates") as told:
        DDIMOptimizer.from_bundle(tmp_path / "nothing", num_candidate=4)
    assert all(name in str(told.value) for name in known)
    with pytest.raises(ConfigError, match=r"'num_candidate' is no setting.*num_candidates"):
        DDIMOptimizer(GaussianModel(SPEC, SCHEDULE), num_candidate=4)


@pytest.mark.parametrize("name", declared(SearchSettings))
def test_every_setting_of_the_search_has_its_sentence(name):
    assert declared(SearchSettings)[name].help.endswith(".")
