"""Methods trained from several seeds: interquartile means and probabilities of improvement.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice": a run
is a training seed, a task a kind of widget, and the bootstrap draws runs for each task anew. Their
`rliable` needs a release of `arch` that does not import beside pandas 3; scipy's bootstrap, given a
sample for each task, is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean

from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS
from vj2_ddim_plugin.cli.console import print_table
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.validation import SUCCESS

MEASURES = ("one", "ranked", "ranked_by_truth")
GROUPS = ("all", "multimodal")
WHOLE = {"all": SUCCESS, "multimodal": f"{SUCCESS}_multimodal"}
REPS = 1000  # of the bootstrap

Result = Mapping[str, Any]
Scores = dict[str, dict[str, list[float]]]
"""By method and kind of widget, the share of goals reached with each seed."""


def summarise_rivals(results: Sequence[Result], ours: str) -> dict[str, Any]:
    """Of each method, by measure and group of goals: all seeds, their mean, and intervals."""
    rows: dict[str, Any] = {
        name: _row([each for each in results if each["method"] == name])
        for name in dict.fromkeys(each["method"] for each in results)
    }
    for measure in MEASURES:
        for group in GROUPS:
            scores = scores_of(results, measure, group)
            for name, kinds in scores.items():
                tasks = [kinds[kind] for kind in sorted(kinds)]
                rows[name][measure][group]["iqm"] = interval(tasks, interquartile_mean)
                if ours in scores and name != ours:
                    own = [scores[ours][kind] for kind in sorted(kinds)]
                    better = interval([*own, *tasks], improvement)
                    rows[name][measure][group]["probability_that_ours_is_better"] = better
    return rows


def scores_of(results: Sequence[Result], measure: str, group: str) -> Scores:
    """What is there of a measure."""
    scores: Scores = {}
    for each in results:
        for name, share in each.get(measure, {}).items():
            kind = name.removeprefix(f"{SUCCESS}_")
            if name not in WHOLE.values() and (group == "all" or kind in MULTIMODAL_KINDS):
                scores.setdefault(each["method"], {}).setdefault(kind, []).append(share)
    return scores


def _row(runs: Sequence[Result]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": [run["seed"] for run in runs]}
    for measure in MEASURES:
        if measure in runs[0]:
            by_seed = {group: [run[measure][WHOLE[group]] for run in runs] for group in GROUPS}
            row[measure] = {
                group: {"by_seed": values, "mean": float(np.mean(values))}
                for group, values in by_seed.items()
            }
    times = {name for run in runs for name in run if name.endswith("_ms")}
    return row | {name: float(np.median([run[name] for run in runs])) for name in sorted(times)}


def interquartile_mean(*tasks: FloatArray, axis: int = -1) -> FloatArray:
    """Of the runs `[..., seeds]` of all tasks, without the lowest and the highest quarter."""
    mean: FloatArray = trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)
    return mean


def improvement(*tasks: FloatArray, axis: int = -1) -> FloatArray:
    """The probability that a run of the first half of tasks beats one of the other; ties are half.

    The mean over tasks, of runs `[..., seeds]`.
    """
    pairs = zip(tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :], strict=True)
    wins = [np.sign(ours[..., :, None] - theirs[..., None, :]) for ours, theirs in pairs]
    share: FloatArray = np.mean([0.5 + 0.5 * each.mean(axis=(-2, -1)) for each in wins], axis=0)
    return share


def interval(tasks: Sequence[Sequence[float]], of: Callable[..., FloatArray]) -> list[float]:
    """A figure of runs `[seeds]` a task, and its 95 % percentile interval; one run has none."""
    runs = [np.asarray(task) for task in tasks]
    point = float(of(*runs))
    if min(map(len, runs)) < 2:
        return [point, point, point]
    found = bootstrap(runs, of, n_resamples=REPS, method="percentile", rng=0, vectorized=True)
    return [point, float(found.confidence_interval.low), float(found.confidence_interval.high)]


def print_rivals(rows: Mapping[str, Any]) -> None:
    """A table in percent of the goals, of all and of the multimodal ones."""
    cells = [
        [name, len(row["seeds"])]
        + [
            " ".join(f"{100 * row[measure][group]['mean']:.1f}" for group in GROUPS)
            if measure in row
            else None
            for measure in MEASURES
        ]
        + [f"{row[time]:.1f}" if time in row else None for time in ("one_ms", "ranked_ms")]
        for name, row in rows.items()
    ]
    headings = ["method", "seeds", *MEASURES, "one, ms", "ranked, ms"]
    print_table(cells, headings, title="goals reached, %: all, multimodal", numbers=True)
