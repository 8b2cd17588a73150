"""Which candidate is the best: the ranker picks a few, the planner's cost decides among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.interface import CostFn, FloatArray
from vj2_ddim_plugin.model import SamplerModel
from vj2_ddim_plugin.planning.checks import cost_of, require_finite_cost
from vj2_ddim_plugin.planning.deadline import Deadline
from vj2_ddim_plugin.planning.pool import Pool
from vj2_ddim_plugin.planning.settings import SearchSettings
from vj2_ddim_plugin.ranker import predicted_cost, ranker_of

__all__ = ["Ranking"]


class Ranking:
    """Ranks what is in the pool, and counts what that took.

    Where the problem has no cost, the ranker's prediction stands in for it: it chooses the plan,
    but is never reported as the plan's cost.

    Args:
        model: May have a ranker.
        settings: `num_ranked` says whether to use it.
        cost: The problem's, or None.
        condition: Condition tokens `[B, S, W]`, or None for an unconditional model.
        pool: The candidates.
        clock: The time left.

    Attributes:
        history: The best cost `[B]` after each round; empty without a cost.
        num_cost_evaluations: Candidates whose cost was asked for, over all problems.
        seconds: By phase: `cost`, and `rank` where there is a ranker.
    """

    def __init__(
        self,
        model: SamplerModel,
        settings: SearchSettings,
        cost: CostFn | None,
        condition: FloatArray | None,
        pool: Pool,
        clock: Deadline,
    ) -> None:
        self._cost, self._pool, self._clock = cost, pool, clock
        self._batch, self._num_ranked = len(pool.actions), settings.num_ranked
        self._predict: Callable[[FloatArray], FloatArray] | None = None
        self.history: list[FloatArray] = []
        self.num_cost_evaluations, self.seconds = 0, {"cost": 0.0}
        ranker, spec = ranker_of(model), model.action_spec
        if self._num_ranked is not None and ranker is not None and condition is not None:
            self._predict = lambda actions: predicted_cost(ranker, actions, condition, spec)
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
        if self._cost is None:
            if (predicted := self._predicted(pool.num_ranked)) is not None:
                pool.rank(predicted)
        else:
            self._pick()
            self._ask(self._cost)
        if not self.exists:
            return
        if pool.num_unranked == 0:
            pool.require_kept()
            require_finite_cost(pool.best_cost())
        if np.isfinite(pool.best_cost()).all():
            pool.keep_best(count)
            if self._cost is not None:
                self.history.append(pool.best_cost())

    def check_robustness(self, copies_of: Callable[[FloatArray], FloatArray], num: int) -> None:
        """Ask about the cheapest again, moved a little; the best worst cost will be the plan.

        Args:
            copies_of: Candidates `[B, K, L, A]` to copies of them `[B, K, S, L, A]`.
            num: How many of the cheapest; fewer if there is no time for more.
        """
        pool, batch = self._pool, self._batch
        num = min(num, pool.num_ranked)
        if self._cost is None or num < 2 or not np.isfinite(pool.best_cost()).all():
            return
        copies = copies_of(pool.actions[:, :num])
        worst = []
        for part in self._slices(num, batch * copies.shape[2]):
            asked = copies[:, part]
            costs = self._timed_cost(self._cost, asked.reshape(batch, -1, *asked.shape[3:]))
            worst.append(costs.reshape(asked.shape[:3]).max(axis=2))
        if worst:
            moved = np.concatenate(worst, axis=1)
            pool.worst = np.maximum(pool.cost[:, : moved.shape[1]], moved)

    def choice(self) -> NDArray[np.intp]:
        """`[B]`, the plan of each problem, see `Pool.choice`."""
        return self._pool.choice(ranking=self._cost is not None or self._pool.num_ranked > 0)

    def cost_of_choice(self, choice: NDArray[np.intp]) -> FloatArray:
        """`[B]`, the planner's cost of the chosen candidates; NaN where it was not asked."""
        if self._cost is None:
            return np.full(self._batch, np.nan)
        return self._pool.cost_of_choice(choice)

    def _pick(self) -> None:
        """Leave only those to the cost that the ranker picks; the first, if it has no time."""
        first = self._pool.first_in_question
        if self._predict is None or self._num_ranked is None:
            return
        if self._pool.actions.shape[1] - first > self._num_ranked:
            self._pool.keep_promising(self._predicted(first), self._num_ranked)

    def _predicted(self, first: int) -> FloatArray | None:
        """The predicted cost `[B, n]` of the candidates from `first` on, if there is time."""
        actions = self._pool.actions[:, first:]
        rows = actions.shape[0] * actions.shape[1]
        if self._predict is None or not self._clock.allows(("rank", rows, 1)):
            return None
        begun = time.perf_counter()
        predicted = self._predict(actions)
        taken = time.perf_counter() - begun
        self.seconds["rank"] += taken
        self._clock.record("rank", rows, taken)
        return predicted

    def _ask(self, cost: CostFn) -> None:
        """The cost of the candidates that have none yet, in slices while there is time."""
        unranked = self._pool.actions[:, self._pool.num_ranked :]
        for part in self._slices(unranked.shape[1], self._batch):
            self._pool.rank(self._timed_cost(cost, unranked[:, part]))

    def _slices(self, num: int, each: int) -> Iterator[slice]:
        """Parts of `num` things to ask the cost about, `each` rows of it, while there is time."""
        first = 0
        while first < num:
            size = self._clock.largest_slice("cost", num - first, each)
            if not self._clock.allows(("cost", size * each, 1)):
                return
            yield slice(first, first + size)
            first += size

    def _timed_cost(self, cost: CostFn, actions: FloatArray) -> FloatArray:
        """The cost `[B, n]` of actions `[B, n, L, A]`, counted and timed."""
        begun = time.perf_counter()
        values = cost_of(cost, actions)
        taken = time.perf_counter() - begun
        self.seconds["cost"] += taken
        self._clock.record("cost", values.size, taken)
        self.num_cost_evaluations += values.size
        return values
