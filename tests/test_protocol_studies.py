"""Studies: who takes part, what they see, and what is written and reported."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders.race import write_world_model
from test_protocol_records import PLAN

from vj2_ddim_benchmark.planners import registry as ddim_module
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.registry import entries_of
from vj2_ddim_benchmark.protocol.benchmark import Benchmark
from vj2_ddim_benchmark.protocol.goal_noise import NoisyGoal, noisy_goal
from vj2_ddim_benchmark.protocol.options import budgets_of, studies_from
from vj2_ddim_benchmark.protocol.report_command import rebuild_report
from vj2_ddim_benchmark.protocol.studies import STUDIES, StudySettings, split_name
from vj2_ddim_benchmark.protocol.study_report import study_table
from vj2_ddim_benchmark.protocol.summary import summarise
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanningProblem


def named(study, settings=None):
    return {variant.name: variant for variant in (settings or StudySettings()).variants(study)}


@pytest.mark.parametrize(
    ("study", "key", "values"),
    [
        ("steps", "num_inference_steps", (1, 2, 4, 8, 10, 16, 50)),
        ("candidates", "num_candidates", (1, 4, 16, 64)),
    ],
)
def test_what_is_varied_reaches_the_sampler(monkeypatch, study, key, values):
    built = []
    sampler = SimpleNamespace(from_bundle=lambda path, **settings: built.append(settings))
    monkeypatch.setattr(ddim_module, "DDIMOptimizer", sampler)
    variants = named(study)
    for variant in variants.values():
        entry = variant.to_build()
        assert entry.name == variant.name
        entry.build(BuildAssets(ActionSpec(), Path("bundle")), {})
        assert entry.with_cost == (built[-1]["num_candidates"] > 1)
    found = [(split_name(name)[1], settings[key]) for name, settings in zip(variants, built)]  # noqa: B905
    series = 2 if study == "steps" else 1
    assert found == [(str(value), value) for value in values] * series
    assert {settings["num_candidates"] for settings in built} == (
        {16, 1} if study == "steps" else set(values)
    )


def test_every_study_begins_or_ends_with_the_planners_as_they_are(tmp_path):
    settings = StudySettings(
        ("ddim-16", "cem-8x32"), {"half": Path("half.pt")}, {"1 %": Path("one")}
    )
    noise = named("goal-noise", settings)
    assert {name: v.goal_noise for name, v in noise.items() if v.entry == "cem-8x32"} == {
        "cem-8x32@0": 0.0, "cem-8x32@0.1": 0.1, "cem-8x32@0.2": 0.2, "cem-8x32@0.5": 0.5,
    }  # fmt: skip
    models = {name: variant.world_model for name, variant in named("world-model", settings).items()}
    assert models == {
        "ddim-16@own": None, "ddim-16@half": Path("half.pt"),
        "cem-8x32@own": None, "cem-8x32@half": Path("half.pt"),
    }  # fmt: skip
    bundles = {name: variant.bundle for name, variant in named("denoisers", settings).items()}
    assert bundles == {
        "ddim-16@1 %": Path("one"), "ddim-16@own": None,
        "ddim-1@1 %": Path("one"), "ddim-1@own": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("world-model", "--study-world-model"),
        ("denoisers", "--study-bundle"),
        ("stepps", "unknown; use one of steps, candidates"),
    ],
)
def test_what_a_study_lacks_is_named(study, message):
    with pytest.raises(ConfigError, match=message):
        StudySettings().variants(study)


def test_options():
    assert budgets_of(None, False) == (None,)
    assert budgets_of([50.0, 10.0, 50.0], False) == (10.0, 50.0)
    assert budgets_of([50.0], True) == (50.0, None)
    settings = studies_from(["ddim-1,cem-8x32"], ["half=h.pt"], ["1 %=a=b"])
    assert settings == StudySettings(
        ("ddim-1", "cem-8x32"), {"half": Path("h.pt")}, {"1 %": Path("a=b")}
    )
    with pytest.raises(ConfigError, match=r"must be NAME=FILE; found 'h\.pt'"):
        studies_from(None, ["h.pt"], None)
    for twice in (["a=x", "a=y"], ["own=x"], ["a@b=x"]):
        with pytest.raises(ConfigError, match=r"--study-bundle: a NAME must be given once"):
            studies_from(None, None, twice)
    with pytest.raises(ConfigError, match="NAME=DIR"):
        studies_from(None, None, ["bundle"])
    with pytest.raises(ConfigError, match="nobody"):
        studies_from(["nobody"], None, None)


def test_the_noise_is_of_the_goal_and_of_the_problem_alone():
    goal = 3.0 + 2.0 * np.random.default_rng(0).standard_normal((1, 64, 32)).astype(np.float32)
    noise = noisy_goal(goal, 0.5, seed=7) - goal
    np.testing.assert_allclose(noise.std(), 0.5 * goal.std(), rtol=0.05)
    np.testing.assert_allclose(noise.mean(), 0.0, atol=0.1)
    np.testing.assert_array_equal(noisy_goal(goal, 0.5, seed=7) - goal, noise)
    np.testing.assert_allclose(noisy_goal(goal, 0.1, seed=7) - goal, noise / 5, atol=1e-5)
    assert np.abs(noisy_goal(goal, 0.5, seed=8) - goal - noise).max() > 0.1
    assert noise.dtype == np.float32


def test_context_and_cost_both_hold_the_noisy_goal():
    class Asks:
        def optimize(self, problem):
            self.problem = problem
            return problem.seed

    def make_cost(world_model, state, goal):
        return lambda candidates: (world_model, state, goal)

    state, goal = np.zeros((1, 2, 3)), np.arange(6.0).reshape(1, 2, 3)
    problem = PlanningProblem({"state": state, "goal": goal}, lambda c: c, None, 0.5, seed=4)
    asks = Asks()
    planner = NoisyGoal(asks, 0.2, "the model", make_cost)
    assert planner.optimize(problem) == 4
    seen = noisy_goal(goal, 0.2, 4)
    np.testing.assert_array_equal(asks.problem.context["goal"], seen)
    np.testing.assert_array_equal(asks.problem.context["state"], state)
    assert asks.problem.deadline_s == 0.5
    model, of_state, of_goal = asks.problem.cost(None)
    assert model == "the model"
    np.testing.assert_array_equal(of_state, state)
    np.testing.assert_array_equal(of_goal, seen)
    planner.optimize(PlanningProblem(problem.context, None, seed=4))
    assert asks.problem.cost is None  # a planner that ranks nothing is given nothing
    with pytest.raises(ContextError, match="seed"):
        planner.optimize(PlanningProblem(problem.context))


def test_a_table_has_a_row_a_planner_and_a_column_a_value():
    records = [
        replace(PLAN, planner=f"{name}@{value}", success=value != "2", wall_ms=float(value))
        for name in ("b", "a")
        for value in ("10", "2")
        if (name, value) != ("a", "2")
    ]
    table = study_table(STUDIES["steps"], summarise(records))
    assert table.columns == ("planner", "num_inference_steps = 2", "10")
    assert table.rows == (
        ("b", "0.0% (0.0 to 79.3), 2.0 ms", "100.0% (20.7 to 100.0), 10.0 ms"),
        ("a", "", "100.0% (20.7 to 100.0), 10.0 ms"),
    )


def test_studies_are_raced_beside_the_race_and_rebuilt_from_their_raw_results(tmp_path):
    path = write_world_model(tmp_path / "world_model.pt")
    half = write_world_model(tmp_path / "half.pt", seed=1)
    settings = Benchmark(path, None, num_problems=3, budgets=(5000.0, None))
    planners = ("random-gestures-16",)
    run, out = tmp_path / "run", tmp_path / "out"
    settings.run(run, entries_of(planners))
    studies = StudySettings(planners, {"half": half})
    settings.study(run, ("goal-noise", "world-model"), studies, num_problems=2)
    rows = rebuild_report(run, out)
    assert [row["budget_ms"] for row in rows if row["task"] == "one-gesture"] == [5000.0, None]
    for name, num in (("goal-noise", 4 * 2), ("world-model", 2 * 2)):
        folder = run / "studies" / name
        assert len((folder / "results.jsonl").read_text().splitlines()) == num
        summary = json.loads((out / "studies" / name / "summary.json").read_text())
        assert {row["n"] for row in summary if row["task"] == "one-gesture"} == {2}
        assert (out / "pictures" / f"study-{name}.png").read_bytes().startswith(b"\x89PNG")
        for page in ("report.md", "report.html"):
            assert STUDIES[name].title in (out / page).read_text()
    # without noise and with its own world model it is the race again
    plain = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for name, variant in (("goal-noise", "@0"), ("world-model", "@own")):
        lines = (run / "studies" / name / "results.jsonl").read_text().splitlines()
        again = [r for r in map(json.loads, lines) if r["planner"].endswith(variant)]
        costs = [r["final_cost"] for r in plain if r["budget_ms"] is None][:2]
        assert [r["final_cost"] for r in again] == costs
    write_world_model(half, seed=2)
    with pytest.raises(ConfigError, match="holds results of another run"):
        settings.study(run, ("world-model",), studies)
