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
GROUPS = {"all": SUCCESS, "multimodal": f"{SUCCESS}_multimodal"}
SEVERAL = [f"{SUCCESS}_{kind}" for kind in MULTIMODAL_KINDS]
REPS = 1000  # of the bootstrap

Runs = Sequence[Mapping[str, Any]]
"""Results of one method, one a seed: by measure, the share of goals reached, of all and by kind."""


def summarise_rivals(results: Runs, ours: str) -> dict[str, Any]:
    """Of each method, by measure and group of goals: all seeds, their mean, and intervals."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for each in results:
        runs.setdefault(each["method"], []).append(each)
    rows: dict[str, Any] = {}
    for name, of in runs.items():
        own = runs.get(ours, []) if name != ours else []
        times = [key for key in of[0] if key.endswith("_ms")]
        row: dict[str, Any] = {key: float(np.median([run[key] for run in of])) for key in times}
        measures = [measure for measure in MEASURES if measure in of[0]]
        row |= {key: {group: _figures(of, own, key, group) for group in GROUPS} for key in measures}
        rows[name] = {"seeds": [run["seed"] for run in of], **row}
    return rows


def _figures(runs: Runs, own: Runs, measure: str, group: str) -> dict[str, Any]:
    def tasks(of: Runs) -> list[list[float]]:
        kinds = sorted(set(of[0][measure]) - set(GROUPS.values()))
        chosen = [kind for kind in kinds if group == "all" or kind in SEVERAL]
        return [[run[measure][kind] for run in of] for kind in chosen]

    values = [run[measure][GROUPS[group]] for run in runs]
    figures = {"by_seed": values, "mean": float(np.mean(values))}
    figures["iqm"] = interval(tasks(runs), interquartile_mean)
    if own:
        better = interval([*tasks(own), *tasks(runs)], improvement)
        figures["probability_that_ours_is_better"] = better
    return figures


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
