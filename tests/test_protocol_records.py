"""Raw results, their summary and their report, from hand-made records."""

import json
from dataclasses import replace

import pytest

from vj2_ddim_benchmark.protocol.json_lines import JsonLines
from vj2_ddim_benchmark.protocol.pairs import against_table, all_pairs, matrix_table, pairs_against
from vj2_ddim_benchmark.protocol.records import Record, read_records
from vj2_ddim_benchmark.protocol.report import rich_table, write_report
from vj2_ddim_benchmark.protocol.setup import claim_folder
from vj2_ddim_benchmark.protocol.summary import summarise, write_summary
from vj2_ddim_benchmark.protocol.tables import budget_table, evaluation_table, kind_table
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
    "any_time_success",
    "any_time_success_low",
    "any_time_success_high",
    "late",
    "final_cost",
    "success_before_projection",
    "build_ms",
    "first_plan_ms",
    "cold_ms",
}


def test_records_come_back(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    assert read_records(path) == []
    with JsonLines(path, Record) as log:
        for record in RECORDS:
            log.append(record)
        assert log.records == RECORDS
    assert read_records(path) == RECORDS


def test_a_line_cut_short_is_dropped_and_written_over(tmp_path):
    path = tmp_path / "results.jsonl"
    with JsonLines(path, Record) as log:
        log.append(RECORDS[0])
    with path.open("a") as stream:
        stream.write('{"planner": "ddi')
    with JsonLines(path, Record) as log:
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
    with JsonLines(path, Record) as log:
        log.append(PLAN)
        with pytest.raises(ConfigError, match="another run"):
            JsonLines(path, Record)
    with JsonLines(path, Record) as log:
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


@pytest.mark.parametrize(
    ("budget", "wall", "late"),
    [(10.0, 12.0, False), (10.0, 12.1, True), (500.0, 550.0, False), (500.0, 551.0, True),
     (None, 1e9, False)],
)  # fmt: skip
def test_a_late_plan_is_a_failure_but_not_by_the_noise_of_the_clock(budget, wall, late):
    record = replace(PLAN, budget_ms=budget, wall_ms=wall)
    assert (record.late, record.solved) == (late, not late)
    assert not replace(record, success=False).solved
    row = summarise([record])[0]
    assert (row["success"], row["any_time_success"], row["late"]) == (1 - late, 1, late)


def test_late_plans_lose_their_pairs():
    late = [replace(PLAN, problem=i, budget_ms=10.0, wall_ms=30.0) for i in range(3)]
    ours = [replace(record, planner="ours", wall_ms=9.0) for record in late]
    (pair,) = pairs_against([*ours, *late], "ours")
    assert (pair.test.only_first, pair.test.only_second) == (3, 0)


def test_multimodal_kinds_are_a_task_of_their_own():
    records = [
        replace(PLAN, problem=i, kind=kind, success=success)
        for i, (kind, success) in enumerate(
            [("a", True), ("a", False), ("b", True), ("c", True), ("c", True)]
        )
    ]
    tasks = {row["task"]: row for row in summarise(records, multimodal=("a", "c", "d"))}
    assert tasks["one-gesture/multimodal"]["n"] == 4
    assert tasks["one-gesture/multimodal"]["success"] == 0.75
    assert list(tasks)[-1] == "one-gesture/multimodal"
    heads = kind_table(list(tasks.values())).columns
    assert heads == ("planner", "a (2)", "b (1)", "c (2)", "multimodal (4)")
    assert "one-gesture/multimodal" not in {
        row["task"] for row in summarise(records, multimodal=("d",))
    }


def test_one_table_shows_success_in_time_and_one_at_equal_evaluations():
    def plans(planner, budget, evaluations, success, wall_ms=5.0):
        changes = {"budget_ms": budget, "cost_evaluations": evaluations, "success": success}
        return replace(PLAN, planner=planner, wall_ms=wall_ms, **changes)

    rows = summarise(
        [
            plans("a", 10.0, 8, False),
            plans("a", 50.0, 40, True),
            plans("b", 10.0, 16, True, wall_ms=40.0),
            plans("b", 50.0, 16, True, wall_ms=40.0),
        ]
    )
    one, none = "100.0% (20.7 to 100.0)", "0.0% (0.0 to 79.3)"
    table = budget_table(rows)
    assert table.columns == ("planner", "10 ms", "50 ms")
    assert table.rows == (("a", none, one), ("b", none, one))  # b is late at 10 ms
    table = evaluation_table(rows, (0, 16, 64))
    assert table.rows == (("a", "", none, one), ("b", "", one, one))


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
    claim_folder(tmp_path / "run", {"seed": 0, "split": None}, {"date": 1})
    claim_folder(tmp_path / "run", {"seed": 0, "split": None}, {"date": 2})
    assert json.loads((tmp_path / "run" / "run.json").read_text())["noted"] == {"date": 2}
    with pytest.raises(ConfigError, match="its seed is 0, here it is 1"):
        claim_folder(tmp_path / "run", {"seed": 1, "budget_ms": None}, {})
    (tmp_path / "run" / "run.json").write_text("[]")
    with pytest.raises(DataError, match=r"run\.json"):
        claim_folder(tmp_path / "run", {"seed": 0}, {})
