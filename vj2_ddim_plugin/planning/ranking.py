"""Which candidate is the best: the ranker picks a few, the planner's cost decides among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import BundleError, ConstraintError
from vj2_ddim_plugin.gestures import decode_checked, encode, project
from vj2_ddim_plugin.interface import CostFn, FloatArray
from vj2_ddim_plugin.model import CostPredictor
from vj2_ddim_plugin.planning.checks import cost_of, require_finite_cost
from vj2_ddim_plugin.planning.deadline import Deadline
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["Candidates", "Pool", "Predict", "Ranking", "predicted_cost", "projected"]

Predict = Callable[[FloatArray], FloatArray]
"""The ranker under a condition: candidates `[B, K, L, A]` to their predicted cost `[B, K]`."""


class Candidates(NamedTuple):
    """Candidates of B problems, K each."""

    actions: FloatArray  # `[B, K, L, A]`
    moved: FloatArray  # `[B, K]`, how far projection and constraints moved each
    kept: NDArray[np.bool_]  # `[B, K]`, whether it keeps the constraints; else never the plan

    @classmethod
    def changed(
        cls, before: FloatArray, actions: FloatArray, kept: NDArray[np.bool_]
    ) -> Candidates:
        """Actions that were `before` projection and constraints changed them."""
        if actions is before:
            return cls(actions, np.zeros(actions.shape[:2]), kept)
        return cls(actions, np.abs(actions - before).max(axis=(2, 3), initial=0.0), kept)

    def taken(self, columns: NDArray[np.intp]) -> Candidates:
        """Only those of `[B, n]`, in this order."""
        rows = np.arange(len(columns))[:, None]
        return Candidates._make(part[rows, columns] for part in self)


class Pool:
    """Candidates `[B, K', L, A]`, of which the first are ranked."""

    def __init__(self, warm_start: Candidates) -> None:
        self.all = warm_start  # none or one a problem
        self._num_given = int(warm_start.actions.shape[1])
        # `[B, ranked]`, infinite where one may not be the plan
        self.cost: FloatArray = np.zeros((len(warm_start.actions), 0))
        # `[B, n]`, the worst cost near each of the first n candidates; None if none is known
        self.worst: FloatArray | None = None

    @property
    def actions(self) -> FloatArray:
        """`[B, K', L, A]`."""
        return self.all.actions

    @property
    def kept(self) -> NDArray[np.bool_]:
        """`[B, K']`."""
        return self.all.kept

    @property
    def num_ranked(self) -> int:
        """Candidates a problem whose cost is known."""
        return int(self.cost.shape[1])

    @property
    def num_unranked(self) -> int:
        """Candidates a problem whose cost is not known yet."""
        return int(self.actions.shape[1]) - self.num_ranked

    def add(self, candidates: Candidates) -> None:
        """Append K more candidates a problem, those that keep the constraints first."""
        if not candidates.kept.all():
            candidates = candidates.taken(np.argsort(~candidates.kept, axis=1, kind="stable"))
        both = zip(self.all, candidates, strict=True)
        self.all = Candidates(*(np.concatenate(pair, axis=1) for pair in both))

    def rank(self, cost: FloatArray) -> None:
        """Append the cost `[B, n]` of the next n candidates."""
        kept = self.kept[:, self.num_ranked : self.num_ranked + cost.shape[1]]
        self.cost = np.concatenate([self.cost, np.where(kept, cost, np.inf)], axis=1)

    def keep_best(self, count: int) -> None:
        """Forget all but the cheapest `count` candidates a problem, and those without a cost."""
        order = np.argsort(self.cost, axis=1, kind="stable")[:, :count]
        self.cost = np.take_along_axis(self.cost, order, axis=1)
        self.all = self.all.taken(order)

    @property
    def first_in_question(self) -> int:
        """Index of the first candidate that `keep_promising` may forget."""
        return max(self.num_ranked, self._num_given)

    def keep_promising(self, predicted: FloatArray | None, count: int) -> None:
        """Forget all but `count` of the candidates from `first_in_question` on; the rest stay.

        Those of the lowest predicted cost `[B, n]` are kept, in this order, those that break the
        constraints last; without a prediction, the first ones.
        """
        first, size = self.first_in_question, self.actions.shape[1]
        order = np.broadcast_to(np.arange(first, size), (len(self.actions), size - first))
        if predicted is not None:
            allowed = np.where(self.kept[:, first:], predicted, np.inf)
            order = first + np.argsort(allowed, axis=1, kind="stable")
        known = np.broadcast_to(np.arange(first), (len(order), first))
        self.all = self.all.taken(np.concatenate([known, order[:, :count]], axis=1))

    def best_cost(self) -> FloatArray:
        """`[B]`, the lowest cost so far."""
        return np.asarray(self.cost.min(axis=1, initial=np.inf))

    def elites(self, count: int) -> FloatArray:
        """The best quarter, `[B, count, L, A]`, each repeated as often as needed."""
        order = np.argsort(self.cost, axis=1, kind="stable")[:, : max(1, count // 4)]
        return self.all.taken(order[:, np.arange(count) % order.shape[1]]).actions

    def has_plans(self) -> bool:
        """Whether every problem has a candidate that may be its plan."""
        return bool(self.kept.any(axis=1).all())

    def require_kept(self) -> None:
        """Raise `ConstraintError` where a problem has no candidate that may be its plan."""
        if not self.has_plans():
            without = np.flatnonzero(~self.kept.any(axis=1))
            raise ConstraintError(
                f"none of the {self.kept.shape[1]} candidates of problem {without[0]} keeps the "
                f"constraints: what is fixed or frozen, the forbidden rectangles and the rules of "
                f"one gesture leave too little. Loosen them; more num_candidates may help"
            )

    def choice(self, *, ranking: bool) -> NDArray[np.intp]:
        """`[B]`, the plan of each problem: the cheapest, or one whose cost is not known.

        Where the worst cost near the cheapest ones is known, the plan is the lowest of those. With
        `ranking` (there is a cost, asked or predicted) and no time to ask for it, the plan is the
        warm start, if it may be; without any cost, the first sample that may.
        """
        self.require_kept()
        if not ranking and self._num_given == 0 and self.kept[:, 0].all():
            return np.zeros(len(self.kept), np.intp)
        allowed = self.kept.copy()
        allowed[:, : self.num_ranked] = False
        if not ranking:
            sampled = allowed[:, self._num_given :].any(axis=1, keepdims=True)
            allowed[:, : self._num_given] &= ~sampled
        best = self.best_cost()
        require_finite_cost(np.where(allowed.any(axis=1), 0.0, best))
        unranked = np.argmax(allowed, axis=1)
        if self.num_ranked == 0:
            return np.asarray(unranked)
        ranked = self.cost if self.worst is None else self.worst
        return np.asarray(np.where(best < np.inf, ranked.argmin(axis=1), unranked))

    def cost_of_choice(self, choice: NDArray[np.intp]) -> FloatArray:
        """`[B]`, the cost of the chosen candidates; NaN where it was not asked for."""
        padded = np.pad(self.cost, ((0, 0), (0, self.num_unranked)), constant_values=np.nan)
        cost = padded[np.arange(len(choice)), choice]
        return np.where(cost < np.inf, cost, np.nan)


def projected(
    diffused: FloatArray, spec: ActionSpec, wanted: bool
) -> tuple[FloatArray, FloatArray]:
    """Actions `[B, K, L, A]` in the planner's units, as decoded, and projected where `wanted`."""
    decoded, valid = decode_checked(diffused, spec)
    if not wanted or valid.all():
        return decoded, decoded
    actions = decoded.copy()
    actions[~valid] = project(decoded[~valid], spec)
    return decoded, actions


