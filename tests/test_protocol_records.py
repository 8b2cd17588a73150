"""Raw results, their summary and their report, from hand-made records."""

import json
from dataclasses import replace

import pytest

from vj2_ddim_benchmark.protocol.pairs import against_table, all_pairs, matrix_table, pairs_against
from vj2_ddim_benchmark.protocol.records import Record, RecordLog, read_records
from vj2_ddim_benchmark.protocol.report import rich_table, write_report
from vj2_ddim_benchmark.protocol.setup import claim_folder
from vj2_ddim_benchmark.protocol.summary import summarise, write_summary
from vj2_ddim_plugin.errors import ConfigError, DataError

PLAN = Record("ddim", 0, "switch", True, True, 0.5, 10.0, 16, 160, None, "finished", 0.0, "CPU")
RECORDS = [
    PLAN,
    replace(PLAN, problem=1, kind="keypad", success=False, final_cost=1.5, wall_ms=20.0),
    replace(PLAN, problem=2, wall_ms=30.0),
    replace(
        PLAN,
        problem=3,
        kind="keypad",
        wall_ms=40.0,
        success_before_projection=False,
        final_cost=2.0,
    ),
    *(
        replace(
            PLAN,
            planner="gd",
            problem=i,
            kind="keypad" if i % 2 else "switch",
            success=i == 1,
            success_before_projection=None,
        )
        for i in range(4)
    ),
]
KEYS = {
    "planner", "task", "budget_ms", "success", "success_low", "success_high", "p50_ms", "p95_ms",
    "cost_evaluations", "denoiser_evaluations", "n",
}  # fmt: skip
FURTHER_KEYS = {
    "final_cost",
    "success_before_projection",
    "build_ms",
    "first_plan_ms",
    "cold_ms",
}


def test_records_come_back(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    assert read_records(path) == []
    with RecordLog(path) as log:
        for record in RECORDS:
            log.append(record)
        assert log.records == RECORDS
    assert read_records(path) == RECORDS


def test_a_line_cut_short_is_dropped_and_written_over(tmp_path):
    path = tmp_path / "results.jsonl"
    with RecordLog(path) as log:
        log.append(RECORDS[0])
    with path.open("a") as stream:
        stream.write('{"planner": "ddi')
    with RecordLog(path) as log:
        assert log.records == RECORDS[:1]
        log.append(RECORDS[1])
    assert read_records(path) == RECORDS[:2]


@pytest.mark.parametrize("line", ["garbage", "{}", '{"planner": "ddim"}', "3"])
def test_another_line_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="line 1"):
        read_records(path)


