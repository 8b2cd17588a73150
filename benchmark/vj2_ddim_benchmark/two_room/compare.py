"""`vj2-ddim benchmark two-room`: our solver and stable-worldmodel's, in its world and evaluation.

Ours, and the host's as they come and as tuned, meet on the same test episodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import typer

from vj2_ddim_benchmark.protocol.setup import environment, use_threads
from vj2_ddim_benchmark.protocol.statistics import mcnemar
from vj2_ddim_benchmark.two_room.episodes import load_episodes, recording_path
from vj2_ddim_benchmark.two_room.evaluation import (
    EvaluationSettings,
    Problems,
    choose_problems,
    evaluate,
    gather_infos,
    plan_config,
    time_in_turns,
)
from vj2_ddim_benchmark.two_room.lewm import WorldModel, load_lewm, prediction_error
from vj2_ddim_benchmark.two_room.prepare import Preparation, prepare
from vj2_ddim_benchmark.two_room.solvers import (
    OURS,
    PUBLISHED_SOLVERS,
    Chosen,
    Report,
    Row,
    best_settings,
    build_ours,
    build_published,
    read_rows,
    row_of,
    summary_of,
    tune,
)
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.files import sha256_of, write_json
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["ComparisonSettings", "Contest", "compare", "markdown_table", "two_room", "verdict"]
__all__ += ["write_results"]

NUM_TIMED = 10  # problems
HEADINGS = ("solver", "settings", "success", "95 % interval", "median ms a plan", "p95 ms")


@dataclass(frozen=True)
class ComparisonSettings(Settings):
    """How much is compared."""

    num_problems: int = setting(100, "Test episodes.", low=1)
    num_validation: int = setting(20, "Validation episodes to tune on.", low=1)
    threads: int = setting(1, "Threads of torch and of ONNX Runtime alike.", low=1)


@options
def two_room(
    out: Annotated[
        Path, typer.Option(help="The comparison's folder; a run that was cut short resumes.")
    ],
    settings: ComparisonSettings,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything here.")
    ] = None,
) -> None:
    """Collect, train, tune and compare on TwoRoom; needs requirements-hosts.txt installed."""
    use_threads(settings.threads)
    what = Preparation()
    world_model, bundle = prepare(out, what, typer.echo)
    protocol = what.evaluation
    validation = choose_problems(
        recording_path(out, "validation"), settings.num_validation, protocol
    )
    test = choose_problems(recording_path(out, "test"), settings.num_problems, protocol)
    tune(out / "tuning.json", world_model, validation, protocol, typer.echo)
    rows = compare(Contest(out, bundle, world_model, test, protocol), typer.echo)
    (out / "table.md").write_text(markdown_table(rows), encoding="utf-8")
    typer.echo(markdown_table(rows))
    if json_file is not None:
        write_results(json_file, rows, out, what, test, validation)


@dataclass(frozen=True)
class Contest:
    """What all solvers share; the folder has `tuning.json`, and gets what was measured."""

    folder: Path
    bundle: Path  # ours
    world_model: WorldModel  # the cost of all
    problems: Problems
    settings: EvaluationSettings

    def entries(self) -> list[tuple[str, str, Chosen]]:
        """Solver, variant (`ours`, `default`, `tuned`) and settings."""
        tuned = read_rows(self.folder / "tuning.json")
        entries = [(name, "ours", settings) for name, settings in OURS.items()]
        for name in PUBLISHED_SOLVERS:
            entries += [(name, "tuned", best_settings(tuned, name)), (name, "default", {})]
        return entries

    def build(self, name: str, settings: Chosen) -> Any:  # noqa: ANN401
        """The solver of an entry."""
        if name in OURS:
            return build_ours(self.bundle, settings, self.world_model)
        return build_published(PUBLISHED_SOLVERS[name], settings, self.world_model)


def compare(contest: Contest, report: Report = lambda line: None, rounds: int = 20) -> list[Row]:
    """Evaluate all that have no row in `compared.json` yet, then time all in turns."""
    path = contest.folder / "compared.json"
    for name, variant, settings in contest.entries():
        rows, plain = read_rows(path), json.loads(json.dumps(settings))
        of_entry = [row for row in rows if (row["solver"], row["variant"]) == (name, variant)]
        if any(row["settings"] == plain for row in of_entry):
            continue
        solver = contest.build(name, settings)
        outcome = evaluate(solver, contest.world_model, contest.problems, contest.settings)
        row = {"variant": variant, **row_of(name, settings, outcome)}
        write_json(path, [*(row for row in rows if row not in of_entry), row])
        report(f"{name}, {variant}: {summary_of(row)}")
    seconds, rows = _times(contest, rounds), read_rows(path)
    for row in rows:
        taken = seconds[f"{row['solver']}, {row['variant']}"]
        row["median_plan_s"] = float(np.median(taken))
        row["p95_plan_s"] = float(np.quantile(taken, 0.95))
    return rows


def _times(contest: Contest, rounds: int) -> dict[str, list[float]]:
    """Planning times in turns, from `timing.json` if they are there for these settings."""
    path = contest.folder / "timing.json"
    entries = json.loads(json.dumps(contest.entries()))
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["entries"] == entries:
            return dict(stored["seconds"])
    every = contest.problems
    problems = replace(every, episodes=every.episodes[:NUM_TIMED], starts=every.starts[:NUM_TIMED])
    solvers = {
        f"{name}, {variant}": contest.build(name, settings)
        for name, variant, settings in contest.entries()
    }
    first, one = next(iter(solvers.values())), gym.spaces.Box(-1.0, 1.0, (1, 2), np.float32)
    infos = gather_infos(first, contest.world_model, problems, contest.settings)
    for solver in solvers.values():
        solver.configure(action_space=one, n_envs=1, config=plan_config(contest.settings))
    seconds = time_in_turns(solvers, infos, rounds)
    write_json(path, {"entries": entries, "seconds": seconds})
    return seconds


def verdict(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each of ours against the best of the host's, tuned or not: success, time, McNemar's test."""
    theirs = [row for row in rows if row["variant"] != "ours"]
    best = max(theirs, key=lambda row: (row["success"], -row["median_plan_s"]))
    reached = np.array(best["successes"], bool)
    return [
        {
            "ours": row["solver"],
            "best_of_the_host": f"{best['solver']}, {best['variant']}",
            "success_difference": row["success"] - best["success"],
            "time_ratio": row["median_plan_s"] / best["median_plan_s"],
            "mcnemar": asdict(mcnemar(np.array(row["successes"], bool), reached)),
        }
        for row in rows
        if row["variant"] == "ours"
    ]


