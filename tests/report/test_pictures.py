"""What the pictures and the animation show, and that a benchmark writes all it promises."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.race import CHAIN, PLAN, write_world_model
from builders.race import CHAINS as RECORDS
from matplotlib.figure import Figure
from PIL import Image

from vj2_ddim_benchmark.benchmark import Benchmark
from vj2_ddim_benchmark.planners.description import PlannerAssets
from vj2_ddim_benchmark.planners.gradient_descent import descend
from vj2_ddim_benchmark.planners.registry import REGISTRY, planners_of
from vj2_ddim_benchmark.planners.sweep import sweep
from vj2_ddim_benchmark.race.records import from_stroke, to_stroke
from vj2_ddim_benchmark.race.tasks import planning_problem
from vj2_ddim_benchmark.report.curves import Panel, points_of, shown_planners
from vj2_ddim_benchmark.report.pictures import (
    Spy,
    animate_chain,
    animate_record,
    descent_path,
    tap_costs,
    telling_chain,
    telling_problems,
    touch_points,
)
from vj2_ddim_benchmark.report.summary import summarise
from vj2_ddim_benchmark.settings import RaceSettings
from vj2_ddim_benchmark.world.problems import chain_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.spec import ActionSpec

PLANNERS = ("gradient-descent-adam-10", "random-gestures-16")


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    return write_world_model(tmp_path_factory.mktemp("model") / "world_model.pt")


def write_tuned(folder):
    (entry,) = planners_of(PLANNERS[:1])
    fixed = {"lr": 0.05, "start": "centre"}
    found = sweep(entry.search_space, lambda settings: (float(dict(settings) == fixed), 0.0))
    assert found.winner == fixed
    found.write(folder, entry.name, {})


def test_touch_points_and_the_costs_of_taps_laid_out_as_the_screen_is():
    (swipe,) = drag(0.2, 0.4, 0.6, 0.8, 100, 21)
    np.testing.assert_allclose(touch_points(swipe), [0.4, 0.6], atol=1e-6)
    half = swipe * [1.0, 1.0, 0.5]
    np.testing.assert_allclose(touch_points(half), [0.4, 0.6], atol=1e-6)
    np.testing.assert_array_equal(touch_points(np.zeros((2, 250, 3))), np.zeros((2, 2)))
    costs = tap_costs(lambda candidates: touch_points(candidates) @ [1.0, 10.0], grid=4)
    centres = np.array([0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(costs, centres[None] + 10 * centres[:, None], atol=1e-5)


def test_the_path_is_that_of_the_planner(world_model):
    model = WorldModel.load(world_model)
    screens = TouchScreen.generate(2, split="test", seed=0).render()
    problem = planning_problem(model, screens[:1], screens[1:])
    (row,) = planners_of(PLANNERS[:1])
    built = row.build(PlannerAssets(ActionSpec()), {"lr": 0.05, "start": "centre"})
    path = descent_path(built, problem)
    assert path.shape == (11, 2)
    np.testing.assert_allclose(path[0], [0.5, 0.5], atol=1e-6)
    assert np.abs(np.diff(path, axis=0)).max() > 1e-3
    asked = built.torch_cost_of(problem), built.initial_actions(problem)
    how = {"method": "adam", "lr": 0.05, "num_iterations": 10}
    best = descend(*asked, (torch.zeros(3), torch.ones(3)), **how).best
    planned = built.optimize(problem).unprojected_actions
    np.testing.assert_allclose(best[:, 0].numpy(), planned, atol=1e-6)


def test_a_spy_changes_nothing():
    spy = Spy(lambda candidates: candidates.sum(axis=(2, 3)))
    candidates = np.ones((2, 3, 4, 3))
    np.testing.assert_array_equal(spy(candidates), np.full((2, 3), 12.0))
    np.testing.assert_array_equal(spy.asked[0], candidates)


def test_telling_problems_are_a_success_and_a_failure_of_each_kind():
    records = [
        replace(PLAN, planner=planner, problem=problem, kind=kind, success=success)
        for planner, problem, kind, success in (
            ("ours", 5, "switch", True), ("ours", 1, "switch", False), ("ours", 2, "switch", True),
            ("ours", 3, "keypad", True), ("theirs", 0, "keypad", False),
        )
    ]  # fmt: skip
    assert telling_problems(records, "ours") == [3, 2, 1]


def test_a_benchmark_writes_all_it_promises(tmp_path, world_model):
    write_tuned(tmp_path / "tuned")
    run = tmp_path / "run"
    settings = RaceSettings(
        world_model=world_model, num_problems=4, threads=1, tuned=tmp_path / "tuned"
    )
    rows = Benchmark(settings, run).race(planners_of(PLANNERS))
    assert json.loads((run / "summary.json").read_text()) == rows
    assert {row["planner"] for row in rows} == set(PLANNERS)
    assert [row["n"] for row in rows if row["task"] == "one-gesture"] == [4, 4]
    others = ("one-gesture", "one-gesture/multimodal")
    assert sum(row["n"] for row in rows if row["task"] not in others) == 8
    assert len((run / "results.jsonl").read_text().splitlines()) == 8
    noted = json.loads((run / "run.json").read_text())
    assert noted["fixed"]["threads"] == noted["noted"]["torch_threads"] == 1
    assert noted["noted"]["tuned"][PLANNERS[0]] == {"lr": 0.05, "start": "centre"}
    for name in ("success_against_time", "landscape", "plans"):
        picture = run / "pictures" / f"{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 500_000
        assert f"(pictures/{name}.png)" in (run / "report.md").read_text()
    fewer = replace(settings, workers=2)  # how many work together is noted, and nothing else
    assert Benchmark(fewer, run).race(planners_of(PLANNERS)) == rows  # nothing is planned again
    assert json.loads((run / "run.json").read_text())["noted"]["workers"] == 2
    with pytest.raises(ConfigError, match="num_problems"):
        Benchmark(replace(settings, num_problems=5), run).race(planners_of(PLANNERS))
    with pytest.raises(ConfigError, match="world_model"):
        Benchmark(replace(settings, world_model=None), run).race(planners_of(PLANNERS))


def test_at_most_ten_lines_are_drawn_and_those_that_are_told_of_come_first():
    rows = [{"planner": planner.name} for planner in REGISTRY]
    shown = shown_planners(rows)
    assert len(shown) == 10
    assert {"ddim-16", "gradient-descent-adam-10", "cem-8x32"} <= set(shown)
    assert shown == [row["planner"] for row in rows if row["planner"] in shown]
    few = [{"planner": name} for name in "ab"] * 2
    assert shown_planners(few) == ["a", "b"]


def test_points_are_where_the_plans_were_ready_in_percent():
    late = replace(PLAN, budget_ms=5.0, wall_ms=20.0)  # not in time, but a success all the same
    rows = summarise([replace(PLAN, budget_ms=50.0), late])
    points = points_of(rows, "ddim", "p50_ms")
    assert [point[:2] for point in points] == [(10.0, 100.0), (20.0, 100.0)]
    assert points[0][2:] == pytest.approx((20.65, 100.0), abs=0.01)


def test_names_cover_neither_each_other_nor_a_mark():
    figure = Figure(figsize=(8, 5))
    panel = Panel(figure.subplots())
    for index in range(10):
        panel.line(index, [(1.0, 90.0, 80.0, 95.0), (10.0, 92.0 - index / 2, 85.0, 96.0)], "a name")
    panel.frame()
    panel.name_lines()
    boxes = [text.get_window_extent() for text in panel.axes.texts]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    drawn = [line for line in panel.axes.lines if line.get_marker() in "o^sDPXv<>*"]
    assert len({line.get_color() for line in drawn}) == 10


CHAINS = chain_problems(4, split="train", seed=1)


def frames_of(problem):
    screen = CHAINS.start.select(problem)
    frames, states = [screen.render()[0]], []
    actions = CHAINS.actions[problem, : CHAINS.length[problem]]
    for action in actions:
        screen = screen.execute(action[None])
        frames.append(screen.render()[0])
        states.append(screen.state[0].tolist())
    return np.stack(frames), actions, states


def images_of(path):
    with Image.open(path) as file:
        assert file.format == "GIF"
        images = []
        for index in range(file.n_frames):
            file.seek(index)
            images.append(np.asarray(file.convert("RGB")).astype(int))
        return images


def test_the_animation_begins_at_the_start_ends_at_the_last_frame_and_shows_the_goal(tmp_path):
    problem = int(CHAINS.length.argmax())
    frames, actions, _ = frames_of(problem)
    path = tmp_path / "chain.gif"
    animate_chain(path, frames, actions, frames[-1])
    images = images_of(path)
    assert len(actions) < len(images) <= 60
    assert path.stat().st_size < 400_000
    left, right = np.s_[22 : 22 + 320, 8 : 8 + 320], np.s_[22 : 22 + 320, 16 + 320 : 16 + 640]
    close = lambda image, frame: np.abs(image - frame.repeat(5, 0).repeat(5, 1)).mean() < 6.0  # noqa: E731
    assert close(images[0][left], frames[0].astype(int))
    assert close(images[-1][left], frames[-1].astype(int))
    assert not close(images[0][left], frames[-1].astype(int))
    assert all(close(image[right], frames[-1].astype(int)) for image in images)
    assert list(tmp_path.iterdir()) == [path]


def test_the_finger_moves_and_a_rest_is_shown_for_longer(tmp_path):
    frames = np.full((2, 64, 64, 3), 90, np.uint8)
    animate_chain(tmp_path / "a.gif", frames, drag(0.1, 0.5, 0.9, 0.5, 20, 60), frames[0])
    finger = []
    for image in images_of(tmp_path / "a.gif")[1:-1]:
        red = (image[22:342, 8:328] - [235, 50, 50]).__abs__().sum(axis=-1) < 40
        finger.append(np.flatnonzero(red.any(axis=0)).mean())
    assert len(finger) == 8
    assert (np.diff(finger) > 0).all()
    assert finger[-1] == pytest.approx(0.9 * 320, abs=3)
    with Image.open(tmp_path / "a.gif") as file:
        times = []
        for index in range(file.n_frames):
            file.seek(index)
            times.append(file.info["duration"])
        assert file.info["loop"] == 0
    assert 400 <= times[0] <= 600
    assert set(times[1:-1]) == {times[1]}
    assert 50 <= times[1] <= 100
    assert times[-1] >= 1500


def test_a_record_is_drawn_from_its_states_and_strokes(tmp_path):
    frames, actions, states = frames_of(2)
    strokes = [to_stroke(action) for action in actions]
    record = replace(CHAIN, problem=2, strokes=strokes, states=states)
    animate_record(tmp_path / "record.gif", CHAINS, record)
    drawn, goal = np.stack(list(map(from_stroke, strokes))), CHAINS.goal.select(2).render()[0]
    animate_chain(tmp_path / "chain.gif", frames, drawn, goal)
    assert (tmp_path / "record.gif").read_bytes() == (tmp_path / "chain.gif").read_bytes()
    animate_record(tmp_path / "none.gif", CHAINS, replace(CHAIN, strokes=[], states=[]))
    assert len(images_of(tmp_path / "none.gif")) == 1


def test_what_cannot_be_animated_is_refused_and_the_longest_solved_chain_shown(tmp_path):
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    for num, goal in ((2, frames[0]), (1, frames[0][:32]), (40, frames[0])):
        with pytest.raises(DataError, match="m gestures"):
            animate_chain(tmp_path / "a.gif", frames, np.zeros((num, 250, 3)), goal)
    assert list(tmp_path.iterdir()) == []
    assert telling_chain(RECORDS, "ddim") == RECORDS[1]
    assert telling_chain(RECORDS, "gd") == RECORDS[4]
    with pytest.raises(DataError, match="'other'"):
        telling_chain(RECORDS, "other")
