"""How good a world model is on unseen one-gesture problems, over all and by kind of widget."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from vj2_ddim_benchmark.world.collect import Transitions
from vj2_ddim_benchmark.world.policies import mixed_policy, random_policy
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import Actions, tap
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel, latent_distance
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import DataError

NUM_RANDOM, NUM_SCRIPTED = 31, 32  # gestures beside the reference
NUM_OTHER_SCREENS, TAP_GRID, TAP_START, TAP_STEPS = 100, 16, 100, 30

Measures = dict[str, float]
Latents = NDArray[np.float32]


def report_world_model(
    model: WorldModel, *, split: str = "validation", num_problems: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """Measure a world model on so many problems of a split, as configured unless told."""
    config = model.config
    count, seed, size = num_problems or config.num_report_problems, config.seed, config.screen_size
    problems = one_gesture_problems(count, split=split, seed=seed + 1, size=size)
    rng = np.random.default_rng(seed)
    rows: list[Measures] = []
    for index in range(count):
        rows.append(_Case(model, problems, index).measures(rng))
        progress("report", index + 1, count)
    measures = {"overall": _mean(rows)}
    for kind in np.unique(problems.kind):
        of_kind = [row for row, own in zip(rows, problems.kind, strict=True) if own == kind]
        measures[str(kind)] = _mean(of_kind)
    return {"split": split, "num_problems": count, "measures": measures}


def report_recorded(
    model: WorldModel, transitions: Transitions, num_problems: int | None = None
) -> dict[str, Any]:
    """Measure a world model on recorded transitions of any screens, those that change a state.

    Nobody can touch these screens again, so a touch is ranked among those of other trajectories.

    Raises:
        DataError: Nothing changes in any of them.
    """
    states = transitions.states
    rows, steps = (states[:, 1:] != states[:, :-1]).any(axis=-1).nonzero()
    if not len(rows):
        raise DataError("found no transition that changes a state; collect more, or others")
    count = min(num_problems or model.config.num_report_problems, len(rows))
    rng = np.random.default_rng(model.config.seed)
    measures: list[Measures] = []
    for chosen in rng.permutation(len(rows))[:count]:
        row, step = rows[chosen], steps[chosen]
        others = np.flatnonzero(rows != row)
        others = rng.choice(others, min(NUM_RANDOM + NUM_SCRIPTED, len(others)), replace=False)
        touches = np.stack([rows, steps], axis=1)[np.concatenate([[chosen], others])].T
        candidates = transitions.actions[touches[0], touches[1]]
        state, target = model.encode(transitions.frames[row, step : step + 2])[:, None]
        costs = LatentCost(model, state, target)(candidates[None])[0]
        measures.append(
            {
                "prediction_error": _prediction_error(model, state, target, candidates[:1]),
                "true_below_others": float((costs[0] < costs[1:]).mean())
                if len(others)
                else np.nan,
                "true_first": float(costs.argmin() == 0),
            }
        )
    return {"split": "recorded", "num_problems": count, "measures": {"overall": _mean(measures)}}


def _prediction_error(model: WorldModel, state: Latents, target: Latents, action: Actions) -> float:
    """Squared error of the latents after a touch `[1, 250, 3]`, over that of no change."""
    found = _predicted(model, state, action)
    return float(((found - target) ** 2).sum() / ((state - target) ** 2).sum())


def _predicted(model: WorldModel, state: Latents, action: Actions) -> Latents:
    device = model.device
    with torch.inference_mode():
        z = torch.from_numpy(state).to(device)
        found: Latents = model.rollout(z, torch.from_numpy(action).to(device)).cpu().numpy()
    return found


def _mean(rows: list[Measures]) -> Measures:
    """The mean of each measure over the problems it says something about."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {name: each for name, each in columns.items() if not np.isnan(each).all()}
    return {name: float(np.nanmean(each)) for name, each in known.items()}


class _Case:
    """One of the problems."""

    def __init__(self, model: WorldModel, problems: Problems, index: int) -> None:
        self.model, self.reference = model, problems.actions[index : index + 1]
        self.start, self.goal = problems.start.select(index), problems.goal.select(index)
        self.state = model.encode(self.start.render())
        self.target = model.encode(self.goal.render())
        self.cost = LatentCost(model, self.state, self.target)

    def measures(self, rng: np.random.Generator) -> Measures:
        """Every measure; those that say nothing about this problem are NaN."""
        path = self.reference[0, self.reference[0, :, 2] > 0, :2]
        taps = np.ptp(path, axis=0).max() < 1e-6
        return {
            **self._prediction(self._other_screens(rng)),
            **self._ranking(rng),
            "best_tap_succeeds": self._best_tap() if taps else np.nan,
        }

    def _prediction(self, others: TouchScreen) -> Measures:
        found = _predicted(self.model, self.state, self.reference)
        screens = np.concatenate([self.target, self.model.encode(others.render())])
        rank = rankdata(self._distance(screens, found), method="min")[0]
        truth = others.state_distance(np.repeat(self.goal.state, others.num_screens, axis=0))
        latent = self._distance(screens[1:], self.target)
        varied = len(np.unique(truth)) > 1
        whom = self.model, self.state, self.target, self.reference
        return {
            "prediction_error": _prediction_error(*whom),
            "next_state_rank": float(rank),  # of the true next screen among 100 others, 1 is best
            "next_state_first": float(rank == 1),
            "cost_correlation": float(spearmanr(latent, truth).statistic) if varied else np.nan,
        }

    def _ranking(self, rng: np.random.Generator) -> Measures:
        many = self.start.select(np.zeros(NUM_SCRIPTED, np.int64))
        scripted, random = mixed_policy(many, 1.0, rng), random_policy(NUM_RANDOM, rng)
        candidates = np.concatenate([self.reference, random, scripted])
        values, reaches = self.cost(candidates[None])[0], self._reaches(candidates)
        wrong = ~reaches[1 : 1 + NUM_RANDOM]
        below = values[0] < values[1 : 1 + NUM_RANDOM]
        return {  # of the random gestures that fail, and of all 64
            "reference_below_random": float(below[wrong].mean()) if wrong.any() else np.nan,
            "best_of_64_succeeds": float(reaches[values.argmin()]),
        }

    def _best_tap(self) -> float:
        x, y = (np.indices((TAP_GRID, TAP_GRID)).reshape(2, -1) + 0.5) / TAP_GRID
        taps = tap(x, y, TAP_START, TAP_STEPS)
        best = int(self.cost(taps[None])[0].argmin())
        return float(self._reaches(taps[best : best + 1])[0])

    def _other_screens(self, rng: np.random.Generator) -> TouchScreen:
        """The start and others of its layout, in random states, none of them the goal."""
        low = np.minimum(self.start.state, 0)
        high = np.maximum(self.start.layout.num_states, low + 1)
        states = rng.integers(low, high, (4 * NUM_OTHER_SCREENS, low.shape[1]))
        states = np.concatenate([self.start.state, states])
        states = states[(states != self.goal.state).any(axis=1)][:NUM_OTHER_SCREENS]
        return self.start.select(np.zeros(len(states), np.int64)).with_state(states)

    def _reaches(self, actions: Actions) -> NDArray[np.bool_]:
        rows = np.zeros(len(actions), np.int64)
        return self.start.select(rows).execute(actions).matches(self.goal.state[rows])

    def _distance(self, latents: Latents, goal: Latents) -> Latents:
        one, other = torch.from_numpy(latents), torch.from_numpy(goal)
        return np.asarray(latent_distance(one, other, self.model.config.cost_kind))