def markdown_table(rows: Sequence[Row]) -> str:
    """One line a solver and variant; the highest success first, then the fastest."""
    ordered = sorted(rows, key=lambda row: (-row["success"], row["median_plan_s"]))
    lines = ["| " + " | ".join(HEADINGS) + " |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in ordered]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    low, high = row["wilson_95"]
    settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
    return [
        row["solver"],
        f"tuned: {settings}" if row["variant"] == "tuned" else row["variant"],
        f"{row['success']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{1e3 * row['median_plan_s']:.1f}",
        f"{1e3 * row['p95_plan_s']:.1f}",
    ]


def write_results(
    path: Path,
    rows: Sequence[Row],
    folder: Path,
    what: Preparation,
    test: Problems,
    validation: Problems,
) -> None:
    """Write everything that was measured, and what it was measured with."""
    known, held_out = (
        load_episodes([recording_path(folder, name)]) for name in ("test", "validation")
    )
    world_model = load_lewm(folder / "lewm.pt")
    write_json(
        path,
        {
            "host": f"stable-worldmodel {version('stable-worldmodel')}",
            "date": time.strftime("%Y-%m-%d"),
            "environment": environment(),
            "preparation": asdict(what),
            "lewm_error_px": prediction_error(
                world_model, known, held_out, what.evaluation.horizon
            ),
            "lewm_sha256": sha256_of(folder / "lewm.pt"),
            "test": {"episodes": test.episodes, "starts": test.starts},
            "validation": {"episodes": validation.episodes, "starts": validation.starts},
            "timing": json.loads((folder / "timing.json").read_text(encoding="utf-8")),
            "rows": list(rows),
            "verdict": verdict(rows),
            "tuning": {
                "spaces": {name: dict(kind.space) for name, kind in PUBLISHED_SOLVERS.items()},
                "rows": read_rows(folder / "tuning.json"),
            },
        },
    )