def test_two_runs_cannot_write_one_file(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "results.jsonl"
    with RecordLog(path) as log:
        log.append(PLAN)
        with pytest.raises(ConfigError, match="another run"):
            RecordLog(path)
    with RecordLog(path) as log:
        assert log.records == [PLAN]


def test_rows_by_hand():
    cold = {"ddim": {"build_ms": 100.0, "first_plan_ms": 25.0}}
    rows = {(row["planner"], row["task"]): row for row in summarise(RECORDS, cold)}
    assert list(rows) == [
        ("ddim", "one-gesture"),
        ("gd", "one-gesture"),
        ("ddim", "one-gesture/keypad"),
        ("gd", "one-gesture/keypad"),
        ("ddim", "one-gesture/switch"),
        ("gd", "one-gesture/switch"),
    ]
    row = rows["ddim", "one-gesture"]
    assert all(set(each) == KEYS | FURTHER_KEYS for each in rows.values())
    assert row["success"] == 0.75
    # Wilson for 3 of 4, by hand: (0.75 + z2/8 +- z sqrt(0.1875/4 + z2/64)) / (1 + z2/4)
    assert (row["success_low"], row["success_high"]) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert (row["p50_ms"], row["p95_ms"]) == (25.0, pytest.approx(38.5))
    assert (row["cost_evaluations"], row["denoiser_evaluations"], row["n"]) == (16, 160, 4)
    assert row["budget_ms"] is None
    assert row["final_cost"] == pytest.approx((0.5 + 1.5 + 0.5 + 2.0) / 4)
    assert row["success_before_projection"] == 0.75
    assert row["cold_ms"] == 125.0
    assert rows["gd", "one-gesture"]["success_before_projection"] is None
    assert rows["gd", "one-gesture"]["cold_ms"] is None
    keypad = rows["ddim", "one-gesture/keypad"]
    assert (keypad["success"], keypad["n"], keypad["success_before_projection"]) == (0.5, 2, 0.5)


def test_nothing_cannot_be_summarised():
    with pytest.raises(DataError, match="no results"):
        summarise([])


def test_each_budget_has_rows_of_its_own_no_deadline_last():
    rows = summarise([PLAN, *(replace(PLAN, budget_ms=budget) for budget in (50.0, 10.0))])
    overall = [row for row in rows if row["task"] == "one-gesture"]
    assert [(row["budget_ms"], row["n"]) for row in overall] == [(10.0, 1), (50.0, 1), (None, 1)]


def test_the_summary_is_a_list_in_json(tmp_path):
    rows = summarise(RECORDS)
    write_summary(tmp_path / "summary.json", rows)
    assert json.loads((tmp_path / "summary.json").read_text()) == rows


def test_pairs_are_made_by_problem():
    """ddim alone solves 0, 2 and 3, gd alone solves 1: exact p = 2 * (1 + 4) / 16."""
    wanted = (("gd", "4", "3", "1", "0.62", "0.38"),)
    assert against_table(pairs_against(RECORDS, "ddim")).rows == wanted
    shuffled = [RECORDS[i] for i in (7, 2, 0, 5, 3, 6, 1, 4)]
    assert against_table(pairs_against(shuffled, "ddim")).rows == wanted
    assert pairs_against(RECORDS[:4], "ddim") == []


def test_the_matrix_shows_every_pair_from_both_sides_and_marks_the_sure_ones():
    wins = [
        replace(PLAN, planner=name, problem=problem, success=name == "good")
        for name in ("good", "bad")
        for problem in range(12)
    ]
    table = matrix_table(all_pairs(wins))
    assert table.columns == ("", "1.", "2.")
    assert table.rows[0] == ("1. good", "·", "12 : 0 (p 0.0005)")
    assert table.rows[1] == ("2. bad", "0 : 12 (p 0.0005)", "·")
    assert table.marks == {(0, 2): "ahead", (1, 1): "behind"}
    assert matrix_table(all_pairs(RECORDS)).marks == {}


def test_the_report_tells_the_figures_and_the_settings(tmp_path):
    rows = summarise(RECORDS)
    pictures = [tmp_path / "pictures" / "plans.png"]
    pictures[0].parent.mkdir()
    pictures[0].write_bytes(b"\x89PNG\r\n\x1a\n")
    write_report(tmp_path / "report.md", rows, RECORDS, {"tuned": {"gd": {"lr": 0.05}}}, pictures)
    text = (tmp_path / "report.md").read_text()
    assert "| ddim | 75.0% | 30.1% to 95.4% | 75.0% | 1.12 | 25.0 | 38.5 |" in text
    assert "| gd | 50.0% (9.5 to 90.5) | 0.0% (0.0 to 65.8) |" in text  # keypad, switch
    assert "| tuned.gd | lr = 0.05 |" in text
    assert "(pictures/plans.png)" in text
    table = rich_table(rows)
    assert table.row_count == 2
    assert list(table.columns[0].cells) == ["ddim", "gd"]


def test_a_folder_belongs_to_one_setup(tmp_path):
    claim_folder(tmp_path / "run", {"seed": 0, "budget_ms": None}, {"date": 1})
    claim_folder(tmp_path / "run", {"seed": 0, "budget_ms": None}, {"date": 2})
    assert json.loads((tmp_path / "run" / "run.json").read_text())["noted"] == {"date": 2}
    with pytest.raises(ConfigError, match="its seed is 0, here it is 1"):
        claim_folder(tmp_path / "run", {"seed": 1, "budget_ms": None}, {})
    (tmp_path / "run" / "run.json").write_text("[]")
    with pytest.raises(DataError, match=r"run\.json"):
        claim_folder(tmp_path / "run", {"seed": 0}, {})
