"""Rows, tables, intervals and paired tests by hand, from hand-made records of plans and chains."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders.race import CHAIN, CHAINS, PLAN, RECORDS, cells_of
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_benchmark.report.summary import mcnemar, summarise, summarise_chains, wilson_interval
from vj2_ddim_benchmark.report.tables import (
    against_table,
    budget_table,
    chain_table,
    evaluation_table,
    kind_table,
    matrix_table,
    pairs_of,
    study_table,
)
from vj2_ddim_benchmark.studies import STUDIES
from vj2_ddim_plugin.errors import DataError

KEYS = {
    "planner", "task", "budget_ms", "success", "success_low", "success_high", "p50_ms", "p95_ms",
    "cost_evaluations", "denoiser_evaluations", "n", "any_time_success", "any_time_success_low",
    "any_time_success_high", "late", "final_cost", "success_before_projection", "build_ms",
    "first_plan_ms", "cold_ms",
}  # fmt: skip


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
    assert all(set(each) == KEYS for each in rows.values())
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


def test_rows_of_chains_by_hand():
    rows = {(row["planner"], row["task"]): row for row in summarise_chains(CHAINS)}
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


def test_nothing_cannot_be_summarised():
    with pytest.raises(DataError, match="no results"):
        summarise([])
    with pytest.raises(DataError, match="no chains"):
        summarise_chains([])


def test_each_budget_has_rows_of_its_own_no_deadline_last():
    rows = summarise([PLAN, *(replace(PLAN, budget_ms=budget) for budget in (50.0, 10.0))])
    overall = [row for row in rows if row["task"] == "one-gesture"]
    assert [(row["budget_ms"], row["n"]) for row in overall] == [(10.0, 1), (50.0, 1), (None, 1)]


def test_what_was_late_fails_but_not_at_any_time():
    row = summarise([replace(PLAN, budget_ms=7.0)])[0]
    assert (row["success"], row["any_time_success"], row["late"]) == (0.0, 1.0, 1.0)
    row = summarise_chains([replace(CHAIN, budget_ms=10.0)])[0]
    assert (row["success"], row["any_time_success"], row["late"]) == (0.0, 1.0, 1.0)


def test_late_plans_lose_their_pairs():
    late = [replace(PLAN, problem=i, budget_ms=10.0, wall_ms=30.0) for i in range(3)]
    ours = [replace(record, planner="ours", wall_ms=9.0) for record in late]
    (pair,) = pairs_of([*ours, *late], "ours")
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
    assert list(heads) == ["planner", "a (2)", "b (1)", "c (2)", "multimodal (4)"]
    assert "one-gesture/multimodal" not in {
        row["task"] for row in summarise(records, multimodal=("d",))
    }


def test_one_table_shows_success_in_time_and_one_at_equal_evaluations():
    def plans(planner, budget, evaluations, success, wall_ms=5.0):
        changes = {"budget_ms": budget, "cost_evaluations": evaluations, "success": success}
        return replace(PLAN, planner=planner, wall_ms=wall_ms, **changes)

    rows = summarise(
        [
            plans("b", 10.0, 16, True, wall_ms=40.0),
            plans("b", 50.0, 16, True, wall_ms=40.0),
            plans("a", 10.0, 8, False),
            plans("a", 50.0, 40, True),
        ]
    )
    one, none = "100.0% (20.7 to 100.0)", "0.0% (0.0 to 79.3)"
    table = budget_table(rows)
    assert list(table.columns) == ["planner", "10 ms", "50 ms"]
    assert cells_of(table) == [("b", none, one), ("a", none, one)]  # b is late at 10 ms
    table = evaluation_table(rows, (0, 16, 64))
    assert cells_of(table) == [("b", "", one, one), ("a", "", none, one)]


def test_pairs_are_made_by_problem():
    """ddim alone solves 0, 2 and 3, gd alone solves 1: exact p = 2 * (1 + 4) / 16."""
    wanted = [("gd", "4", "3", "1", "0.62", "0.38")]
    assert cells_of(against_table(pairs_of(RECORDS, "ddim"))) == wanted
    shuffled = [RECORDS[i] for i in (7, 2, 0, 5, 3, 6, 1, 4)]
    assert cells_of(against_table(pairs_of(shuffled, "ddim"))) == wanted
    assert pairs_of(RECORDS[:4], "ddim") == []


def test_the_matrix_shows_every_pair_from_both_sides_and_marks_the_sure_ones():
    wins = [
        replace(PLAN, planner=name, problem=problem, success=name == "good")
        for name in ("good", "bad")
        for problem in range(12)
    ]
    table, marks = matrix_table(pairs_of(wins))
    assert list(table.columns) == ["", "1.", "2."]
    assert cells_of(table) == [
        ("1. good", "·", "12 : 0 (p 0.0005)"),
        ("2. bad", "0 : 12 (p 0.0005)", "·"),
    ]
    assert marks == {(0, 2): "ahead", (1, 1): "behind"}
    assert matrix_table(pairs_of(RECORDS))[1] == {}


def test_nothing_planned_has_no_time():
    row = summarise_chains([CHAINS[3]])[0]
    assert (row["p50_ms"], row["p95_ms"], row["chain_p50_ms"]) == (None, None, 0.0)
    assert cells_of(chain_table([row]))[0][4] == ""


def test_the_table_of_chains_has_a_row_a_planner_and_a_column_a_length():
    table = chain_table(summarise_chains(CHAINS))
    assert list(table.columns)[:4] == ["planner", "success", "of 2 (2)", "of 3 (2)"]
    first, second = cells_of(table)
    assert first[:2] == ("ddim", "50.0% (15.0 to 85.0)")
    assert second[3] == ""  # gd has no chain of 3
    assert first[4:] == ("25.0%", "1.75", "20.0", "40.0", "32")
    both = summarise_chains([CHAIN, replace(CHAIN, budget_ms=50.0)])
    assert list(chain_table(both)["planner"]) == ["ddim, 50 ms", "ddim, no deadline"]


def test_the_table_of_a_study_has_a_row_a_planner_and_a_column_a_value():
    records = [
        replace(PLAN, planner=f"{name}@{value}", success=value != "2", wall_ms=float(value))
        for name in ("b", "a")
        for value in ("10", "2")
        if (name, value) != ("a", "2")
    ]
    table = study_table(STUDIES["steps"], summarise(records))
    assert list(table.columns) == ["planner", "num_inference_steps = 2", "10"]
    assert cells_of(table) == [
        ("b", "0.0% (0.0 to 79.3), 2.0 ms", "100.0% (20.7 to 100.0), 10.0 ms"),
        ("a", "", "100.0% (20.7 to 100.0), 10.0 ms"),
    ]


Z = 1.959963984540054


def wilson_by_hand(k, n):
    p, z2 = k / n, Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return centre - half, centre + half


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_score_interval(counts):
    np.testing.assert_allclose(wilson_interval(*counts), wilson_by_hand(*counts), atol=1e-9)


def test_wilson_by_known_numbers():
    # 8 of 10 (Newcombe 1998's method 3, computed by hand): 0.4902 to 0.9433
    np.testing.assert_allclose(wilson_interval(8, 10), (0.4902, 0.9433), atol=1e-4)
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert high == pytest.approx(Z**2 / (20 + Z**2))


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(counts):
    with pytest.raises(DataError):
        wilson_interval(*counts)


def outcomes(both, only_first, only_second, neither):
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


def test_mcnemar_by_hand():
    test = mcnemar(*outcomes(3, 8, 2, 7))
    # of 10 discordant pairs, 2 or fewer one way: (1 + 10 + 45) / 1024, twice; mid: less 45 / 1024
    assert (test.only_first, test.only_second) == (8, 2)
    assert test.exact_p == pytest.approx(112 / 1024)
    assert test.mid_p == pytest.approx((112 - 45) / 1024)


def test_mcnemar_of_equal_planners():
    for counts in [(5, 0, 0, 5), (1, 3, 3, 1)]:
        test = mcnemar(*outcomes(*counts))
        assert test.exact_p == pytest.approx(1.0)
        assert test.mid_p == pytest.approx(1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_symmetric_and_the_mid_p_is_smaller(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    forth, back = mcnemar(first, second), mcnemar(second, first)
    assert (forth.only_first, forth.only_second) == (back.only_second, back.only_first)
    assert forth.exact_p == pytest.approx(back.exact_p)
    assert 0 < forth.mid_p <= forth.exact_p + 1e-12 <= 1.0 + 1e-9


def test_mcnemar_needs_pairs_of_booleans():
    with pytest.raises(DataError):
        mcnemar([True], [True, False])
    with pytest.raises(DataError):
        mcnemar([0.5], [True])
