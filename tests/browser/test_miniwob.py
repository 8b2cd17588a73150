"""Tasks of MiniWoB++ in a real browser: posed by pictures, touched, and the same every time."""

from contextlib import closing

import gymnasium
import numpy as np
import pytest
from typer.testing import CliRunner

from vj2_ddim_benchmark import browser_commands as commands
from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.browser import miniwob, tasks
from vj2_ddim_benchmark.browser.collect import collect_pages
from vj2_ddim_benchmark.browser.kit import Installation
from vj2_ddim_benchmark.browser.miniwob import NOT_POSED, TASKS, Task, draw_task
from vj2_ddim_benchmark.browser.race import race_on_pages
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.browser.task_oracle import draw_gesture, draw_task_problem
from vj2_ddim_benchmark.browser.tasks import Snapshot, TaskSession
from vj2_ddim_benchmark.settings import BrowserCollectSettings, BrowserRaceSettings
from vj2_ddim_benchmark.world.touch import drag, tap
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import decode, encode
from vj2_ddim_plugin.spec import ActionSpec

MISSING = [*Installation.find().missing(kit=False)]
if miniwob.installed_html() is None:
    MISSING.append("miniwob")
in_browser = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
FEW = ("click-tab", "click-checkboxes", "click-menu", "drag-circle", "use-slider", "drag-cube")
NOTHING = np.zeros((250, 3), np.float32)


@pytest.fixture(scope="module")
def session():
    with closing(TaskSession(64)) as opened:
        yield opened


def on(box, x=0.5, y=0.5):
    """A point of a box, in [0, 1]."""
    left, top, width, height = box
    return (left + x * width) / 320, (top + y * height) / 320


def boxes(session, kind):
    return [box for use, box in session.uses() if use == kind]


def test_without_the_package_all_else_works_and_it_is_said_what_to_run(monkeypatch):
    monkeypatch.setattr(miniwob, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install --no-deps miniwob==1\.1\.0"):
        miniwob.task_files.__wrapped__()
    said = CliRunner().invoke(commands.app, ["doctor"]).output
    assert "--no-deps miniwob==1.1.0" in " ".join(said.split())


@pytest.mark.parametrize("browser", [True, False])
def test_tasks_need_a_browser_but_not_the_kit(monkeypatch, tmp_path, browser):
    program = tmp_path / "chromium"
    program.write_text("")
    program.chmod(0o755 if browser else 0o644)
    monkeypatch.setattr(tasks, "task_files", dict)
    installed = Installation(program, tmp_path / "kit")
    if browser:
        TaskSession(64, installed).close()
    else:
        with pytest.raises(ConfigError, match="apt-get install") as told:
            TaskSession(64, installed)
        assert "npm" not in str(told.value)
    with pytest.raises(ConfigError, match="npm install"):
        Session(64, installed)


def test_no_seed_is_in_two_splits_and_only_what_is_posed_is_drawn():
    rngs = np.random.default_rng(0), np.random.default_rng(0), np.random.default_rng(0)
    splits = "train", "validation", "test"
    drawn = [
        [draw_task(split, rng) for _ in range(200)] for split, rng in zip(splits, rngs, strict=True)
    ]
    residues = [{task.seed % 3 for task in tasks} for tasks in drawn]
    assert residues == [{0}, {1}, {2}]
    assert {task.name for task in drawn[0]} == set(TASKS)
    assert {draw_task("test", rngs[0], FEW).name for _ in range(60)} == set(FEW)
    for name in (NOT_POSED[0], "click-nothing"):
        with pytest.raises(ConfigError, match=name):
            draw_task("test", rngs[0], (name,))
    with pytest.raises(ConfigError, match="dev"):
        draw_task("dev", rngs[0])


def test_gestures_stay_on_the_page_and_bend_at_most_once():
    rng, bent = np.random.default_rng(0), 0
    spec = ActionSpec(representation="path", path_knots=3, min_press_steps=3)
    for _ in range(300):
        uses = [(use, [-40.0, 250.0, 400.0, 120.0]) for use in ("area", "drag", "scroll", "text")]
        action = draw_gesture(uses, rng)
        assert action.min() >= 0.0
        assert action.max() <= 1.0
        np.testing.assert_allclose(decode(encode(action[None], spec), spec)[0], action, atol=2e-3)
        bent += np.ptp(np.diff(action[action[:, 2] > 0, 1])) > 1e-3
    assert bent > 10


def test_a_number_may_differ_only_where_that_is_said():
    one, other, text = (
        Snapshot(f"DIV|{shown}|visible|1\nP|a|rgb(1, 2, 3)", np.zeros(4))
        for shown in ("12", "-3", "a3")
    )
    assert not one.near(other, 1.0)
    assert one.near(other, 1.0, any_number=True)
    assert not one.near(text, 1.0, any_number=True)
    assert not one.near(one._replace(places=np.full(4, 2.0)), 1.0, any_number=True)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="pages"):
        BrowserCollectSettings(pages="web")
    with pytest.raises(ConfigError, match="num_chains"):
        BrowserRaceSettings(pages="miniwob", num_chains=2)


@in_browser
def test_a_touch_is_where_it_was_meant(session):
    before, _ = session.show(Task("circle-center", 3))
    for x, y in ((0.25, 0.5), (0.7, 0.2), (0.5, 0.7)):
        after, seen = session.touch(tap(x, y, 0, 20)[0])
        rows, columns = np.nonzero((after != before).any(axis=-1))
        middle = (columns.mean() + 0.5) / 64, (rows.mean() + 0.5) / 64
        assert middle == pytest.approx((x, y), abs=0.02)
        session.show(Task("circle-center", 3))
        _, beside = session.touch(tap(x + 0.02, y, 0, 20)[0])  # 3 pixels
        assert seen.near(beside, 4.0)
        assert not seen.near(beside, 2.0)
        session.show(Task("circle-center", 3))


