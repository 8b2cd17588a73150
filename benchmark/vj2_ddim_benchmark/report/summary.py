"""From raw results to the rows of `summary.json`, and the statistics in them.

References: Wilson 1927 (the score interval); McNemar 1947; Fagerland, Lydersen & Laake 2013,
"The McNemar test for binary matched-pairs data" (why the mid-p).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, binomtest

from vj2_ddim_benchmark.race.folder import Cold
from vj2_ddim_benchmark.race.records import ChainRecord, R, Record
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import write_json

__all__ = [
    "CHAIN",
    "MULTIMODAL",
    "ONE_GESTURE",
    "PairedTest",
    "Row",
    "by_budget",
    "mcnemar",
    "percentile",
    "summarise",
    "summarise_chains",
    "wilson_interval",
    "write_summary",
]

ONE_GESTURE, CHAIN = "one-gesture", "chain"
MULTIMODAL = "multimodal"

Row = dict[str, Any]
"""A planner's figures on a task under a budget.

`planner`, `task` (`one-gesture`, `one-gesture/KIND`, `one-gesture/multimodal`, `chain` or
`chain/LENGTH`) and `budget_ms` (of a plan, or None) say whose. `success` and its Wilson 95 %
interval `success_low` to `success_high` count what was late as a failure, the same three of
`any_time_success` do not; `late` is the share of such results. `p50_ms` and `p95_ms` are of the
plans' times, `cost_evaluations` and `denoiser_evaluations` means, `n` the number of problems.

One gesture: `final_cost` (mean), `success_before_projection` (None where unknown), `build_ms` (of
the optimizer), `first_plan_ms` (its first plan, which is not in the percentiles) and `cold_ms`
(their sum; all three None where unknown).

Chains: `wrong_stops` (the share in which the host stopped and the goal was not reached),
`gestures`, `state_distance` in the end (means), `chain_p50_ms` (of the planning time of a whole
chain). Times are None where nothing was planned.
"""


def summarise(
    records: Sequence[Record],
    cold: Cold | None = None,
    multimodal: Sequence[str] = MULTIMODAL_KINDS,
) -> list[Row]:
    """Rows for the whole task, for each kind of widget, and for all multimodal ones together.

    `multimodal` are the kinds whose goals are reached by several different gestures.
    """
    if not records:
        raise DataError("there are no results to summarise; run the benchmark first")
    kinds = sorted({record.kind for record in records})
    tasks = {ONE_GESTURE: kinds, **{f"{ONE_GESTURE}/{kind}": [kind] for kind in kinds}}
    several = [kind for kind in kinds if kind in multimodal]
    if several:
        tasks[f"{ONE_GESTURE}/{MULTIMODAL}"] = several
    rows: list[Row] = []
    for task, members in tasks.items():
        for planner in _planners(records):
            chosen = [r for r in records if r.planner == planner and r.kind in members]
            times = (cold or {}).get(planner, {})
            rows += [_plan_row(planner, task, same, times) for same in by_budget(chosen).values()]
    return rows


def summarise_chains(records: Sequence[ChainRecord]) -> list[Row]:
    """Rows for all chains, and for those of each length."""
    if not records:
        raise DataError("there are no chains to summarise; run the benchmark first")
    lengths = sorted({record.length for record in records})
    tasks = {CHAIN: lengths, **{f"{CHAIN}/{length}": [length] for length in lengths}}
    rows: list[Row] = []
    for task, members in tasks.items():
        for planner in _planners(records):
            chosen = [r for r in records if r.planner == planner and r.length in members]
            rows += [_chain_row(planner, task, same) for same in by_budget(chosen).values()]
    return rows


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as JSON."""
    write_json(path, list(rows))


def by_budget(records: Sequence[R]) -> dict[float | None, list[R]]:
    """The records under each budget: the smallest first, no deadline last."""
    budgets = sorted({record.budget_ms for record in records}, key=lambda b: (b is None, b or 0.0))
    return {budget: [r for r in records if r.budget_ms == budget] for budget in budgets}


