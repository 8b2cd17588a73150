"""Raw results come back from disk, are repaired after a crash, and belong to one setup."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
from builders.race import CHAIN, CHAINS, PLAN, RECORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.race.records import (
    ChainRecord,
    Record,
    from_stroke,
    read_records,
    record_log,
    to_stroke,
)
from vj2_ddim_benchmark.report.page import rebuild_report
from vj2_ddim_benchmark.world.touch import drag
from vj2_ddim_plugin.errors import ConfigError, DataError

KINDS = pytest.mark.parametrize(("kind", "records"), [(Record, RECORDS), (ChainRecord, CHAINS)])


@KINDS
def test_lines_come_back_and_one_cut_short_is_written_over(tmp_path, kind, records):
    path = tmp_path / "run" / "results.jsonl"
    with record_log(path, kind) as log:
        log.append(records[0])
        assert log.records == records[:1]
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"planner": "é')
    with pytest.raises(DataError, match="line 2: cut short"):
        read_records(path, kind)
    with record_log(path, kind) as log:
        assert log.records == records[:1]
        for record in records[1:]:
            log.append(record)
        assert log.records == records
    assert read_records(path, kind) == records
    assert [file.name for file in path.parent.iterdir()] == ["results.jsonl"]
    with pytest.raises(DataError, match="no such file"):
        read_records(tmp_path / "other.jsonl", kind)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="found a named pipe"):
        read_records(tmp_path / "pipe.jsonl", kind)
    with pytest.raises(DataError, match="a named pipe"), record_log(tmp_path / "pipe.jsonl", kind):
        pass


@pytest.mark.parametrize("line", ["garbage", "{}", '{"planner": "ddim"}', "3", "[" * 99_999])
def test_another_line_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="line 1"):
        read_records(path, Record)


@pytest.mark.parametrize(
    "change",
    [{"wall_ms": 3.0}, {"states": [[1, "2"]]}, {"success": 1}, {"extra": 1}, {"length": None}],
)
def test_a_line_with_another_field_or_type_is_named(tmp_path, change):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(asdict(CHAIN) | each) + "\n" for each in ({}, change)))
    with pytest.raises(DataError, match="line 2"):
        read_records(path, ChainRecord)
    with pytest.raises(DataError, match="line 2"), record_log(path, ChainRecord):
        pass
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with record_log(path, ChainRecord) as log:  # what was refused did not stay locked
        assert log.records == [CHAIN]


@KINDS
def test_two_runs_cannot_write_one_file(tmp_path, kind, records):
    path = tmp_path / "results.jsonl"
    with record_log(path, kind) as log:
        log.append(records[0])
        with pytest.raises(ConfigError, match="is in use by"), record_log(path, kind):
            pass
    with record_log(path, kind) as log:
        assert log.records == records[:1]
    line = asdict(records[0])
    del line["workers"]  # results of before they were noted are of one
    path.write_text(json.dumps(line) + "\n")
    assert read_records(path, kind) == records[:1]


@pytest.mark.parametrize(
    ("budget", "wall", "late"),
    [(10.0, 12.0, False), (10.0, 12.1, True), (500.0, 550.0, False), (500.0, 551.0, True),
     (None, 1e9, False)],
)  # fmt: skip
def test_a_late_plan_is_a_failure_but_not_by_the_noise_of_the_clock(budget, wall, late):
    record = replace(PLAN, budget_ms=budget, wall_ms=wall)
    assert (record.late, record.solved) == (late, not late)
    assert not replace(record, success=False).solved
    chain = replace(CHAIN, budget_ms=budget, wall_ms=[0.1, wall])  # one late plan spoils it
    assert (chain.late, chain.solved) == (late, not late)


def test_a_folder_belongs_to_one_setup(tmp_path):
    run = RaceFolder(tmp_path / "run")
    run.claim({"seed": 0, "split": None}, {"date": 1})
    run.claim({"seed": 0, "split": None}, {"date": 2})
    assert json.loads(run.setup.read_text())["noted"] == {"date": 2}
    with pytest.raises(ConfigError, match="its seed is 0, here it is 1"):
        run.claim({"seed": 1, "budget_ms": None}, {})
    run.setup.write_text("[]")
    with pytest.raises(DataError, match=r"run\.json"):
        run.claim({"seed": 0}, {})


def test_what_died_before_its_first_result_is_no_part_of_the_report(tmp_path):
    with record_log(tmp_path / "results.jsonl", Record) as log:
        for record in RECORDS:
            log.append(record)
    for folder in ("chains", "studies/steps"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "results.jsonl").touch()
    rows = rebuild_report(tmp_path, tmp_path / "out")
    assert {row["task"] for row in rows} >= {"one-gesture"}
    assert not (tmp_path / "out" / "chains").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("results.jsonl", "", "missing or empty"),
        ("results.jsonl", "garbage\n", "line 1"),
        ("cold.json", "{", r"cold\.json: cannot be read as JSON"),
        ("cold.json", '{"ddim": 3}', "build_ms and first_plan_ms"),
        ("run.json", "[]", "expected a JSON object"),
        ("run.json", '{"seed": 0}', "under 'fixed' and 'noted'"),
    ],
)
def test_a_damaged_run_is_named_by_file_and_line(tmp_path, name, text, message):
    with record_log(tmp_path / "results.jsonl", Record) as log:
        log.append(PLAN)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        RaceFolder(tmp_path).read()


def test_a_plan_that_is_there_twice_is_refused(tmp_path):
    with record_log(tmp_path / "results.jsonl", Record) as log:
        for record in (*RECORDS, PLAN):
            log.append(record)
    with pytest.raises(DataError, match=r"line 9: ddim solves problem 0 a second time .*line 1"):
        RaceFolder(tmp_path).read()


unit = st.floats(0.0, 1.0, width=32)


@settings(max_examples=30, deadline=None)
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


def test_no_press_is_no_stroke_the_first_counts_and_steps_that_are_not_numbers_do_not():
    assert to_stroke(np.zeros((250, 3))) == []
    assert not from_stroke([]).any()
    with pytest.raises(DataError, match="eight numbers"):
        from_stroke([1.0, 2.0])
    for steps in ([np.nan, 5.0], [1.0, 1e9]):
        with pytest.raises(DataError, match="a stroke has eight numbers"):
            from_stroke([*steps, *[0.5] * 6])
    action = np.zeros((250, 3))
    action[10:20] = [0.25, 0.5, 1.0]
    action[40:60] = [0.75, 0.75, 1.0]
    action[9] = [np.nan, 0.5, 1.0]
    assert to_stroke(action) == [10.0, 10.0, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5]
