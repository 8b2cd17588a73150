"""What needs no browser: pages and their splits, gestures, frames, and what is said to install."""

import colorsys
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders.browser import page_of
from typer.testing import CliRunner

from vj2_ddim_benchmark import browser_commands as commands
from vj2_ddim_benchmark.browser import chromium
from vj2_ddim_benchmark.browser.driver import FRAME_MS, frames_of
from vj2_ddim_benchmark.browser.environment import BrowserTouchEnv
from vj2_ddim_benchmark.browser.kit import KIT_FILES, VERSION, Installation
from vj2_ddim_benchmark.browser.oracle import (
    ORDERS,
    draw_chain,
    draw_problem,
    draw_state,
    mixed_action,
    moves,
    perform,
    ways_to,
)  # fmt: skip
from vj2_ddim_benchmark.browser.pages import ABSENT, KINDS, MAX_WIDGETS, THEMES, draw_page
from vj2_ddim_benchmark.settings import SPLITS, BrowserCollectSettings
from vj2_ddim_benchmark.world.layouts import MODULUS, RESIDUES
from vj2_ddim_benchmark.world.touch import drag, tap
from vj2_ddim_plugin.errors import ActionError, ConfigError, DataError


def pages_of(split, num=300):
    rng = np.random.default_rng(0)
    return [draw_page(split, rng) for _ in range(num)]


@pytest.fixture(scope="module")
def pages():
    return {split: pages_of(split) for split in SPLITS}


