"""`vj2-ddim benchmark two-room`: our solver and stable-worldmodel's, in its world and evaluation.

The host's as they come and as tuned; a row is written once it is there, and not measured again.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.report.summary import mcnemar, wilson_interval
from vj2_ddim_benchmark.settings import ComparisonSettings
from vj2_ddim_benchmark.timing import Seconds
from vj2_ddim_benchmark.two_room import evaluation
from vj2_ddim_benchmark.two_room.episodes import load_episodes, recording_path
from vj2_ddim_benchmark.two_room.evaluation import OURS, PUBLISHED, Chosen, Outcome, Problems
from vj2_ddim_benchmark.two_room.lewm import WorldModel, prediction_error
from vj2_ddim_benchmark.two_room.prepare import Preparation, prepare
from vj2_ddim_plugin.cli.console import say
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path, read_json_value, sha256_of, write_json

Row = dict[str, Any]  # what one evaluation measured, as plain values
NUM_TIMED = 10  # problems
HEADINGS = ("solver", "settings", "success", "95 % interval", "median ms a plan", "p95 ms")


def two_room(out: Path, settings: ComparisonSettings, json_file: Path | None) -> None:
    """Collect, train, tune and compare on TwoRoom; needs requirements-hosts.txt installed."""
    use_threads(settings.threads)
    what = Preparation()
    world_model, bundle = prepare(out, what, say)
    validation, test = (
        evaluation.choose_problems(recording_path(out, name), num, what.evaluation)
        for name, num in (("validation", settings.num_validation), ("test", settings.num_problems))
    )
    contest = Contest(out, what, world_model, bundle)
    contest.tune(validation)
    rows = contest.compare(test)
    table = markdown_table(rows)
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    say(table)
    if json_file is not None:
        write_json(json_file, contest.results(rows, test=test, validation=validation))


@dataclass(frozen=True)
class Contest:
    """What all solvers share, and the folder of what was measured."""

    folder: Path
    what: Preparation
    world_model: WorldModel  # the cost of all
    bundle: Path  # ours

    def tune(self, problems: Problems) -> None:
        """Evaluate every setting of every published solver's space."""
        for name, kind in PUBLISHED.items():
            for settings in kind.candidates():
                self._row("tuning.json", {"solver": name}, settings, problems)

    def compare(self, problems: Problems, rounds: int = 20) -> list[Row]:
        """Evaluate ours, and the published as tuned and by default; then time all in turns."""
        entries = [(name, "ours", settings) for name, settings in OURS.items()]
        tuned = self._read("tuning.json", [])
        for name in PUBLISHED:
            entries += [(name, "tuned", best_settings(tuned, name)), (name, "default", {})]
        rows = [
            self._row("compared.json", {"variant": variant, "solver": name}, settings, problems)
            for name, variant, settings in entries
        ]
        seconds = self._seconds(entries, problems, rounds)
        for row in rows:
            taken = seconds[f"{row['solver']}, {row['variant']}"]
            row["median_plan_s"] = float(np.median(taken))
            row["p95_plan_s"] = float(np.quantile(taken, 0.95))
        return rows

    def results(self, rows: Sequence[Row], **problems: Problems) -> dict[str, Any]:
        """Everything that was measured, and what it was measured with."""
        known, held_out = (
            load_episodes([recording_path(self.folder, name)]) for name in ("test", "validation")
        )
        horizon = self.what.evaluation.horizon
        return {
            "host": f"stable-worldmodel {version('stable-worldmodel')}",
            "date": time.strftime("%Y-%m-%d"),
            "environment": environment(),
            "preparation": asdict(self.what),
            "lewm_error_px": prediction_error(self.world_model, known, held_out, horizon),
            "lewm_sha256": sha256_of(self.folder / "lewm.pt"),
            **{
                name: {"episodes": of.episodes, "starts": of.starts}
                for name, of in problems.items()
            },
            "timing": self._read("timing.json", None),
            "rows": list(rows),
            "verdict": verdict(rows),
            "tuning": {
                "spaces": {name: dict(kind.space) for name, kind in PUBLISHED.items()},
                "rows": self._read("tuning.json", []),
            },
        }

    def _solver(self, name: str, settings: Chosen) -> Any:  # noqa: ANN401
        return evaluation.build_solver(name, settings, self.world_model, self.bundle)

    def _read(self, file: str, otherwise: Any) -> Any:  # noqa: ANN401
        """What a file of the folder holds."""
        path = self.folder / file
        return read_json_value(path, DataError) if path.exists() else otherwise

    def _row(self, file: str, who: Row, settings: Chosen, problems: Problems) -> Row:
        """The row of an entry, from the file if it is there."""
        rows: list[Row] = self._read(file, [])
        wanted = {**who, "settings": json.loads(json.dumps(settings))}
        for row in rows:
            if wanted.items() <= row.items():
                return row
        solver = self._solver(who["solver"], settings)
        outcome = evaluation.evaluate(solver, self.world_model, problems, self.what.evaluation)
        row = row_of(wanted, outcome)
        write_json(self.folder / file, [*rows, row])
        entry = f"{who['solver']}, {who.get('variant', settings)}"
        say(f"{entry}: {row['success']:.1%}, {1e3 * row['median_plan_s']:.1f} ms a plan")
        return row

    def _seconds(
        self, entries: list[tuple[str, str, Chosen]], problems: Problems, rounds: int
    ) -> Seconds:
        """Planning times in turns, from `timing.json` if they are there for these settings."""
        plain, protocol = json.loads(json.dumps(entries)), self.what.evaluation
        stored = self._read("timing.json", {"entries": None})
        if stored["entries"] == plain:
            return dict(stored["seconds"])
        solvers = {f"{name}, {variant}": self._solver(name, how) for name, variant, how in entries}
        episodes, starts = problems.episodes[:NUM_TIMED], problems.starts[:NUM_TIMED]
        few = replace(problems, episodes=episodes, starts=starts)
        first = evaluation.OneByOne(next(iter(solvers.values())), keep=len(few.episodes))
        evaluation.evaluate(first, self.world_model, few, protocol)
        one = gym.spaces.Box(-1.0, 1.0, (1, 2), np.float32)
        for solver in solvers.values():
            solver.configure(action_space=one, n_envs=1, config=protocol.plan_config())
        seconds = evaluation.time_in_turns(solvers, first.asked, rounds)
        write_json(self.folder / "timing.json", {"entries": plain, "seconds": seconds})
        return seconds