@in_browser
@pytest.mark.parametrize("name", FEW)
def test_the_same_seed_and_gestures_look_the_same_to_the_pixel_in_another_browser(session, name):
    task, gestures, seen = Task(name, 12), [], []
    rng = np.random.default_rng(4)
    seen.append(session.show(task))
    for _ in range(3):
        gestures.append(draw_gesture(session.uses(), rng))
        seen.append(session.touch(gestures[-1]))
    with closing(TaskSession(64)) as other:
        again = [other.show(task), *(other.touch(each) for each in gestures)]
    for (picture, state), (expected, wanted) in zip(again, seen, strict=True):
        assert state.near(wanted, 0.0)
        np.testing.assert_array_equal(picture, expected)
    assert not np.array_equal(session.show(Task(name, 15))[0], seen[0][0]) or name == "drag-cube"


@in_browser
def test_what_ends_an_episode_leaves_the_page_as_it_is_and_touches_go_on(session):
    start, before = session.show(Task("click-checkboxes", 3))
    *_, submit = boxes(session, "tap")
    picture, after = session.touch(tap(*on(submit), 10, 20)[0])
    np.testing.assert_array_equal(picture, start)
    assert after.near(before, 0.0)
    picture, after = session.touch(tap(*on(boxes(session, "tap")[0], x=0.1), 10, 20)[0])
    assert not np.array_equal(picture, start)
    assert not after.near(before, 100.0)  # whatever the tolerance: another box is checked


@in_browser
def test_a_mouse_moves_what_no_finger_does(session, monkeypatch):
    def slid():
        start, _ = session.show(Task("use-slider", 3))
        box = boxes(session, "drag")[-1]
        x, y = on(box)
        for end in (0.05, 0.6):
            picture, _ = session.touch(drag(x, y, end, y, 10, 60)[0])
            if not np.array_equal(picture, start):
                return True
        return False

    assert slid()
    monkeypatch.setitem(TASKS, "use-slider", miniwob.Rule(mouse=False))
    assert not slid()


@in_browser
def test_a_problem_is_seen_and_nothing_does_not_reach_it(session):
    rng = np.random.default_rng(0)
    for name in ("click-option", "draw-line", "highlight-text"):
        problem = draw_task_problem(session, "test", rng, (name,))
        assert problem.kind == name
        assert problem.reached(problem.wanted)
        start = problem.show(session)
        assert not np.array_equal(start, problem.goal)
        assert not problem.reached(session.touch(NOTHING)[1])


@in_browser
def test_the_environment_shows_tasks():
    how = {"split": "test", "pages": "miniwob", "tasks": ("click-checkboxes",)}
    with closing(gymnasium.make("BrowserTouch-v0", **how).unwrapped) as env:
        picture, info = env.reset(seed=5)
        assert info["state"].shape == info["goal_state"].shape == (3,)
        assert info["state_distance"] == 1.0
        _, reward, terminated, truncated, info = env.step(NOTHING)
        assert (reward, terminated, truncated, info["lost"]) == (0.0, False, False, False)
        rows, columns = np.nonzero((info["goal"] != picture).any(axis=-1))
        x, y = (columns.mean() + 0.5) / 64, (rows.mean() + 0.5) / 64
        _, reward, terminated, _, info = env.step(tap(x, y, 50, 30)[0])
        assert (reward, terminated, info["state_distance"]) == (1.0, True, 0.0)
        np.testing.assert_array_equal(info["state"], info["goal_state"])
        with pytest.raises(ConfigError, match="options"):
            env.reset(options={"page": None})
        with pytest.raises(ConfigError, match="pages"):
            type(env)(pages="web")


@in_browser
def test_data_of_tasks_change_where_the_picture_does_and_do_so_again():
    how = BrowserCollectSettings(
        num_trajectories=4, horizon=2, size=64, processes=1, pages="miniwob", tasks=FEW[:3]
    )
    first, report = collect_pages(how)
    assert report["transitions"] == 8
    assert first.states.shape == (4, 3, 3)
    assert {list(TASKS)[at] for at in first.states[:, 0, 0]} <= set(FEW[:3])
    changed = (first.states[:, 1:] != first.states[:, :-1]).any(axis=-1)
    seen = (first.frames[:, 1:] != first.frames[:, :-1]).any(axis=(2, 3, 4))
    np.testing.assert_array_equal(changed, seen)
    assert changed.any()
    second, _ = collect_pages(how)
    np.testing.assert_array_equal(second.frames, first.frames)
    np.testing.assert_array_equal(second.actions, first.actions)


@in_browser
def test_planners_race_on_tasks():
    parts, two = shipped_assets(), ("click-checkboxes", "drag-items")
    how = BrowserRaceSettings(
        planners=("random-gestures-16",), num_problems=2, pages="miniwob", tasks=two
    )
    found = race_on_pages(parts.bundle, parts.world_model, how)
    assert set(found["planners"]["random-gestures-16"]["kinds"]) == set(two)
    assert found["chains"] == {}
    assert found["moved_by_mouse"] == ["drag-items"]


@in_browser
def test_nothing_of_an_earlier_touch_hovers_on_the_next_page(session):
    problem = draw_task_problem(session, "train", np.random.default_rng(7), ("click-menu",))
    with closing(TaskSession(64)) as fresh:
        first = problem.show(fresh)
        assert problem.reached(fresh.touch(problem.hidden)[1])
        np.testing.assert_array_equal(problem.show(fresh), first)
        assert problem.reached(fresh.touch(problem.hidden)[1])