def predicted_cost(
    ranker: CostPredictor, candidates: FloatArray, condition: FloatArray, spec: ActionSpec
) -> FloatArray:
    """The predicted cost `[B, K]` of candidates `[B, K, L, A]` in the planner's units."""
    batch, count = candidates.shape[:2]
    diffused = encode(project(candidates, spec), spec)
    rows = np.ascontiguousarray(diffused.reshape(-1, *spec.diffused_shape), np.float32)
    values = np.asarray(ranker(rows, np.repeat(condition, count, axis=0)))
    if values.shape != (len(rows),) or not np.isfinite(values).all():
        raise BundleError(
            f"the ranker returned shape {values.shape} with {int(np.sum(~np.isfinite(values)))} "
            f"values that are NaN or infinite, for {len(rows)} candidates. Check its weights, or "
            f"export the checkpoint again"
        )
    return values.reshape(batch, count)


class Ranking:
    """Ranks what is in the pool, and counts what that took.

    Where the problem has no cost, the ranker's prediction stands in for it: it chooses the plan,
    but is never reported as the plan's cost.
    """

    def __init__(
        self,
        cost: CostFn | None,
        predict: Predict | None,
        num_ranked: int | None,
        pool: Pool,
        clock: Deadline,
    ) -> None:
        self._cost, self._predict, self._pool, self._clock = cost, predict, pool, clock
        self._batch, self._num_ranked = len(pool.actions), num_ranked
        self.history: list[FloatArray] = []  # the best cost `[B]` after each round
        self.num_cost_evaluations, self.seconds = 0, {"cost": 0.0}
        if predict is not None:
            self.seconds["rank"] = 0.0

    @property
    def exists(self) -> bool:
        """Whether there is anything to rank by."""
        return self._cost is not None or self._predict is not None

    def next_operations(self, rows: int) -> list[tuple[str, int, int]]:
        """What must fit into the time left for `rows` more candidates to be worth making."""
        predicted = [("rank", rows, 1)] if self._predict is not None else []
        return predicted + ([("cost", self._batch, 1)] if self._cost is not None else [])

    def rank(self, count: int) -> None:
        """Rank the new candidates while there is time, and forget all but the best `count`."""
        pool = self._pool
        if self._cost is not None:
            self._pick()
            unranked = pool.actions[:, pool.num_ranked :]
            for part in self._slices(unranked.shape[1], self._batch):
                pool.rank(self._asked(self._cost, unranked[:, part]))
        elif (predicted := self._predicted(pool.num_ranked)) is not None:
            pool.rank(predicted)
        if not self.exists:
            return
        if pool.num_unranked == 0:
            pool.require_kept()
            require_finite_cost(pool.best_cost())
        if (pool.best_cost() < np.inf).all():
            pool.keep_best(count)
            if self._cost is not None:
                self.history.append(pool.best_cost())

    def check_robustness(self, copies_of: Callable[[FloatArray], FloatArray], num: int) -> None:
        """Ask about the `num` cheapest again, moved a little; the best worst cost will be the plan.

        `copies_of` makes copies `[B, K, S, L, A]` of candidates; fewer if there is no time for all.
        """
        pool, batch = self._pool, self._batch
        num = min(num, pool.num_ranked)
        if self._cost is None or num < 2 or not (pool.best_cost() < np.inf).all():
            return
        copies = copies_of(pool.actions[:, :num])
        worst = []
        for part in self._slices(num, batch * copies.shape[2]):
            asked = copies[:, part]
            costs = self._asked(self._cost, asked.reshape(batch, -1, *asked.shape[3:]))
            worst.append(costs.reshape(asked.shape[:3]).max(axis=2))
        if worst:
            moved = np.concatenate(worst, axis=1)
            pool.worst = np.maximum(pool.cost[:, : moved.shape[1]], moved)

    def choice(self) -> tuple[NDArray[np.intp], FloatArray]:
        """`[B]`, the plan of each problem, see `Pool.choice`, and `[B]`, its own cost."""
        best = self._pool.choice(ranking=self._cost is not None or self._pool.num_ranked > 0)
        if self._cost is None:
            return best, np.full(self._batch, np.nan)
        return best, self._pool.cost_of_choice(best)

    def _pick(self) -> None:
        """Leave only those to the cost that the ranker picks; the first, if it has no time."""
        first, num = self._pool.first_in_question, self._num_ranked
        if self._predict and num is not None and self._pool.actions.shape[1] - first > num:
            self._pool.keep_promising(self._predicted(first), num)

    def _predicted(self, first: int) -> FloatArray | None:
        """The predicted cost `[B, n]` of the candidates from `first` on, if there is time."""
        actions = self._pool.actions[:, first:]
        rows = actions.shape[0] * actions.shape[1]
        if self._predict is None or not self._clock.allows(("rank", rows, 1)):
            return None
        return self._timed("rank", rows, self._predict, actions)

    def _slices(self, num: int, each: int) -> Iterator[slice]:
        """Parts of `num` things to ask the cost about, `each` rows of it, while there is time."""
        first = 0
        while first < num:
            size = self._clock.largest_slice("cost", num - first, each)
            if not self._clock.allows(("cost", size * each, 1)):
                return
            yield slice(first, first + size)
            first += size

    def _asked(self, cost: CostFn, actions: FloatArray) -> FloatArray:
        """The cost `[B, n]` of actions `[B, n, L, A]`, counted and timed."""
        asked = actions.shape[0] * actions.shape[1]
        self.num_cost_evaluations += asked
        return self._timed("cost", asked, partial(cost_of, cost), actions)

    def _timed(
        self, phase: str, rows: int, function: Callable[[FloatArray], FloatArray], given: FloatArray
    ) -> FloatArray:
        begun = time.perf_counter()
        values = function(given)
        taken = time.perf_counter() - begun
        self.seconds[phase] += taken
        self._clock.record(phase, rows, taken)
        return values
