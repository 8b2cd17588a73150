"""From raw results of chains to the rows of `chains/summary.json`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vj2_ddim_benchmark.chains.records import ChainRecord
from vj2_ddim_benchmark.protocol.statistics import percentile, wilson_interval
from vj2_ddim_benchmark.protocol.summary import Row
from vj2_ddim_plugin.errors import DataError

__all__ = ["TASK", "summarise_chains"]

TASK = "chain"


def summarise_chains(records: Sequence[ChainRecord]) -> list[Row]:
    """Rows for all chains, and for those of each length.

    Args:
        records: Raw results.

    Returns:
        Rows, planners in order of appearance, with the keys `planner`, `task` (`chain` or
        `chain/LENGTH`), `budget_ms` (of each plan, or None), `success` with its Wilson 95 %
        interval `success_low` to `success_high`, where a chain with a late plan is a failure, the
        same three of `any_time_success`, where it is not, `late` (the share of such chains),
        `wrong_stops` (the share in which the host stopped and the goal was not reached), `gestures`
        (mean), `state_distance` (mean, in the end), `p50_ms` and `p95_ms` of all plans,
        `chain_p50_ms` (of the planning time of a whole chain), `cost_evaluations` and
        `denoiser_evaluations` (means a chain), `n`. Times are None where nothing was planned.

    Raises:
        DataError: There are no records.
    """
    if not records:
        raise DataError("there are no chains to summarise; run the benchmark first")
    planners = list(dict.fromkeys(record.planner for record in records))
    budgets = sorted({record.budget_ms for record in records}, key=lambda b: (b is None, b or 0.0))
    lengths = sorted({record.length for record in records})
    tasks = {TASK: lengths, **{f"{TASK}/{length}": [length] for length in lengths}}
    rows = []
    for task, members in tasks.items():
        for planner in planners:
            for budget in budgets:
                chosen = [
                    record
                    for record in records
                    if record.length in members and (record.planner, record.budget_ms)
                    == (planner, budget)
                ]  # fmt: skip
                if chosen:
                    rows.append(_row(planner, task, chosen))
    return rows


def _row(planner: str, task: str, records: Sequence[ChainRecord]) -> Row:
    plans = [wall_ms for record in records for wall_ms in record.wall_ms]
    return {
        "planner": planner,
        "task": task,
        "budget_ms": records[0].budget_ms,
        **_share("success", [record.solved for record in records]),
        **_share("any_time_success", [record.success for record in records]),
        "late": float(np.mean([record.late for record in records])),
        "wrong_stops": float(np.mean([r.stopped and not r.success for r in records])),
        "gestures": float(np.mean([record.num_gestures for record in records])),
        "state_distance": float(np.mean([record.state_distance for record in records])),
        "p50_ms": percentile(plans, 50) if plans else None,
        "p95_ms": percentile(plans, 95) if plans else None,
        "chain_p50_ms": percentile([sum(record.wall_ms) for record in records], 50),
        "cost_evaluations": float(np.mean([record.cost_evaluations for record in records])),
        "denoiser_evaluations": float(np.mean([r.denoiser_evaluations for r in records])),
        "n": len(records),
    }


def _share(name: str, outcomes: Sequence[bool]) -> Row:
    low, high = wilson_interval(sum(outcomes), len(outcomes))
    return {name: sum(outcomes) / len(outcomes), f"{name}_low": low, f"{name}_high": high}
