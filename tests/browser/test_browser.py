"""A real browser: widgets that obey, pictures that repeat, failures that are told, no way out."""

import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from itertools import chain

import gymnasium
import numpy as np
import psutil
import pytest
from builders.browser import page_of
from gymnasium.utils.env_checker import check_env

from vj2_ddim_benchmark.browser import check as gate
from vj2_ddim_benchmark.browser import collect, driver
from vj2_ddim_benchmark.browser.chromium import PROFILE, BrowserError, Chromium
from vj2_ddim_benchmark.browser.demo import draw_goals
from vj2_ddim_benchmark.browser.kit import Installation
from vj2_ddim_benchmark.browser.oracle import draw_problem, perform, ways_to
from vj2_ddim_benchmark.browser.pages import KINDS, THEMES
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.settings import BrowserCheckSettings, BrowserCollectSettings
from vj2_ddim_benchmark.world.collect import load_transitions, save_transitions
from vj2_ddim_benchmark.world.touch import tap
from vj2_ddim_plugin.errors import ConfigError, DataError

MISSING = Installation.find().missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
NOTHING = np.zeros((250, 3), np.float32)
LONG = tap(0.5, 0.95, 0, 250)[0]


@pytest.fixture(scope="module")
def session():
    with closing(Session(64)) as opened:
        yield opened


@pytest.fixture
def env():
    with closing(gymnasium.make("BrowserTouch-v0", split="validation").unwrapped) as made:
        yield made


def solved(session, problem, index, way, seed=0):
    """Pictures before and after a way, and the state after it."""
    before = session.show(problem.page, problem.state)
    action = perform(way, session.boxes()[index], np.random.default_rng(seed))
    return before, *session.touch(action)


@pytest.mark.parametrize("theme", THEMES)
def test_every_widget_obeys_its_gesture_and_does_so_again_to_the_pixel(session, theme):
    rng, todo = np.random.default_rng(3), set(KINDS)
    while todo:
        problem = draw_problem("train", rng)
        for index, way in ways_to(problem):
            kind = problem.page.widgets[index].kind
            if problem.page.theme != theme or kind not in todo:
                continue
            todo.remove(kind)
            first, second = (solved(session, problem, index, way) for _ in range(2))
            np.testing.assert_array_equal(first[2], problem.goal, kind)
            assert (first[0] != first[1]).any(), kind
            for one, other in zip(first, second, strict=True):
                np.testing.assert_array_equal(one, other, kind)


def test_each_state_looks_different_and_fits_the_page(session):
    for kind, (num_states, _) in KINDS.items():
        page = page_of(kind, bullets=True)
        pictures = {session.show(page, page.padded([n])).tobytes() for n in range(num_states)}
        assert len(pictures) == num_states, kind
    rng = np.random.default_rng(0)
    for _ in range(8):
        problem = draw_problem("test", rng)
        session.show(problem.page, problem.state)
        for left, top, width, height in chain(*session.boxes()):
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= driver.SIDE


def test_the_checker_finds_nothing_wrong_and_a_seed_names_the_episode(env):
    checked = gymnasium.make("BrowserTouch-v0", render_mode="rgb_array").unwrapped
    checked.action_space.sample = lambda *given: LONG  # noise is a hundred touches
    check_env(checked, skip_render_check=True)
    checked.close()
    first, info = env.reset(seed=5)
    second, _ = env.reset()
    again, same = env.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(info["goal"], same["goal"])
    assert (first != second).any()


def test_reaching_the_goal_is_rewarded_and_ends_the_episode(env):
    problem = draw_problem("train", np.random.default_rng(2))
    options = {"page": problem.page, "state": problem.state, "goal_state": problem.goal}
    frame, info = env.reset(options=options)
    assert info["state_distance"] == 1
    still, reward, terminated, truncated, _ = env.step(NOTHING)
    np.testing.assert_array_equal(still, frame)
    assert (reward, terminated, truncated) == (0.0, False, False)
    index, way = ways_to(problem)[0]
    action = perform(way, env.session.boxes()[index], np.random.default_rng(0))
    _, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, info["lost"]) == (1.0, True, False)
    np.testing.assert_array_equal(info["state"], info["goal_state"])
    for wrong in ({"pge": 1}, {**options, "page": 1}):
        with pytest.raises(ConfigError, match="options"):
            env.reset(options=wrong)


def test_many_in_processes_are_single_environments(env):
    with closing(gymnasium.make_vec("BrowserTouch-v0", 2, "async", split="validation")) as many:
        frames, infos = many.reset(seed=7)
        stepped = many.step(np.stack([LONG, NOTHING]))
        for index, action in enumerate((LONG, NOTHING)):
            frame, info = env.reset(seed=7 + index)
            np.testing.assert_array_equal(frames[index], frame)
            np.testing.assert_array_equal(infos["goal"][index], info["goal"])
            np.testing.assert_array_equal(stepped[0][index], env.step(action)[0])