def wilson_interval(num_successes: int, num: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a probability, from successes among independent trials."""
    if num < 1 or not 0 <= num_successes <= num:
        raise DataError(f"need 0 <= successes <= n and n >= 1; found {num_successes} of {num}")
    interval: Any = binomtest(num_successes, num).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class PairedTest:
    """McNemar's test of two planners on the same problems."""

    only_first: int  # problems that only the first one solved
    only_second: int
    exact_p: float  # two-sided
    mid_p: float  # twice the one-sided mid-p, at most 1; less conservative


def mcnemar(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Compare the successes `[n]` of two planners, problem by problem."""
    ours, theirs = np.asarray(first), np.asarray(second)
    kinds = {ours.dtype, theirs.dtype}
    if ours.shape != theirs.shape or ours.ndim != 1 or kinds != {np.dtype(bool)}:
        raise DataError(
            f"need two lists of booleans of equal length; found {ours.dtype} {ours.shape} and "
            f"{theirs.dtype} {theirs.shape}"
        )
    only_first, only_second = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    discordant = only_first + only_second
    if discordant == 0:
        return PairedTest(0, 0, 1.0, 1.0)
    fewer = min(only_first, only_second)
    exact = float(binomtest(fewer, discordant, 0.5).pvalue)
    mid = 2 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)
    return PairedTest(only_first, only_second, exact, min(1.0, float(mid)))


def percentile(values: ArrayLike, q: float) -> float:
    """The q-th percentile (0 to 100), linear between ranks."""
    array = np.asarray(values, float)
    if array.size == 0:
        raise DataError("need at least one value for a percentile; found none")
    return float(np.percentile(array, q))


def _planners(records: Sequence[R]) -> list[str]:
    return list(dict.fromkeys(record.planner for record in records))


def _plan_row(planner: str, task: str, records: Sequence[Record], cold: Mapping[str, float]) -> Row:
    before = [record.success_before_projection for record in records]
    times = [record.wall_ms for record in records]
    return {
        **_outcomes(planner, task, records),
        "p50_ms": percentile(times, 50),
        "p95_ms": percentile(times, 95),
        **_evaluations(records),
        "n": len(records),
        "final_cost": float(np.mean([record.final_cost for record in records])),
        "success_before_projection": (
            None if None in before else float(np.mean([bool(value) for value in before]))
        ),
        "build_ms": cold.get("build_ms"),
        "first_plan_ms": cold.get("first_plan_ms"),
        "cold_ms": sum(cold.values()) if cold else None,
    }


def _chain_row(planner: str, task: str, records: Sequence[ChainRecord]) -> Row:
    plans = [wall_ms for record in records for wall_ms in record.wall_ms]
    return {
        **_outcomes(planner, task, records),
        "wrong_stops": float(np.mean([r.stopped and not r.success for r in records])),
        "gestures": float(np.mean([record.num_gestures for record in records])),
        "state_distance": float(np.mean([record.state_distance for record in records])),
        "p50_ms": percentile(plans, 50) if plans else None,
        "p95_ms": percentile(plans, 95) if plans else None,
        "chain_p50_ms": percentile([sum(record.wall_ms) for record in records], 50),
        **_evaluations(records),
        "n": len(records),
    }


def _outcomes(planner: str, task: str, records: Sequence[R]) -> Row:
    return {
        "planner": planner,
        "task": task,
        "budget_ms": records[0].budget_ms,
        **_share("success", [record.solved for record in records]),
        **_share("any_time_success", [record.success for record in records]),
        "late": float(np.mean([record.late for record in records])),
    }


def _share(name: str, outcomes: Sequence[bool]) -> Row:
    low, high = wilson_interval(sum(outcomes), len(outcomes))
    return {name: sum(outcomes) / len(outcomes), f"{name}_low": low, f"{name}_high": high}


def _evaluations(records: Sequence[R]) -> Row:
    return {
        "cost_evaluations": float(np.mean([record.cost_evaluations for record in records])),
        "denoiser_evaluations": float(np.mean([r.denoiser_evaluations for r in records])),
    }
