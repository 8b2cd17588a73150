"""How good a world model is, on one-gesture problems of screens it has never seen.

Every measure is one number a problem, averaged over all problems and over those of each kind of
widget:

| measure | is |
| --- | --- |
| `prediction_error` | squared error of the prediction over that of predicting no change |
| `next_state_rank` | place of the true next screen among it and 100 others, 1 is best |
| `next_state_first` | share of problems where that place is 1 |
| `cost_correlation` | Spearman's, of latent distance and `state_distance`, over those screens |
| `reference_below_random` | share of random gestures that cost more than one that works |
| `best_of_64_succeeds` | share where the cheapest of 64 plausible gestures reaches the goal |
| `best_tap_succeeds` | the same for the cheapest of a 16 x 16 grid of taps; not for drags |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from vj2_ddim_benchmark.progress import Progress
from vj2_ddim_benchmark.world.policies import mixed_policy, random_policy
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import tap
from vj2_ddim_benchmark.world_model.cost import LatentCost, latent_distance
from vj2_ddim_benchmark.world_model.model import WorldModel

__all__ = ["report_world_model"]

NUM_RANDOM, NUM_SCRIPTED = 31, 32  # gestures beside the reference
NUM_OTHER_SCREENS = 100
TAP_GRID = 16
TAP_START, TAP_STEPS = 100, 30

Measures = dict[str, float]


def report_world_model(
    model: WorldModel,
    *,
    split: str = "validation",
    num_problems: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a world model on so many problems of a split, as configured unless told.

    `{"split": .., "num_problems": .., "measures": {"overall" or kind: {measure: value}}}`.
    """
    count = num_problems or model.config.num_report_problems
    problems = one_gesture_problems(
        count, split=split, seed=model.config.seed + 1, size=model.config.screen_size
    )
    rng = np.random.default_rng(model.config.seed)
    rows: list[Measures] = []
    for index in range(count):
        rows.append(_measure(model, problems, index, rng))
        if progress is not None:
            progress("report", index + 1, count)
    measures = {"overall": _mean(rows)}
    for kind in np.unique(problems.kind):
        measures[str(kind)] = _mean(
            [row for row, own in zip(rows, problems.kind, strict=True) if own == kind]
        )
    return {"split": split, "num_problems": count, "measures": measures}


def _measure(
    model: WorldModel, problems: Problems, index: int, rng: np.random.Generator
) -> Measures:
    """Every measure of one problem; those that say nothing about it are NaN."""
    start, goal = problems.start.select(index), problems.goal.select(index)
    reference = problems.actions[index : index + 1]
    state, target = model.encode(start.render()), model.encode(goal.render())
    cost = LatentCost(model, state, target)
    return {
        **_prediction(model, state, target, reference, _other_screens(start, goal, rng), goal),
        **_ranking(cost, start, goal, reference, rng),
        "best_tap_succeeds": _best_tap(cost, start, goal) if _is_tap(reference) else np.nan,
    }


def _prediction(
    model: WorldModel,
    state: NDArray[np.float32],
    target: NDArray[np.float32],
    reference: NDArray[np.float32],
    others: TouchScreen,
    goal: TouchScreen,
) -> Measures:
    with torch.inference_mode():
        z = torch.from_numpy(state).to(model.device)
        predicted = model.rollout(z, torch.from_numpy(reference).to(model.device)).cpu().numpy()
    screens = np.concatenate([target, model.encode(others.render())])
    rank = rankdata(_distance(model, screens, predicted), method="min")[0]
    truth = others.state_distance(np.repeat(goal.state, others.num_screens, axis=0))
    latent = _distance(model, screens[1:], target)
    varied = len(np.unique(truth)) > 1
    return {
        "prediction_error": float(
            ((predicted - target) ** 2).sum() / ((state - target) ** 2).sum()
        ),
        "next_state_rank": float(rank),
        "next_state_first": float(rank == 1),
        "cost_correlation": float(spearmanr(latent, truth).statistic) if varied else np.nan,
    }


def _ranking(
    cost: LatentCost,
    start: TouchScreen,
    goal: TouchScreen,
    reference: NDArray[np.float32],
    rng: np.random.Generator,
) -> Measures:
    many = start.select(np.zeros(NUM_SCRIPTED, np.int64))
    scripted, random = mixed_policy(many, 1.0, rng), random_policy(NUM_RANDOM, rng)
    candidates = np.concatenate([reference, random, scripted])
    values = cost(candidates[None])[0]
    reaches = _reaches(start, goal, candidates)
    wrong = ~reaches[1 : 1 + NUM_RANDOM]
    below = values[0] < values[1 : 1 + NUM_RANDOM]
    return {
        "reference_below_random": float(below[wrong].mean()) if wrong.any() else np.nan,
        "best_of_64_succeeds": float(reaches[values.argmin()]),
    }


def _best_tap(cost: LatentCost, start: TouchScreen, goal: TouchScreen) -> float:
    x, y = (np.indices((TAP_GRID, TAP_GRID)).reshape(2, -1) + 0.5) / TAP_GRID
    taps = tap(x, y, TAP_START, TAP_STEPS)
    best = int(cost(taps[None])[0].argmin())
    return float(_reaches(start, goal, taps[best : best + 1])[0])


def _other_screens(start: TouchScreen, goal: TouchScreen, rng: np.random.Generator) -> TouchScreen:
    """The start screen and others of its layout, in random states, none of them the goal."""
    low = np.minimum(start.state, 0)
    states = rng.integers(
        low, np.maximum(start.layout.num_states, low + 1), (4 * NUM_OTHER_SCREENS, low.shape[1])
    )
    states = np.concatenate([start.state, states])
    states = states[(states != goal.state).any(axis=1)][:NUM_OTHER_SCREENS]
    return start.select(np.zeros(len(states), np.int64)).with_state(states)


def _reaches(
    start: TouchScreen, goal: TouchScreen, actions: NDArray[np.float32]
) -> NDArray[np.bool_]:
    rows = np.zeros(len(actions), np.int64)
    return start.select(rows).execute(actions).matches(goal.state[rows])


def _is_tap(action: NDArray[np.float32]) -> bool:
    path = action[0, action[0, :, 2] > 0, :2]
    return bool(np.ptp(path, axis=0).max() < 1e-6)


def _distance(
    model: WorldModel, latents: NDArray[np.float32], goal: NDArray[np.float32]
) -> NDArray[np.float32]:
    difference = latent_distance(
        torch.from_numpy(latents), torch.from_numpy(goal), model.config.cost_kind
    )
    values: NDArray[np.float32] = difference.numpy()
    return values


def _mean(rows: list[Measures]) -> Measures:
    """The mean of each measure over the problems it says something about."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: float(np.nanmean(values))
        for name, values in columns.items()
        if not np.isnan(values).all()
    }
