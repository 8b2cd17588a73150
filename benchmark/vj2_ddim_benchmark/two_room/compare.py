"""Our solver, and the host's as they come and as tuned, on the same test episodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from vj2_ddim_benchmark.protocol.statistics import mcnemar
from vj2_ddim_benchmark.two_room.evaluation import (
    EvaluationSettings,
    Problems,
    evaluate,
    plan_config,
)
from vj2_ddim_benchmark.two_room.lewm import WorldModel
from vj2_ddim_benchmark.two_room.solvers import (
    HOST_SOLVERS,
    OURS,
    Settings,
    build_host_solver,
    build_ours,
)
from vj2_ddim_benchmark.two_room.timing import gather_infos, time_in_turns
from vj2_ddim_benchmark.two_room.tuning import Row, best_settings, read_rows, row_of, summary_of
from vj2_ddim_plugin.files import write_json

__all__ = ["Contest", "compare", "verdict"]

Report = Callable[[str], None]
NUM_TIMED = 10  # problems


@dataclass(frozen=True)
class Contest:
    """What all solvers share.

    Attributes:
        folder: Holds `tuning.json`; `compared.json` and `timing.json` are written there.
        bundle: Ours.
        world_model: The cost of all.
        problems: Of the test recording.
        settings: The protocol.
    """

    folder: Path
    bundle: Path
    world_model: WorldModel
    problems: Problems
    settings: EvaluationSettings

    def entries(self) -> list[tuple[str, str, Settings]]:
        """Solver, variant (`ours`, `default`, `tuned`) and settings."""
        tuned = read_rows(self.folder / "tuning.json")
        entries = [(name, "ours", settings) for name, settings in OURS.items()]
        for name in HOST_SOLVERS:
            entries += [(name, "tuned", best_settings(tuned, name)), (name, "default", {})]
        return entries

    def build(self, name: str, settings: Settings) -> Any:  # noqa: ANN401
        """The solver of an entry."""
        if name in OURS:
            threads = torch.get_num_threads()
            return build_ours(self.bundle, settings, self.world_model, threads)
        return build_host_solver(HOST_SOLVERS[name], settings, self.world_model)


def compare(contest: Contest, report: Report = lambda line: None, rounds: int = 20) -> list[Row]:
    """Evaluate all, then time all in turns.

    Args:
        contest: What is compared.
        report: Told about each solver.
        rounds: Timed plans of each solver.

    Returns:
        The rows.
    """
    path = contest.folder / "compared.json"
    entries = contest.entries()
    for name, variant, settings in entries:
        rows, plain = read_rows(path), json.loads(json.dumps(settings))
        if any(_is_of(row, name, variant, plain) for row in rows):
            continue
        outcome = evaluate(
            contest.build(name, settings), contest.world_model, contest.problems, contest.settings
        )
        row = {"variant": variant, **row_of(name, settings, outcome)}
        rows = [row for row in rows if (row["solver"], row["variant"]) != (name, variant)]
        write_json(path, [*rows, row])
        report(f"{name}, {variant}: {summary_of(row)}")
    seconds, rows = _times(contest, rounds), read_rows(path)
    for row in rows:
        taken = seconds[f"{row['solver']}, {row['variant']}"]
        row["median_plan_s"] = float(np.median(taken))
        row["p95_plan_s"] = float(np.quantile(taken, 0.95))
    return rows


def _is_of(row: Row, name: str, variant: str, settings: Settings) -> bool:
    found = row["solver"], row["variant"], row["settings"]
    return found == (name, variant, settings)


def _times(contest: Contest, rounds: int) -> dict[str, list[float]]:
    """Planning times in turns, from `timing.json` if they are there for these settings."""
    path = contest.folder / "timing.json"
    stored: dict[str, Any] = {}
    entries = json.loads(json.dumps(contest.entries()))
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
    if stored and stored["entries"] == entries:
        return dict(stored["seconds"])
    problems = Problems(
        contest.problems.recording,
        contest.problems.episodes[:NUM_TIMED],
        contest.problems.starts[:NUM_TIMED],
    )
    solvers = {
        f"{name}, {variant}": contest.build(name, settings) for name, variant, settings in entries
    }
    first, one = next(iter(solvers.values())), gym.spaces.Box(-1.0, 1.0, (1, 2), np.float32)
    infos = gather_infos(first, contest.world_model, problems, contest.settings)
    config = plan_config(contest.settings)
    for solver in solvers.values():
        solver.configure(action_space=one, n_envs=1, config=config)
    seconds = time_in_turns(solvers, infos, rounds)
    write_json(path, {"entries": entries, "seconds": seconds})
    return seconds


def verdict(rows: list[Row]) -> list[dict[str, Any]]:
    """Each of ours against the best of the host's, tuned or not: success, time, McNemar's test."""
    theirs = [row for row in rows if row["variant"] != "ours"]
    best = max(theirs, key=lambda row: (row["success"], -row["median_plan_s"]))
    found = []
    for row in rows:
        if row["variant"] == "ours":
            test = mcnemar(np.array(row["successes"], bool), np.array(best["successes"], bool))
            found.append(
                {
                    "ours": row["solver"],
                    "best_of_the_host": f"{best['solver']}, {best['variant']}",
                    "success_difference": row["success"] - best["success"],
                    "time_ratio": row["median_plan_s"] / best["median_plan_s"],
                    "mcnemar": asdict(test),
                }
            )
    return found