def row_of(entry: Row, outcome: Outcome) -> Row:
    """An entry and what its evaluation measured."""
    successes, seconds = outcome.successes, np.array(outcome.plan_seconds)
    return {
        **entry,
        "num_problems": len(successes),
        "success": float(np.mean(successes)),
        "wilson_95": list(wilson_interval(sum(successes), len(successes))),
        "num_plans": len(seconds),
        "median_plan_s": float(np.median(seconds)),
        "successes": [int(success) for success in successes],
    }


def _best(rows: Sequence[Row]) -> Row:
    """The row of highest success; of equal ones, the fastest."""
    return max(rows, key=lambda row: (row["success"], -row["median_plan_s"]))


def best_settings(rows: Sequence[Row], name: str) -> Chosen:
    """The settings with which a solver did best."""
    return dict(_best([row for row in rows if row["solver"] == name])["settings"])


def verdict(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each of ours against the best of the host's, tuned or not: success, time, McNemar's test."""
    best = _best([row for row in rows if row["variant"] != "ours"])
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
    lines = [HEADINGS, ("---", "---", "---:", "---:", "---:", "---:")]
    for row in sorted(rows, key=lambda row: (-row["success"], row["median_plan_s"])):
        low, high = row["wilson_95"]
        settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
        variant = f"tuned: {settings}" if row["variant"] == "tuned" else row["variant"]
        times = (f"{1e3 * row[name]:.1f}" for name in ("median_plan_s", "p95_plan_s"))
        interval = f"{low:.1%} to {high:.1%}"
        lines.append((row["solver"], variant, f"{row['success']:.1%}", interval, *times))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
