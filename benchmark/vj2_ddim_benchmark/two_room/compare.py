"""`vj2-ddim benchmark two-room`: our solver and the host's, in its world, by published rules.

A row is written once it is there, and not measured again.
"""

import time
from collections.abc import Mapping, Sequence
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
from vj2_ddim_benchmark.two_room import evaluation, import_stable_worldmodel
from vj2_ddim_benchmark.two_room.episodes import load_episodes, load_positions, recording_path
from vj2_ddim_benchmark.two_room.evaluation import CEM, OURS, OneByOne
from vj2_ddim_benchmark.two_room.lewm import WorldModel, prediction_error
from vj2_ddim_benchmark.two_room.prepare import Preparation, prepare
from vj2_ddim_benchmark.two_room.rules import Manifest, choose_pairs, judge
from vj2_ddim_plugin.cli.console import say
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path, read_json_value, sha256_of, write_json

Row = dict[str, Any]  # what one policy did on one manifest, as plain values
RULES = ("moderate", "strict")
# Whose episodes, and the seeds: those of the published manifests; and goals that are further away.
SETS: dict[str, tuple[str, tuple[int, ...]]] = {
    "published": ("test", (0, 1, 42)),
    "far": ("test_far", (0,)),
}
RANDOM = "random actions"
NUM_TIMED, ROUNDS = 10, 10  # problems whose plans are timed, and how often each solver plans
HEADINGS = ("policy", "moderate", "strict", "steps", "median processor ms", "p95 ms")


def two_room(out: Path, settings: ComparisonSettings, json_file: Path | None) -> None:
    """Collect, train and compare on TwoRoom; needs requirements-hosts.txt installed."""
    use_threads(settings.threads)
    what = Preparation()
    world_model, bundles = prepare(out, what, say)
    problems = {}
    for kind, (recording, seeds) in SETS.items():
        positions = load_positions(recording_path(out, recording))
        for seed in seeds[: settings.num_seeds]:
            offset = what.evaluation.goal_offset
            manifest = choose_pairs(positions, settings.num_problems, seed, offset)
            problems[kind, seed] = manifest
            write_json(out / f"manifest-{kind}-seed{seed}.json", asdict(manifest))
    contest = Contest(out, what, world_model, bundles)
    results = contest.results(problems)
    table = "\n".join(
        f"{kind}:\n\n{markdown_table(rows, results['seconds']['processor'])}"
        for kind in SETS
        if (rows := [row for row in results["rows"] if row["set"] == kind])
    )
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    say(table)
    write_json(json_file, results)


