"""What is seen of a planner at work: its film, and that filming changes nothing."""

import io
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vj2_ddim_benchmark import browser_commands as commands
from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.browser import film, watch
from vj2_ddim_benchmark.browser.chromium import BrowserError
from vj2_ddim_benchmark.browser.kit import Installation
from vj2_ddim_benchmark.browser.oracle import draw_problem, perform, ways_to
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.settings import BrowserWatchSettings
from vj2_ddim_benchmark.world.touch import drag, tap
from vj2_ddim_plugin.errors import ConfigError

NONE = np.zeros((0, 250, 3), np.float32)
GREY = Image.new("RGB", (320, 320), (128, 128, 128))


def png_of(level):
    file = io.BytesIO()
    Image.new("RGB", (320, 320), (level, level, level)).save(file, "PNG")
    return file.getvalue()


class Filmed:
    """A session that shows one grey more a frame; a page's first touch is lost, two are needed."""

    def __init__(self, size):
        self.size, self.page, self.on_frame, self.ms = size, None, None, 0.0

    def show(self, page, state):
        if page is not self.page:
            self.page, self.goal, self.failed = page, state, False
        self.state, self.touches = state, 0
        return self._frame(16)

    def touch(self, action):
        assert action.shape == (250, 3)
        self._frame(100)
        if not self.failed:
            self.failed = True
            raise BrowserError("it died")
        self.touches += 1
        self.state = self.goal if self.touches == 2 else self.state
        return self._frame(700), self.state

    def close(self):
        self.page = None

    def _frame(self, ms):
        self.ms += ms
        self.on_frame(self.ms, png_of(int(self.ms / 100) % 200))
        bright = 200 if np.array_equal(self.state, self.goal) else 20
        return np.full((self.size, self.size, 3), bright, np.uint8)


@pytest.fixture
def filmed(monkeypatch):
    monkeypatch.setattr(watch, "Session", Filmed)
    monkeypatch.setattr(watch, "stop_distance", lambda *given: 1e-6)


def frames_of(path):
    """The pictures of a film and for how long each is shown."""
    with Image.open(path) as file:
        frames = []
        for index in range(file.n_frames):
            file.seek(index)
            file.load()  # else a WebP does not say for how long
            frames.append((np.asarray(file.convert("RGB")).astype(int), file.info["duration"]))
    return frames


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_a_film_shows_every_page_at_two_blocks_a_second_and_no_lost_touch(filmed, tmp_path, name):
    parts, path = shipped_assets(), tmp_path / name
    how = ["--goals", "2", "--gestures", "2", "--planner", "ddim-1", "--out", str(path)]
    ended = CliRunner().invoke(
        commands.app, ["watch", str(parts.bundle), str(parts.world_model), *how]
    )
    assert ended.exit_code == 0, ended.output
    assert "2 of 2 goals reached" in " ".join(ended.output.split())
    frames = frames_of(path)
    assert frames[0][0].shape == (372, 664, 3)
    touches = 2 * int(film.BLOCK_MS)
    assert sum(ms for _, ms in frames) == 2 * (watch.BEFORE_MS + touches + watch.AFTER_MS)
    assert frames[0][1] >= watch.BEFORE_MS
    assert frames[-1][1] >= watch.AFTER_MS
    assert path.stat().st_size < 400_000


