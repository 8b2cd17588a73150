"""From raw results to the rows of `summary.json`, and the statistics in them.

Fagerland, Lydersen & Laake 2013, "The McNemar test for binary matched-pairs data" (mid-p).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, binomtest

from vj2_ddim_benchmark.race.records import ChainRecord, R, Record
from vj2_ddim_benchmark.race.tasks import Cold
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS
from vj2_ddim_plugin.errors import DataError

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
    """Rows for the whole task, for each kind of widget, and for all multimodal ones together."""
    if not records:
        raise DataError("there are no results to summarise; run the benchmark first")
    several = [kind for kind in sorted({r.kind for r in records}) if kind in multimodal]
    more: dict[Any, list[Any]] = {MULTIMODAL: several} if several else {}

    def figures(same: Sequence[Record]) -> Row:
        return _plan_figures(same, (cold or {}).get(same[0].planner, {}))

    return list(_rows(records, ONE_GESTURE, "kind", figures, more))


def summarise_chains(records: Sequence[ChainRecord]) -> list[Row]:
    """Rows for all chains, and for those of each length."""
    if not records:
        raise DataError("there are no chains to summarise; run the benchmark first")
    return list(_rows(records, CHAIN, "length", _chain_figures, {}))


def by_budget(records: Sequence[R]) -> dict[float | None, list[R]]:
    """The records under each budget: the smallest first, no deadline last."""
    budgets = sorted({record.budget_ms for record in records}, key=lambda b: (b is None, b or 0.0))
    return {budget: [r for r in records if r.budget_ms == budget] for budget in budgets}


def wilson_interval(num_successes: int, num: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a probability, from successes among independent trials."""
    if num < 1 or not 0 <= num_successes <= num:
        raise DataError(f"need 0 <= successes <= n and n >= 1; found {num_successes} of {num}")
    interval: Any = binomtest(num_successes, num).proportion_ci(0.95, method="wilson")
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


def _rows(
    records: Sequence[R], whole: str, attribute: str, figures: Callable[[Sequence[R]], Row],
    more: dict[Any, list[Any]],
) -> Iterator[Row]:  # fmt: skip
    """Rows of a task, then of each value of an attribute, then of `more` groups of values."""
    of = attrgetter(attribute)
    parts = sorted({of(record) for record in records})
    groups = {**{part: [part] for part in parts}, **more}
    tasks = {whole: parts} | {f"{whole}/{name}": members for name, members in groups.items()}
    for task, members in tasks.items():
        for planner in dict.fromkeys(record.planner for record in records):
            chosen = [r for r in records if r.planner == planner and of(r) in members]
            for budget_ms, same in by_budget(chosen).items():
                yield {
                    "planner": planner,
                    "task": task,
                    "budget_ms": budget_ms,
                    **_share("success", [record.solved for record in same]),
                    **_share("any_time_success", [record.success for record in same]),
                    "late": _mean(same, "late"),
                    **figures(same),
                    "cost_evaluations": _mean(same, "cost_evaluations"),
                    "denoiser_evaluations": _mean(same, "denoiser_evaluations"),
                    "n": len(same),
                }


def _plan_figures(records: Sequence[Record], cold: Mapping[str, float]) -> Row:
    known = None not in [record.success_before_projection for record in records]
    return {
        **_percentiles([record.wall_ms for record in records]),
        "final_cost": _mean(records, "final_cost"),
        "success_before_projection": (
            _mean(records, "success_before_projection") if known else None
        ),
        "build_ms": cold.get("build_ms"),
        "first_plan_ms": cold.get("first_plan_ms"),
        "cold_ms": sum(cold.values()) if cold else None,
    }


def _chain_figures(records: Sequence[ChainRecord]) -> Row:
    return {
        "wrong_stops": float(np.mean([r.stopped and not r.success for r in records])),
        "gestures": _mean(records, "num_gestures"),
        "state_distance": _mean(records, "state_distance"),
        **_percentiles([wall_ms for record in records for wall_ms in record.wall_ms]),
        "chain_p50_ms": float(np.percentile([sum(record.wall_ms) for record in records], 50)),
    }


def _percentiles(times: Sequence[float]) -> Row:
    return {f"p{q}_ms": float(np.percentile(times, q)) if times else None for q in (50, 95)}


def _mean(records: Sequence[R], attribute: str) -> float:
    return float(np.mean([getattr(record, attribute) for record in records]))


def _share(name: str, outcomes: Sequence[bool]) -> Row:
    low, high = wilson_interval(sum(outcomes), len(outcomes))
    return {name: sum(outcomes) / len(outcomes), f"{name}_low": low, f"{name}_high": high}
