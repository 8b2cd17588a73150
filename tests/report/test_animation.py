"""The animation of a chain: what it shows first and last, and that the finger moves."""

from dataclasses import replace

import numpy as np
import pytest
from builders.race import CHAIN
from builders.race import CHAINS as RECORDS
from PIL import Image

from vj2_ddim_benchmark.race.records import from_stroke, to_stroke
from vj2_ddim_benchmark.report.pictures import animate_chain, animate_record, telling_chain
from vj2_ddim_benchmark.world.problems import chain_problems
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_plugin.errors import DataError

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


def test_the_finger_moves(tmp_path):
    frames = np.full((2, 64, 64, 3), 90, np.uint8)
    action = drag(0.1, 0.5, 0.9, 0.5, 20, 60)
    animate_chain(tmp_path / "a.gif", frames, action, frames[0])
    finger = []
    for image in images_of(tmp_path / "a.gif")[1:-1]:
        red = (image[22:342, 8:328] - [235, 50, 50]).__abs__().sum(axis=-1) < 40
        finger.append(np.flatnonzero(red.any(axis=0)).mean())
    assert len(finger) == 8
    assert (np.diff(finger) > 0).all()
    assert finger[-1] == pytest.approx(0.9 * 320, abs=3)


def test_a_rest_is_shown_for_longer_than_a_move(tmp_path):
    frames = np.full((2, 64, 64, 3), 90, np.uint8)
    animate_chain(tmp_path / "a.gif", frames, drag(0.1, 0.5, 0.9, 0.5, 20, 60), frames[0])
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
    animate_chain(
        tmp_path / "chain.gif",
        frames,
        np.stack([from_stroke(stroke) for stroke in strokes]),
        CHAINS.goal.select(2).render()[0],
    )
    assert (tmp_path / "record.gif").read_bytes() == (tmp_path / "chain.gif").read_bytes()
    animate_record(tmp_path / "none.gif", CHAINS, replace(CHAIN, strokes=[], states=[]))
    assert len(images_of(tmp_path / "none.gif")) == 1


def test_what_cannot_be_animated_is_refused(tmp_path):
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    for num, goal in ((2, frames[0]), (1, frames[0][:32]), (40, frames[0])):
        with pytest.raises(DataError, match="m gestures"):
            animate_chain(tmp_path / "a.gif", frames, np.zeros((num, 250, 3)), goal)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_solved_chain_is_shown():
    assert telling_chain(RECORDS, "ddim") == RECORDS[1]
    assert telling_chain(RECORDS, "gd") == RECORDS[4]
    with pytest.raises(DataError, match="'other'"):
        telling_chain(RECORDS, "other")
