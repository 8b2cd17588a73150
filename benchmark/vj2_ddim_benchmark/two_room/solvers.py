"""The host's solvers at its defaults, what their tuning tries, and ours.

A default is the constructor's, or, where it has none, the one of the host's configuration files
(gradient descent: 30 steps of SGD at a learning rate of 1). Every solver works on one environment
at a time, the host's own default.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.protocol.statistics import wilson_interval
from vj2_ddim_benchmark.two_room.evaluation import EvaluationSettings, Outcome, Problems, evaluate
from vj2_ddim_benchmark.two_room.lewm import WorldModel
from vj2_ddim_benchmark.two_room.stable_worldmodel import import_stable_worldmodel
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.files import write_json

__all__ = ["OURS", "PUBLISHED_SOLVERS", "Chosen", "PublishedSolver", "Report", "Row"]
__all__ += ["best_settings", "build_ours", "build_published", "read_rows", "row_of", "summary_of"]
__all__ += ["tune"]

Chosen = dict[str, Any]  # settings of a solver, by the names of its constructor
Row = dict[str, Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class PublishedSolver:
    """One of the host's solvers; tuning tries every combination of the values of `space`."""

    name: str  # its class in `stable_worldmodel.solver`
    defaults: Chosen  # what its constructor asks for, or what names the variant
    space: Mapping[str, tuple[Any, ...]]

    def candidates(self) -> list[Chosen]:
        """The settings that tuning tries."""
        return [
            dict(zip(self.space, values, strict=True))
            for values in itertools.product(*self.space.values())
        ]


BUDGETS = ((300, 30), (300, 10), (100, 10))  # num_samples, n_steps; the first is the default

PUBLISHED_SOLVERS = {
    "gradient, 1 sample": PublishedSolver(
        "GradientSolver",
        {"n_steps": 30, "num_samples": 1},
        {"optimizer": ("SGD", "Adam"), "lr": (0.03, 0.1, 0.3, 1.0, 3.0)},
    ),
    "gradient, 100 samples": PublishedSolver(
        "GradientSolver",
        {"n_steps": 30, "num_samples": 100},
        {"optimizer": ("SGD", "Adam"), "lr": (0.1, 0.3, 1.0), "n_steps": (10, 30)},
    ),
    "CEM": PublishedSolver(
        "CEMSolver", {}, {"budget": BUDGETS, "topk": (10, 30), "var_scale": (1.0, 2.0)}
    ),
    "iCEM": PublishedSolver(
        "ICEMSolver", {}, {"budget": BUDGETS[:2], "topk": (10, 30), "noise_beta": (0.5, 2.0)}
    ),
    "MPPI": PublishedSolver(
        "MPPISolver", {}, {"budget": BUDGETS[:2], "temperature": (0.05, 0.5, 5.0, 20.0, 80.0)}
    ),
}

OURS: dict[str, Chosen] = {
    "ours, 16 candidates": {"num_candidates": 16},
    "ours, 16 candidates, 4 steps": {"num_candidates": 16, "num_inference_steps": 4},
    "ours, 1 sample": {"num_candidates": 1, "ranked": False},
}


def build_published(kind: PublishedSolver, settings: Chosen, world_model: WorldModel) -> Any:  # noqa: ANN401
    """A solver of the host, with its defaults where `settings` names nothing else.

    `optimizer` and `lr` are put together, `budget` is `(num_samples, n_steps)`.
    """
    chosen: Chosen = {"batch_size": 1, **kind.defaults, **settings}
    if "budget" in chosen:
        chosen["num_samples"], chosen["n_steps"] = chosen.pop("budget")
    if "optimizer" in chosen:
        chosen["optimizer_cls"] = getattr(torch.optim, chosen.pop("optimizer"))
        chosen["optimizer_kwargs"] = {"lr": chosen.pop("lr")}
    return getattr(import_stable_worldmodel("solver"), kind.name)(world_model.model, **chosen)


def build_ours(bundle: Path, settings: Chosen, world_model: WorldModel) -> StableWorldModelSolver:
    """Our solver, on the CPU with as many threads as torch has."""
    threads = torch.get_num_threads()
    return StableWorldModelSolver(
        bundle, world_model.model, provider="cpu", num_threads=threads, **settings
    )


def tune(
    path: Path,
    world_model: WorldModel,
    problems: Problems,
    settings: EvaluationSettings,
    report: Report = lambda line: None,
) -> None:
    """Evaluate every setting of every solver's space that has no row in `path` yet."""
    for name, kind in PUBLISHED_SOLVERS.items():
        for candidate in kind.candidates():
            rows, plain = read_rows(path), json.loads(json.dumps(candidate))
            if any((row["solver"], row["settings"]) == (name, plain) for row in rows):
                continue
            solver = build_published(kind, candidate, world_model)
            row = row_of(name, candidate, evaluate(solver, world_model, problems, settings))
            write_json(path, [*rows, row])
            report(f"{name} {candidate}: {summary_of(row)}")


def read_rows(path: Path) -> list[Row]:
    """The rows written so far."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def row_of(name: str, settings: Chosen, outcome: Outcome) -> Row:
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


def best_settings(rows: list[Row], name: str) -> Chosen:
    """The settings of highest success; of equal ones, the fastest."""
    tried = [row for row in rows if row["solver"] == name]
    best = max(tried, key=lambda row: (row["success"], -row["median_plan_s"]))
    chosen: Chosen = best["settings"]
    return chosen