def killed_meanwhile(env):
    """Kill the browser while it is touched."""
    timer = threading.Timer(0.03, os.kill, (env.session.browser.pid, signal.SIGKILL))
    timer.start()


def hung(env):
    env.session.browser.timeout_s = 0.5
    os.kill(env.session.browser.pid, signal.SIGSTOP)


def throwing(env):
    env.session._touched.evaluate("setTimeout(() => { throw Error('no') }, 1)")


def too_slow(env):
    driver.LONGEST_PRESS_S = 0.0


@pytest.mark.parametrize("harm", [killed_meanwhile, hung, throwing, too_slow])
def test_a_failure_is_a_lost_transition_and_the_next_episode_begins(env, monkeypatch, harm):
    monkeypatch.setattr(driver, "LONGEST_PRESS_S", driver.LONGEST_PRESS_S)
    expected, info = env.reset(seed=1)
    harm(env)
    frame, reward, terminated, truncated, after = env.step(LONG)
    assert (reward, terminated, truncated, after["lost"]) == (0.0, False, True, True)
    np.testing.assert_array_equal(frame, expected)
    np.testing.assert_array_equal(after["state"], info["state"])
    with pytest.raises(ConfigError, match="reset"):
        env.step(LONG)
    again, info = env.reset(seed=1)
    np.testing.assert_array_equal(again, expected)
    assert not info["lost"]


PARENT = """
import time
from vj2_ddim_benchmark.browser.kit import Installation
from vj2_ddim_benchmark.browser.chromium import Chromium
browser = Chromium(Installation.find().binary)
print(browser.pid, flush=True)
time.sleep(60)
"""


