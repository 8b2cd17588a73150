"""What is kept of chains and shown of them: lines, strokes, rows, tables, the animation."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vj2_ddim_benchmark.chains.animation import animate_chain, animate_record, telling_chain
from vj2_ddim_benchmark.chains.records import ChainRecord
from vj2_ddim_benchmark.chains.strokes import from_stroke, to_stroke
from vj2_ddim_benchmark.chains.summary import summarise_chains
from vj2_ddim_benchmark.chains.tables import chain_section, chain_table, rich_chain_table
from vj2_ddim_benchmark.protocol.document import Document
from vj2_ddim_benchmark.protocol.json_lines import JsonLines, read_json_lines
from vj2_ddim_benchmark.protocol.markdown import to_markdown
from vj2_ddim_benchmark.world.chains import chain_problems
from vj2_ddim_benchmark.world.scripts import drag
from vj2_ddim_plugin.errors import ConfigError, DataError

CHAIN = ChainRecord(
    "ddim", 0, 2, True, True, 0.0, None, [10.0, 30.0], 32, 320, [0.5, 0.25, 0.0],
    [[3.0, 40.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], []], [[1, 2], [1, 3]],
)  # fmt: skip
RECORDS = [
    CHAIN,
    replace(CHAIN, problem=1, length=3, wall_ms=[20.0, 20.0, 20.0], strokes=[[]] * 3),
    replace(CHAIN, problem=2, length=3, success=False, state_distance=2.0),
    replace(CHAIN, problem=3, success=False, stopped=False, wall_ms=[], strokes=[], states=[]),
    replace(CHAIN, planner="gd", success=False, stopped=False, state_distance=1.0),
]


def test_lines_come_back_and_a_cut_one_is_written_over(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    with JsonLines(path, ChainRecord) as log:
        log.append(RECORDS[0])
    with path.open("a") as stream:
        stream.write('{"planner": "é')
    with pytest.raises(DataError, match="line 2: cut short"):
        read_json_lines(path, ChainRecord)
    with JsonLines(path, ChainRecord) as log:
        assert log.records == RECORDS[:1]
        for record in RECORDS[1:]:
            log.append(record)
    assert read_json_lines(path, ChainRecord) == RECORDS


@pytest.mark.parametrize(
    "change",
    [{"wall_ms": 3.0}, {"states": [[1, "2"]]}, {"success": 1}, {"extra": 1}, {"length": None}],
)
def test_a_line_that_is_no_record_is_named(tmp_path, change):
    path = tmp_path / "results.jsonl"
    good = json.dumps(CHAIN.__dict__)
    path.write_text(good + "\n" + json.dumps(CHAIN.__dict__ | change) + "\n")
    with pytest.raises(DataError, match="line 2"):
        read_json_lines(path, ChainRecord)
    with pytest.raises(DataError, match="line 2"):
        JsonLines(path, ChainRecord)
    with pytest.raises(DataError, match="no such file"):
        read_json_lines(tmp_path / "other.jsonl", ChainRecord)


def test_two_runs_cannot_write_one_file(tmp_path):
    pytest.importorskip("fcntl")
    with JsonLines(tmp_path / "a", ChainRecord), pytest.raises(ConfigError, match="another run"):
        JsonLines(tmp_path / "a", ChainRecord)


unit = st.floats(0.0, 1.0, width=32)


@given(points=st.tuples(*[unit] * 6), first=st.integers(0, 50), num=st.integers(1, 200))
def test_a_scripted_gesture_comes_back_from_its_stroke(points, first, num):
    x0, y0, x1, y1, via_x, via_y = points
    action = drag(x0, y0, x1, y1, first, num, via=(via_x, via_y))[0]
    stroke = to_stroke(action)
    assert stroke[:2] == [first, num]
    again = from_stroke(stroke)
    np.testing.assert_array_equal(again[:, 2], action[:, 2])
    # With an even number of steps none is at half time, and the bend is blunted by one step.
    blunt = 0.0 if num % 2 else 2.0 / max(num - 1, 1)
    np.testing.assert_allclose(again, action, atol=1e-5 + blunt)


def test_no_press_is_no_stroke():
    assert to_stroke(np.zeros((250, 3))) == []
    assert not from_stroke([]).any()
    with pytest.raises(DataError, match="eight numbers"):
        from_stroke([1.0, 2.0])


def test_the_first_press_counts_and_steps_that_are_not_numbers_do_not():
    action = np.zeros((250, 3))
    action[10:20] = [0.25, 0.5, 1.0]
    action[40:60] = [0.75, 0.75, 1.0]
    action[9] = [np.nan, 0.5, 1.0]
    assert to_stroke(action) == [10.0, 10.0, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5]


def test_rows_by_hand():
    rows = {(row["planner"], row["task"]): row for row in summarise_chains(RECORDS)}
    assert list(rows) == [
        ("ddim", "chain"), ("gd", "chain"), ("ddim", "chain/2"), ("gd", "chain/2"),
        ("ddim", "chain/3"),
    ]  # fmt: skip
    row = rows["ddim", "chain"]
    assert (row["success"], row["n"], row["wrong_stops"]) == (0.5, 4, 0.25)
    # Wilson for 2 of 4: (0.5 + z2/8 +- z sqrt(0.25/4 + z2/64)) / (1 + z2/4)
    assert (row["success_low"], row["success_high"]) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert row["gestures"] == (2 + 3 + 2 + 0) / 4
    assert row["state_distance"] == 0.5
    # Plans 10 30 20 20 20 10 30; whole chains 40 60 40 0.
    assert (row["p50_ms"], row["chain_p50_ms"]) == (20.0, 40.0)
    assert (row["cost_evaluations"], row["denoiser_evaluations"]) == (32.0, 320.0)
    assert rows["ddim", "chain/3"]["success"] == 0.5
    with pytest.raises(DataError, match="no chains"):
        summarise_chains([])


def test_late_chains_fail_but_not_at_any_time():
    (row, _) = summarise_chains([replace(CHAIN, budget_ms=10.0)])
    assert (row["success"], row["any_time_success"], row["late"]) == (0.0, 1.0, 1.0)


def test_nothing_planned_has_no_time():
    row = summarise_chains([RECORDS[3]])[0]
    assert (row["p50_ms"], row["p95_ms"], row["chain_p50_ms"]) == (None, None, 0.0)
    assert chain_table([row]).rows[0][4] == ""


def test_the_table_has_a_row_a_planner_and_a_column_a_length():
    rows = summarise_chains(RECORDS)
    table = chain_table(rows)
    assert table.columns[:4] == ("planner", "success", "of 2 (2)", "of 3 (2)")
    assert table.rows[0][:2] == ("ddim", "50.0% (15.0 to 85.0)")
    assert table.rows[1][3] == ""  # gd has no chain of 3
    assert table.rows[0][4:] == ("25.0%", "1.75", "20.0", "40.0", "32")
    page = to_markdown(Document("Page", (), (chain_section(rows),)), None)
    assert "| ddim | 50.0% (15.0 to 85.0) | 50.0% (9.5 to 90.5) |" in page
    assert list(rich_chain_table(rows).columns[0].cells) == ["ddim", "gd"]
    both = summarise_chains([CHAIN, replace(CHAIN, budget_ms=50.0)])
    assert [row[0] for row in chain_table(both).rows] == ["ddim, 50 ms", "ddim, no deadline"]


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