def test_no_split_shares_arrangements_or_words_or_hues_with_another(pages):
    seen = {}
    for split in SPLITS:
        words = {word.lower() for page in pages[split] for each in page.widgets
                 for word in (*each.options, *each.label.split())}  # fmt: skip
        arrangements = {page.arrangement for page in pages[split]}
        for name, found in (("words", words), ("arrangements", arrangements)):
            for other in seen.setdefault(name, []):
                assert not found & other, name
            seen[name].append(found)
        for page in pages[split]:  # accent and slides: each hue is in all splits, no pair in two
            red, green, blue = (int(page.color[place : place + 2], 16) for place in (1, 3, 5))
            accent = int(10 * colorsys.rgb_to_hls(red, green, blue)[0])
            assert (accent + 2 * (page.widgets[0].hue // 36)) % MODULUS in RESIDUES[split]
    with pytest.raises(ConfigError, match="'dev'"):
        draw_page("dev", np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"'slider'.*toggle"):
        draw_page("train", np.random.default_rng(0), ["slider"])


def test_every_split_has_every_kind_in_both_themes_and_the_same_seed_the_same_page(pages):
    for split in SPLITS:
        found = {(page.theme, each.kind) for page in pages[split] for each in page.widgets}
        assert found == {(theme, kind) for theme in THEMES for kind in KINDS}
        assert {len(page.widgets) for page in pages[split]} == {3, 4, 5}
        assert pages_of(split, 5) == pages[split][:5]
        assert json.loads(json.dumps(pages[split][0].to_dict()))["theme"] in THEMES


def test_a_state_is_one_that_the_page_can_show():
    page = page_of("range", "toggle", "stepper", values=(0, 1, 0))
    good = page.padded([4, 1, 4])
    np.testing.assert_array_equal(page.checked(good), [4, 1, 4, ABSENT, ABSENT])
    for wrong in ([4, 1, 3], [6, 1, 6], [4, 2, 4], [-1, 1, -1]):  # two values of one, out of range
        with pytest.raises(DataError, match="range0 toggle1 stepper0"):
            page.checked(page.padded(wrong))
    for wrong in (good[:3], good.astype(float)):
        with pytest.raises(DataError, match="integers of shape"):
            page.checked(wrong)
    assert page.distance(good, page.padded([4, 0, 4])) == 1
    assert page.distance(good, page.padded([1, 1, 1])) == 1  # widgets of one value count once
    assert page.distance(good, page.padded([1, 0, 1])) == 2
    assert page.distance(good, good) == 0


def test_a_goal_is_one_gesture_away_and_a_third_are_reached_in_several_ways():
    rng, several, kinds = np.random.default_rng(1), 0, Counter()
    for _ in range(600):
        problem = draw_problem("validation", rng)
        assert problem.page.distance(problem.state, problem.goal) == 1
        problem.page.checked(problem.goal)
        ways = ways_to(problem)
        assert ways
        several += len(ways) > 1
        kinds.update(problem.page.widgets[index].kind for index, _ in ways)
    assert 0.27 < several / 600 < 0.4
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_chain_needs_as_many_gestures_as_it_is_long_and_is_reached_by_them(length):
    rng = np.random.default_rng(length)
    for _ in range(20):
        page, state, goal = draw_chain("test", length, rng)
        assert page.distance(state, goal) == length  # one gesture changes one value
        values = np.array([each.value for each in page.widgets])

        def reach(now, page=page, goal=goal, values=values):
            """Whether some order of right gestures leads there."""
            if page.distance(now, goal) == 0:
                return True
            for value, number in moves(page, now):
                shown = np.flatnonzero(values == value)
                if number == goal[shown[0]] != now[shown[0]]:
                    after = now.copy()
                    after[shown] = number
                    if reach(after):
                        return True
            return False

        assert reach(state)
        np.testing.assert_array_equal(page.checked(goal), goal)


def test_the_ways_are_those_of_the_widgets():
    able = moves(page_of("range", "stepper", values=(0, 0)), [2, 2, -1, -1, -1])
    assert {goal: [index for index, _ in ways] for (_, goal), ways in able.items()} == {
        0: [0], 1: [0, 1], 3: [0, 1], 4: [0], 5: [0]
    }  # fmt: skip
    assert len(moves(page_of("swiper", bullets=True), [0, -1, -1, -1, -1])[0, 1]) == 2
    open_sheet = moves(page_of("toggle", "actions"), [0, 4, -1, -1, -1])
    assert {move: len(ways) for move, ways in open_sheet.items()} == {(1, 1): 2, (1, 2): 1}
    order = moves(page_of("sortable"), [ORDERS.index((0, 1, 2)), -1, -1, -1, -1])
    lengths = {ORDERS[goal]: len(ways) for (_, goal), ways in order.items()}
    assert lengths == {(1, 0, 2): 2, (0, 2, 1): 2, (1, 2, 0): 1, (2, 0, 1): 1}


def test_all_gestures_are_action_blocks():
    rng = np.random.default_rng(0)
    boxes = [[[10.0 * i, 40.0 * k, 60.0, 30.0] for i in range(4)] for k in range(MAX_WIDGETS)]
    for share in (0.0, 0.7, 1.0):
        for _ in range(60):
            page = draw_page("train", rng)
            action = mixed_action(page, draw_state(page, rng), boxes, share, rng)
            assert action.shape == (250, 3)
            assert action.dtype == np.float32
            assert set(np.unique(action[:, 2])) == {0.0, 1.0}
            assert action.min() >= 0
            assert action.max() <= 1
    problem = draw_problem("train", rng)
    index, way = ways_to(problem)[0]
    assert perform(way, boxes[index], rng)[:, 2].any()


def test_gestures_aim_at_the_kinds_that_are_asked_for():
    rng = np.random.default_rng(0)
    boxes = [[[8.0 + 96 * i, 40.0 * k + 8, 90.0, 30.0] for i in range(3)] for k in range(4)]
    page = page_of("toggle", "sortable", "checkbox")
    rows = set()
    for _ in range(40):
        action = mixed_action(page, [0, 0, 0, -1, -1], boxes, 1.0, rng, 0.0, ["sortable", "hold"])
        rows.update((320 * action[action[:, 2] > 0, 1] // 40).astype(int))
    assert rows == {1}  # the second widget's
    beneath = page_of("sortable", "actions")  # a list below an open sheet obeys nothing
    for _ in range(20):
        action = mixed_action(beneath, [0, 3, -1, -1, -1], boxes, 1.0, rng, 0.0, ["sortable"])
        assert action[:, 2].any()
    drawn = [draw_page("train", rng, ["sortable", "swiper"]) for _ in range(50)]
    assert all({"sortable", "swiper"} & {each.kind for each in page.widgets} for page in drawn)


def test_a_block_becomes_frames_with_the_finger_down():
    frames = list(frames_of(drag(0.25, 0.5, 0.75, 0.5, 10, 50)[0]))
    times = [time for time, _ in frames]
    assert times[0] == 20
    assert times[-1] == 120
    np.testing.assert_allclose(np.diff(times[:-1]), FRAME_MS)
    assert [touches[0][0] for _, touches in frames[:-1]] == ["touchStart"] + ["touchMove"] * 5
    assert frames[0][1] == [("touchStart", 80.0, 160.0)]
    assert frames[-1][1] == [("touchMove", 240.0, 160.0), ("touchEnd", 0.0, 0.0)]
    still = [touches for _, touches in frames_of(tap(0.5, 1.0, 0, 250)[0])]
    assert still[0] == [("touchStart", 160.0, 319.5)]
    assert [len(touches) for touches in still[1:]] == [0] * 29 + [1]  # the block's end lifts it
    twice = tap(0.5, 0.5, 0, 10)[0] + tap(0.5, 0.5, 20, 10)[0]
    assert len(list(frames_of(twice))) == 2 * len(list(frames_of(tap(0.5, 0.5, 0, 10)[0])))
    assert not list(frames_of(np.zeros((250, 3))))
    assert not list(frames_of(np.where([True, False, False], np.nan, tap(0.5, 0.5, 0, 9)[0])))
    for wrong in (np.zeros((3, 250)), np.full((250, 3), "a")):
        with pytest.raises(ActionError, match="250"):
            list(frames_of(wrong))


LOCKING = """
import os, sys
from vj2_ddim_benchmark.browser.chromium import _own_profile
profile, lock = _own_profile()
print(profile, flush=True)
sys.stdin.read()
"""


def test_only_profiles_whose_owner_is_gone_are_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    asked = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LOCKING], **asked) as owner:
        theirs = Path(owner.stdout.readline().decode().strip())
        own, locks = zip(*(chromium._own_profile() for _ in range(2)), strict=True)
        assert all(each.is_dir() for each in (theirs, *own))
        (theirs / "Default").mkdir()
        owner.kill()
    half_made, strange = tmp_path / f"{chromium.PROFILE}x", tmp_path / "vj2-ddim-browser-y"
    for folder in (half_made, strange):
        folder.mkdir()
    for lock in locks[:1]:
        os.close(lock)  # as when its owner ends
    made, last = chromium._own_profile()
    assert {half_made, strange, own[1], made} == set(tmp_path.iterdir())
    for lock in (locks[1], last):
        os.close(lock)


def test_a_profile_that_is_removed_before_it_is_locked_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make, made = tempfile.mkdtemp, []

    def removed(**how):
        made.append(make(**how))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", removed)
    profile, lock = chromium._own_profile()
    os.close(lock)
    assert [str(profile)] == made[1:]


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """An environment in which nothing is installed, and its folder."""
    monkeypatch.setenv("VJ2_DDIM_BROWSER", str(tmp_path / "chromium"))
    monkeypatch.setenv("VJ2_DDIM_BROWSER_KIT", str(tmp_path / "kit"))
    return tmp_path


def test_what_is_missing_is_said_with_the_command_that_installs_it(nothing):
    said = CliRunner().invoke(commands.app, ["doctor"])
    assert said.exit_code == 1
    words = " ".join(said.output.split())
    assert "apt-get install --yes --no-install-recommends chromium-headless-shell" in words
    assert f"framework7@{VERSION}" in words
    with pytest.raises(ConfigError, match="npm install"):
        BrowserTouchEnv()
    program = nothing / "chromium"
    program.write_text("")
    program.chmod(0o755)
    folder = nothing / "kit" / "node_modules" / "framework7"
    folder.mkdir(parents=True)
    manifest = folder / "package.json"
    for version, message in (("9.1.0", "9.1.0 in"), (VERSION, "lacks framework7-bundle")):
        manifest.write_text(json.dumps({"version": version}))
        with pytest.raises(ConfigError, match=message):
            Installation.find().require()
    for name in KIT_FILES:
        (folder / name).write_text("")
    assert Installation.find().require().missing() == {}
    assert CliRunner().invoke(commands.app, ["doctor"]).exit_code == 0


def test_bad_settings_are_refused():
    for name, value in (("split", "dev"), ("size", 8), ("scripted_share", 1.5), ("processes", 0)):
        with pytest.raises(ConfigError, match=name):
            BrowserCollectSettings(**{name: value})
    for wrong in ({"render_mode": "human"}, {"split": "dev"}):
        with pytest.raises(ConfigError, match=next(iter(wrong.values()))):
            BrowserTouchEnv(**wrong)