def test_no_browser_outlives_a_killed_parent_nor_its_profile_the_next_browser(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        browser = psutil.Process(int(parent.stdout.readline()))
        every = [browser, *browser.children(recursive=True)]
        assert len(every) > 2
        (left,) = tmp_path.glob(f"{PROFILE}*")
        with closing(Chromium(Installation.find().binary)) as beside:
            assert left.exists()  # its owner lives
            beside.call("Browser.getVersion")
        parent.kill()
    assert not psutil.wait_procs(every, timeout=10)[1]
    with closing(Chromium(Installation.find().binary)):
        assert left not in tmp_path.glob(f"{PROFILE}*")
    assert not list(tmp_path.glob(f"{PROFILE}*"))


COLLECTING = """
import sys
from pathlib import Path
from vj2_ddim_benchmark.browser.collect import collect_pages
from vj2_ddim_benchmark.settings import BrowserCollectSettings
settings = BrowserCollectSettings(num_trajectories=200, processes=2, size=32)
collect_pages(settings, parts=Path(sys.argv[1]))
"""


def test_no_process_of_a_killed_collection_goes_on(tmp_path):
    with subprocess.Popen([sys.executable, "-c", COLLECTING, tmp_path]) as parent:
        every, deadline = [], time.monotonic() + 60
        while sum("chromium" in each.name() for each in every) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
            every = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert not psutil.wait_procs(every, timeout=10)[1]


def test_closing_ends_every_process_and_a_program_that_is_no_browser_is_told():
    browser = Chromium(Installation.find().binary)
    every = psutil.Process(browser.pid).children(recursive=True)
    profiles = [each for each in browser._end.peek()[2] if hasattr(each, "exists")]
    browser.close()
    browser.close()
    assert not psutil.wait_procs(every, timeout=10)[1]
    assert not any(map(os.path.exists, profiles))
    with pytest.raises(BrowserError, match="has ended"):
        browser.call("Browser.getVersion")
    for program, message in (("/bin/false", "has ended"), ("/nowhere", "No such file")):
        with pytest.raises(BrowserError, match=message):
            Chromium(program)


class Counting(http.server.BaseHTTPRequestHandler):
    hits = 0

    def do_GET(self):
        Counting.hits += 1

    log_message = do_GET


def test_nothing_is_asked_of_anybody_else(session):
    server = http.server.HTTPServer(("127.0.0.1", 0), Counting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"127.0.0.1:{server.server_port}"
    problem = draw_problem("train", np.random.default_rng(0))
    session.show(problem.page, problem.state)
    touched = session._touched
    for request in (
        f"fetch('http://{address}/a').catch(() => 0)", f"new Image().src = 'http://{address}/b'",
        f"new WebSocket('ws://{address}/c')", f"navigator.sendBeacon('http://{address}/d')",
        f"window.open('http://{address}/e')", "fetch('/etc/passwd').catch(() => 0)",
    ):  # fmt: skip
        touched.evaluate(f"{request}; 1")
    with pytest.raises(BrowserError, match="not loaded"):
        touched.navigate(f"http://{address}/f")
    time.sleep(0.2)
    server.shutdown()
    thread.join()
    server.server_close()
    assert f"http://{address}/f" in touched.refused
    assert Counting.hits == 0
    session.close()


def test_what_is_lost_while_collecting_is_made_again(monkeypatch, tmp_path):
    settings = BrowserCollectSettings(num_trajectories=3, horizon=2, processes=1, size=32)
    expected, report = collect.collect_pages(settings)
    assert (report["transitions"], report["lost"]) == (6, 0)
    touch, calls = Session.touch, []

    def failing(self, action):
        calls.append(action)
        if len(calls) == 4:
            self.close()
        return touch(self, action)

    monkeypatch.setattr(Session, "touch", failing)
    found, report = collect.collect_pages(settings)
    assert report["lost"] == 1
    assert len(calls) == 8
    save_transitions(tmp_path / "data.h5", found)
    for name, values in vars(load_transitions(tmp_path / "data.h5")).items():
        np.testing.assert_array_equal(values, getattr(expected, name), name)


def test_what_was_made_before_is_not_made_again(monkeypatch, tmp_path):
    settings = BrowserCollectSettings(num_trajectories=4, horizon=1, processes=2, size=32)
    expected, report = collect.collect_pages(settings, parts=tmp_path)
    assert (report["transitions"], report["made_now"]) == (4, 4)
    first, second = sorted(tmp_path.glob("*.h5"))
    second.unlink()
    monkeypatch.setattr(collect, "PER_BROWSER", 2)
    found, report = collect.collect_pages(settings, parts=tmp_path)
    assert (report["transitions"], report["made_now"]) == (4, 2)
    assert second.exists()
    for name, values in vars(found).items():
        np.testing.assert_array_equal(values, getattr(expected, name), name)
    first.write_bytes(b"cut off")
    with pytest.raises(DataError, match=first.name):
        collect.collect_pages(settings, parts=tmp_path)
    with pytest.raises(ConfigError, match="holds results of another run: its seed is 0"):
        collect.collect_pages(replace(settings, seed=1), parts=tmp_path)


def fail_at_the_first_gesture(monkeypatch, fail):
    """As often as it is tried; other gestures are touched."""
    first, touch = [], Session.touch

    def failing(self, action):
        first.append(action)
        if np.array_equal(action, first[0]):
            fail(self)
        return touch(self, action)

    monkeypatch.setattr(Session, "touch", failing)


def test_where_a_page_throws_another_is_touched_for_that_number(monkeypatch):
    settings = BrowserCollectSettings(num_trajectories=2, horizon=2, processes=1, size=32)
    expected, _ = collect.collect_pages(settings)

    def throw(session):
        session._touched.evaluate("null.closest('li')")

    fail_at_the_first_gesture(monkeypatch, throw)
    found, report = collect.collect_pages(settings)
    assert report["lost"] == 1
    assert "closest" in next(iter(report["causes"]))
    same = [np.array_equal(found.actions[index], expected.actions[index]) for index in range(2)]
    assert sorted(same) == [False, True]


def test_where_a_browser_fails_at_one_gesture_again_and_again_another_is_made(monkeypatch):
    settings = BrowserCollectSettings(num_trajectories=1, horizon=1, processes=1, size=32)
    expected, _ = collect.collect_pages(settings)

    def hang(session):
        raise BrowserError("it hangs")

    fail_at_the_first_gesture(monkeypatch, hang)
    found, report = collect.collect_pages(settings)
    assert report["causes"] == {"it hangs": collect.NUM_TRIES}
    assert not np.array_equal(found.actions, expected.actions)


def test_what_is_lost_again_and_again_is_an_error(monkeypatch):
    def never(self, action):
        raise BrowserError("gone")

    monkeypatch.setattr(Session, "touch", never)
    with pytest.raises(BrowserError, match="gone"):
        collect.collect_pages(BrowserCollectSettings(num_trajectories=1, processes=1))


def test_the_gate_counts_and_the_pictures_are_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(gate, "KINDS", {"swiper": None})
    found = gate.check(BrowserCheckSettings(repeats=1, num_trajectories=0))
    assert found["total"] == dict.fromkeys(gate.COUNTS, 2) | {"lost": 0}
    assert 50 < found["browser_mb"] < 2000
    assert draw_goals(tmp_path, num=2, split="test", seed=0) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["goals.gif", "goals.png"]