@dataclass(frozen=True)
class Contest:
    """What all policies share, and the folder of what was measured."""

    folder: Path
    what: Preparation
    world_model: WorldModel  # the cost of all
    bundles: Mapping[str, Path]  # ours

    @property
    def solvers(self) -> list[str]:
        """By name; random actions are beside them."""
        return [*(f"{bundle}, {how}" for bundle in self.bundles for how in OURS), CEM]

    def results(self, problems: Mapping[tuple[str, int], Manifest]) -> dict[str, Any]:
        """Everything that was measured, and what it was measured with."""
        names = [*self.solvers, RANDOM]
        rows = [self._row(kind, name, of) for (kind, _), of in problems.items() for name in names]
        known, held_out = (
            load_episodes([recording_path(self.folder, name)])
            for name in ("validation", "test_far")
        )
        horizon = self.what.evaluation.horizon
        return {
            "host": f"stable-worldmodel {version('stable-worldmodel')}",
            "date": time.strftime("%Y-%m-%d"),
            "environment": environment(),
            "preparation": asdict(self.what),
            "lewm_error_px": prediction_error(self.world_model, known, held_out, horizon),
            "lewm_sha256": sha256_of(self.folder / "lewm.pt"),
            "solvers": OURS,
            "seconds": self._seconds(next(iter(problems.values()))),
            "rows": rows,
            "verdict": {kind: verdict([r for r in rows if r["set"] == kind]) for kind in SETS},
        }

    def _solver(self, name: str, seed: int) -> Any:  # noqa: ANN401
        return evaluation.build_solver(name, self.world_model, self.bundles, seed)

    def _read(self, file: str) -> Any:  # noqa: ANN401
        """What a file of the folder holds, or nothing."""
        path = self.folder / file
        return read_json_value(path, DataError) if path.exists() else None

    def _row(self, kind: str, name: str, manifest: Manifest) -> Row:
        """What a policy does on a manifest, from the file if it is there."""
        rows: list[Row] = self._read("compared.json") or []
        seed = manifest.seed
        who = {"set": kind, "policy": name, "seed": seed, "manifest": manifest.sha256()}
        for row in rows:
            if who.items() <= row.items():
                return row
        protocol, recording = self.what.evaluation, recording_path(self.folder, SETS[kind][0])
        timed = OneByOne(None if name == RANDOM else self._solver(name, seed))
        policy = (
            import_stable_worldmodel().policy.RandomPolicy(seed=seed)
            if name == RANDOM
            else evaluation.policy_of(timed, self.world_model, protocol)
        )
        routes = evaluation.evaluate(policy, recording, manifest, protocol)
        verdicts = [
            judge(route, pair.goal) for route, pair in zip(routes, manifest.pairs, strict=True)
        ]
        row = {
            **who,
            **{rule: [getattr(one, rule) for one in verdicts] for rule in RULES},
            "illegal_moves": sum(one.illegal_moves for one in verdicts),
            "crossed": sum(one.crossings > 0 for one in verdicts),
            "plan_seconds": timed.seconds,
        }
        write_json(self.folder / "compared.json", [*rows, row])
        say(f"{kind}, {name}, seed {seed}: " + ", ".join(f"{r} {rate(row, r):.1%}" for r in RULES))
        return row

    def _seconds(self, manifest: Manifest) -> dict[str, Seconds]:
        """Planning times in turns by clock, from the file if they are there for these solvers."""
        stored = self._read("timing.json")
        if stored and list(stored["wall"]) == self.solvers:
            return dict(stored)
        solvers = {name: self._solver(name, 0) for name in self.solvers}
        first = OneByOne(next(iter(solvers.values())), keep=NUM_TIMED)
        protocol = self.what.evaluation
        policy = evaluation.policy_of(first, self.world_model, protocol)
        few = replace(manifest, pairs=manifest.pairs[:NUM_TIMED])
        evaluation.evaluate(policy, recording_path(self.folder, "test"), few, protocol)
        one = gym.spaces.Box(-1.0, 1.0, (1, 2), np.float32)
        for solver in solvers.values():
            solver.configure(action_space=one, n_envs=1, config=protocol.plan_config())
        seconds = evaluation.time_in_turns(solvers, first.asked, ROUNDS)
        write_json(self.folder / "timing.json", seconds)
        return seconds


def rate(row: Row, rule: str) -> float:
    """The share of pairs that are solved."""
    return float(np.mean([step is not None for step in row[rule]]))


def _of(rows: Sequence[Row], name: str, rule: str) -> list[int | None]:
    """A policy's steps to success on all manifests, one after the other."""
    return [step for row in rows if row["policy"] == name for step in row[rule]]


def verdict(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each of ours against the host's CEM under each rule: difference, McNemar's test."""
    names = dict.fromkeys(row["policy"] for row in rows if row["policy"] not in (CEM, RANDOM))
    found = []
    for rule in RULES:
        host = np.array([step is not None for step in _of(rows, CEM, rule)])
        for name in names:
            ours = np.array([step is not None for step in _of(rows, name, rule)])
            difference = float(ours.mean() - host.mean())
            test = asdict(mcnemar(ours, host))
            found.append({"ours": name, "rule": rule, "difference": difference, "mcnemar": test})
    return found


def markdown_table(rows: Sequence[Row], seconds: Seconds) -> str:
    """One line a policy, the best under the moderate rule first.

    Success: the mean over the seeds, each seed's, and Wilson's interval of all together; steps: the
    medians to success, moderate and strict.
    """
    lines = [HEADINGS, ("---", *["---:"] * 5)]
    names = list(dict.fromkeys(row["policy"] for row in rows))

    def success(name: str, rule: str) -> str:
        rates = [rate(row, rule) for row in rows if row["policy"] == name]
        steps = _of(rows, name, rule)
        low, high = wilson_interval(sum(step is not None for step in steps), len(steps))
        seeds = " / ".join(f"{100 * one:.0f}" for one in rates)
        return f"{np.mean(rates):.1%} ({seeds}; {100 * low:.1f} to {100 * high:.1f})"

    def middle(name: str, rule: str) -> str:
        reached = [step for step in _of(rows, name, rule) if step is not None]
        return f"{np.median(reached):.0f}" if reached else "-"

    def solved(name: str) -> int:
        return sum(step is not None for step in _of(rows, name, "moderate"))

    for name in sorted(names, key=solved, reverse=True):
        taken = 1e3 * np.array(seconds.get(name, [0.0]))
        steps = " / ".join(middle(name, rule) for rule in RULES)
        times = (f"{np.median(taken):.1f}", f"{np.quantile(taken, 0.95):.1f}")
        lines.append((name, *(success(name, rule) for rule in RULES), steps, *times))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