def test_a_film_has_candidates_and_the_page_from_before_a_touch_to_its_rest(filmed, monkeypatch):
    parts, made = shipped_assets(), []
    how = BrowserWatchSettings(num_goals=1, num_gestures=1, size=160)

    class Kept(watch.Watched):
        def film(self, *given):
            made.append(self)
            return super().film(*given)

    monkeypatch.setattr(watch, "Watched", Kept)
    shots = []
    assert watch.watch_pages(parts.bundle, parts.world_model, how, shots.extend) == 1
    first, second = made[0].blocks
    assert len(shots) == 1 + 2 * 10 + 1
    assert shots[0].picture.size == (2 * 160 + 24, 160 + 52)
    for block in (first, second):
        assert block.candidates.shape == (16, 250, 3)
        assert (block.candidates == block.action).all(axis=(1, 2)).any()
        times = np.array([ms for ms, _ in block.frames])
        np.testing.assert_array_equal(times - times[0], [0, 100, 800])
    assert second.frames[0] == first.frames[-1]
    page = np.s_[26 + 150, 8 + 150]  # a corner of the page, where nobody touched
    seen = [np.asarray(shot.picture)[page][0] for shot in shots[1:11]]
    levels = [int(np.asarray(film.page_picture(png, 1))[0, 0, 0]) for _, png in first.frames]
    assert seen == [levels[0]] + [levels[1]] * 8 + [levels[2]]


def marked(until_ms, action, candidates=NONE):
    """Where trails are, and where they are orange: the columns of each."""
    drawn = film.draw_trails(GREY, action, candidates, until_ms)
    pixels = np.asarray(drawn).astype(int)
    orange = (pixels[..., 0] - pixels[..., 2] > 120).any(axis=0)
    return np.flatnonzero((pixels != 128).any(axis=(0, 2))), np.flatnonzero(orange)


def test_a_trail_grows_with_a_finger_at_its_end_while_that_is_down():
    action = drag(0.1, 0.5, 0.9, 0.5, 50, 150)[0]  # 100 to 400 ms
    assert not len(marked(50, action)[0])
    ends = [marked(ms, action)[1].max() for ms in (150, 250, 350)]
    assert (np.diff(ends) > 60).all()
    down, up = marked(400, action)[0].max(), marked(500, action)[0].max()
    assert down - up > 3  # the finger is wider than its trail
    assert up == pytest.approx(0.9 * 320, abs=5)
    assert len(marked(500, tap(0.5, 0.5, 50, 20)[0])[1])


def test_other_candidates_are_faint_and_whole_from_the_beginning():
    others = np.concatenate([drag(0.1, 0.2, 0.9, 0.2, 50, 150), drag(np.nan, 0.2, 0.9, 0.2, 0, 9)])
    columns, orange = marked(0, tap(0.5, 0.5, 50, 20)[0], others)
    assert columns.min() < 0.15 * 320
    assert columns.max() > 0.85 * 320
    assert not len(orange)


def test_another_suffix_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match=r"\.gif.*found 'a.avi'"):
        film.checked_format(tmp_path / "a.avi")
    given = ["watch", "bundle", "model", "--out", str(tmp_path / "a.avi")]
    assert isinstance(CliRunner().invoke(commands.app, given).exception, ConfigError)


def test_a_film_is_played_in_a_window_until_that_is_closed(monkeypatch):
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    with pytest.raises(ConfigError, match="no display"):
        film.Window()
    monkeypatch.setattr(plt.figure().canvas.__class__, "required_interactive_framework", "a fake")
    shown = []
    monkeypatch.setattr(plt, "pause", shown.append)
    window = film.Window()
    window.play([film.Shot(GREY, 50), film.Shot(GREY, 1500)])
    assert shown == [0.05, 1.5]
    plt.close("all")
    with pytest.raises(KeyboardInterrupt):
        window.play([film.Shot(GREY, 50)])


MISSING = Installation.find().missing()


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_who_films_changes_nothing_and_sees_what_the_planner_sees():
    problem = draw_problem("test", np.random.default_rng(0))
    index, way = ways_to(problem)[0]
    with closing(Session(64)) as session:

        def touched():
            before = session.show(problem.page, problem.state)
            action = perform(way, session.boxes()[index], np.random.default_rng(0))
            return before, *session.touch(action)

        expected, frames = touched(), []
        session.on_frame = lambda ms, png: frames.append((ms, png))
        found = touched()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.diff([ms for ms, _ in frames]) > 0).all()
    np.testing.assert_array_equal(np.asarray(film.page_picture(frames[-1][1], 64)), found[1])
