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
Scores = dict[str, list[FloatArray]]
"""By method, for each kind of widget the shares of goals reached `[seeds]`."""


def summarise_rivals(results: Sequence[Result], ours: str) -> dict[str, Any]:
    """Of each method, by measure and group of goals: all seeds, their mean, and intervals."""
    rows: dict[str, Any] = {
        name: _row([each for each in results if each["method"] == name])
        for name in dict.fromkeys(each["method"] for each in results)
    }
    for measure in MEASURES:
        for group in GROUPS:
            scores = scores_of(results, measure, group)
            for name, tasks in scores.items():
                rows[name][measure][group]["iqm"] = interval(tasks, interquartile_mean)
                if ours in scores and name != ours:
                    better = interval([*scores[ours], *tasks], improvement)
                    rows[name][measure][group]["probability_that_ours_is_better"] = better
    return rows


def scores_of(results: Sequence[Result], measure: str, group: str) -> Scores:
    """What is there of a measure."""
    scores: Scores = {}
    for name in dict.fromkeys(each["method"] for each in results):
        runs = [each[measure] for each in results if each["method"] == name and measure in each]
        if runs:
            kinds = sorted(set(runs[0]) - set(WHOLE.values()))
            kept = [
                kind for kind in kinds
                if group == "all" or kind.removeprefix(f"{SUCCESS}_") in MULTIMODAL_KINDS
            ]  # fmt: skip
            scores[name] = [np.array([run[kind] for run in runs]) for kind in kept]
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
    return np.mean([0.5 + 0.5 * each.mean(axis=(-2, -1)) for each in wins], axis=0)


def interval(tasks: Sequence[FloatArray], of: Callable[..., FloatArray]) -> list[float]:
    """A figure of runs `[seeds]` a task, and its 95 % percentile interval; one run has none."""
    point = float(of(*tasks))
    if min(map(len, tasks)) < 2:
        return [point, point, point]
    found = bootstrap(tasks, of, n_resamples=REPS, method="percentile", rng=0, vectorized=True)
    return [point, float(found.confidence_interval.low), float(found.confidence_interval.high)]


def print_rivals(rows: Mapping[str, Any]) -> None:
    """A table, best of one sample and of ranked ones first, in percent."""

    def share(row: Mapping[str, Any], measure: str, group: str) -> str | None:
        return f"{100 * row[measure][group]['mean']:.1f}" if measure in row else None

    cells = [
        (
            name,
            len(row["seeds"]),
            *(share(row, measure, group) for measure in MEASURES for group in GROUPS),
            *(f"{row[of]:.1f}" if of in row else None for of in ("one_ms", "ranked_ms")),
        )
        for name, row in rows.items()
    ]
    words = ("one sample", "16 ranked", "ranked by truth")
    headings = [
        f"{word}{'' if group == 'all' else ', multimodal'}" for word in words for group in GROUPS
    ]
    headings = ["method", "seeds", *headings, "one, ms", "ranked, ms"]
    print_table(cells, headings, title="goals reached, %", numbers=True)
