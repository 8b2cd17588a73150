"""Tune the host's solvers on validation episodes; every row is written as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.protocol.statistics import wilson_interval
from vj2_ddim_benchmark.two_room.evaluation import (
    EvaluationSettings,
    Outcome,
    Problems,
    evaluate,
)
from vj2_ddim_benchmark.two_room.lewm import WorldModel
from vj2_ddim_benchmark.two_room.solvers import HOST_SOLVERS, Settings, build_host_solver
from vj2_ddim_plugin.files import write_json

__all__ = ["Row", "best_settings", "read_rows", "row_of", "summary_of", "tune"]

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows written so far."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def row_of(name: str, settings: Settings, outcome: Outcome) -> Row:
    """What one evaluation measured, as plain values."""
    successes, seconds = outcome.successes, np.array(outcome.plan_seconds)
    return {
        "solver": name,
        "settings": json.loads(json.dumps(settings)),
        "num_problems": len(successes),
        "success": float(np.mean(successes)),
        "wilson_95": list(wilson_interval(sum(successes), len(successes))),
        "num_plans": len(seconds),
        "median_plan_s": float(np.median(seconds)),
        "successes": [int(success) for success in successes],
    }


def summary_of(row: Row) -> str:
    """One line about a row."""
    return f"{row['success']:.1%}, {1e3 * row['median_plan_s']:.1f} ms a plan"


def tune(
    path: Path,
    world_model: WorldModel,
    problems: Problems,
    settings: EvaluationSettings,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Evaluate every setting of every solver's space that has no row in `path` yet."""
    for name, kind in HOST_SOLVERS.items():
        for candidate in kind.candidates():
            rows, plain = read_rows(path), json.loads(json.dumps(candidate))
            if any((row["solver"], row["settings"]) == (name, plain) for row in rows):
                continue
            solver = build_host_solver(kind, candidate, world_model)
            row = row_of(name, candidate, evaluate(solver, world_model, problems, settings))
            write_json(path, [*rows, row])
            report(f"{name} {candidate}: {summary_of(row)}")


def best_settings(rows: list[Row], name: str) -> Settings:
    """The settings of highest success; of equal ones, the fastest."""
    tried = [row for row in rows if row["solver"] == name]
    best = max(tried, key=lambda row: (row["success"], -row["median_plan_s"]))
    chosen: Settings = best["settings"]
    return chosen
