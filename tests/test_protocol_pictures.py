"""What the pictures show, and that a benchmark writes all it promises."""

import json

import numpy as np
import pytest
import typer
from builders.race import write_world_model
from typer.testing import CliRunner

from vj2_ddim_benchmark.commands import benchmark
from vj2_ddim_benchmark.planners.descent import descend
from vj2_ddim_benchmark.planners.entry import BuildAssets
from vj2_ddim_benchmark.planners.host import planning_problem
from vj2_ddim_benchmark.planners.registry import entries_of
from vj2_ddim_benchmark.protocol.benchmark import Benchmark
from vj2_ddim_benchmark.protocol.landscape import Spy, descent_path, tap_costs, touch_points
from vj2_ddim_benchmark.protocol.pictures import telling_problems
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.tuning import sweep, write_sweep
from vj2_ddim_benchmark.tune_commands import benchmark_tune
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.scripts import drag
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError

PLANNERS = ("gradient-descent-adam-10", "random-gestures-16")


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    return write_world_model(tmp_path_factory.mktemp("model") / "world_model.pt")


def invoke(function, *arguments):
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_tuned(folder):
    entry = entries_of(PLANNERS[:1])[0]
    fixed = {"lr": 0.05, "start": "centre"}
    found = sweep(entry.search_space, lambda settings: (float(dict(settings) == fixed), 0.0))
    assert found.winner == fixed
    write_sweep(folder, entry.name, found, {})


def test_touch_points():
    (swipe,) = drag(0.2, 0.4, 0.6, 0.8, 100, 21)
    np.testing.assert_allclose(touch_points(swipe), [0.4, 0.6], atol=1e-6)
    half = swipe * [1.0, 1.0, 0.5]
    np.testing.assert_allclose(touch_points(half), [0.4, 0.6], atol=1e-6)
    np.testing.assert_array_equal(touch_points(np.zeros((2, 250, 3))), np.zeros((2, 2)))


def test_tap_costs_are_laid_out_as_the_screen_is():
    costs = tap_costs(lambda candidates: touch_points(candidates) @ [1.0, 10.0], grid=4)
    centres = np.array([0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(costs, centres[None] + 10 * centres[:, None], atol=1e-5)


def test_the_path_is_that_of_the_planner(world_model):
    model = WorldModel.load(world_model)
    screens = TouchScreen.generate(2, split="test", seed=0).render()
    problem = planning_problem(model, screens[:1], screens[1:])
    built = entries_of(PLANNERS[:1])[0].build(
        BuildAssets(ActionSpec()), {"lr": 0.05, "start": "centre"}
    )
    path = descent_path(built, problem)
    assert path.shape == (11, 2)
    np.testing.assert_allclose(path[0], [0.5, 0.5], atol=1e-6)
    assert np.abs(np.diff(path, axis=0)).max() > 1e-3
    best = descend(
        built.torch_cost_of(problem),
        built.initial_actions(problem),
        built.bounds(),
        method="adam",
        lr=0.05,
        num_iterations=10,
    ).best
    planned = built.optimize(problem).unprojected_actions
    np.testing.assert_allclose(best[:, 0].numpy(), planned, atol=1e-6)


def test_a_spy_changes_nothing():
    spy = Spy(lambda candidates: candidates.sum(axis=(2, 3)))
    candidates = np.ones((2, 3, 4, 3))
    np.testing.assert_array_equal(spy(candidates), np.full((2, 3), 12.0))
    np.testing.assert_array_equal(spy.asked[0], candidates)


def test_telling_problems_are_a_success_and_a_failure_of_each_kind():
    def record(planner, problem, kind, success):
        return Record(planner, problem, kind, success, None, 0.0, 1.0, 1, 1, None, "", 0.0, "")

    records = [
        record("ours", 5, "switch", True),
        record("ours", 1, "switch", False),
        record("ours", 2, "switch", True),
        record("ours", 3, "keypad", True),
        record("theirs", 0, "keypad", False),
    ]
    assert telling_problems(records, "ours") == [3, 2, 1]


def test_a_benchmark_writes_all_it_promises(tmp_path, world_model):
    write_tuned(tmp_path / "tuned")
    run = tmp_path / "run"
    settings = Benchmark(world_model, None, num_problems=4, tuned=tmp_path / "tuned")
    rows = settings.run(run, entries_of(PLANNERS))
    assert json.loads((run / "summary.json").read_text()) == rows
    assert {row["planner"] for row in rows} == set(PLANNERS)
    assert [row["n"] for row in rows if row["task"] == "one-gesture"] == [4, 4]
    by_kind = [
        row["n"] for row in rows if row["task"] not in ("one-gesture", "one-gesture/multimodal")
    ]
    assert sum(by_kind) == 8
    assert len((run / "results.jsonl").read_text().splitlines()) == 8
    noted = json.loads((run / "run.json").read_text())
    assert noted["fixed"]["threads"] == noted["noted"]["torch_threads"] == 1
    assert noted["noted"]["tuned"][PLANNERS[0]] == {"lr": 0.05, "start": "centre"}
    for name in ("success_against_time", "landscape", "plans"):
        picture = run / "pictures" / f"{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"(pictures/{name}.png)" in (run / "report.md").read_text()
    assert settings.run(run, entries_of(PLANNERS)) == rows  # nothing is planned again
    with pytest.raises(ConfigError, match="num_problems"):
        Benchmark(world_model, None, num_problems=5, tuned=tmp_path / "tuned").run(
            run, entries_of(PLANNERS)
        )


def test_tuning_from_the_shell(tmp_path, world_model):
    planners = "gradient-descent-sgd-10,random-gestures-16"
    result = invoke(
        benchmark_tune,
        "--world-model",
        world_model,
        "--out",
        tmp_path,
        "--num-problems",
        2,
        "--planners",
        planners,
        "--threads",
        1,
    )
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "gradient-descent-sgd-10.json").read_text())
    assert written["provenance"]["split"] == "validation"
    assert written["winner"] in [trial["settings"] for trial in written["trials"]]
    assert "gradient-descent-sgd-10" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["gradient-descent-sgd-10.json"]


def test_an_untuned_planner_is_found_out_before_anything_is_trained(tmp_path):
    untuned = ("--tuned", tmp_path, "--planners", "gradient-descent-sgd-10")
    result = invoke(benchmark, "--out", tmp_path / "run", *untuned)
    assert isinstance(result.exception, ConfigError)
    assert "benchmark tune" in str(result.exception)
    assert not (tmp_path / "run").exists()
