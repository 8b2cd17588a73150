"""The candidates of one planning call: the best so far, and what is known of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ConstraintError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.planning.checks import require_finite_cost

__all__ = ["Candidates", "Pool"]


class Candidates(NamedTuple):
    """Actions `[B, K, L, A]`, how far each was moved, and whether it keeps the constraints."""

    actions: FloatArray
    moved: FloatArray
    kept: NDArray[np.bool_]

    @classmethod
    def changed(
        cls, before: FloatArray, actions: FloatArray, kept: NDArray[np.bool_]
    ) -> Candidates:
        """Actions that were `before` projection and constraints changed them."""
        if actions is before:
            return cls(actions, np.zeros(actions.shape[:2]), kept)
        return cls(actions, np.abs(actions - before).max(axis=(2, 3), initial=0.0), kept)


class Pool:
    """Candidates `[B, K', L, A]`, of which the first are ranked.

    Args:
        warm_start: The first candidates, none or one a problem.

    Attributes:
        actions: `[B, K', L, A]`.
        moved: `[B, K']`, how far projection and constraints moved each.
        kept: `[B, K']`, whether it keeps the constraints; one that does not is never the plan.
        cost: `[B, ranked]`, infinite where it may not be the plan.
        worst: `[B, n]`, the worst cost near each of the first n candidates; None if none is known.
    """

    def __init__(self, warm_start: Candidates) -> None:
        self.actions, self.moved, self.kept = warm_start
        self.cost = np.zeros((len(self.actions), 0))
        self.worst: FloatArray | None = None
        self._num_given = int(self.actions.shape[1])

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
            rows = np.arange(len(self.actions))[:, None]
            order = np.argsort(~candidates.kept, axis=1, kind="stable")
            actions, moved, kept = (array[rows, order] for array in candidates)
        else:
            actions, moved, kept = candidates
        self.actions = np.concatenate([self.actions, actions], axis=1)
        self.moved = np.concatenate([self.moved, moved], axis=1)
        self.kept = np.concatenate([self.kept, kept], axis=1)

    def rank(self, cost: FloatArray) -> None:
        """Append the cost `[B, n]` of the next n candidates."""
        kept = self.kept[:, self.num_ranked : self.num_ranked + cost.shape[1]]
        self.cost = np.concatenate([self.cost, np.where(kept, cost, np.inf)], axis=1)

    def keep_best(self, count: int) -> None:
        """Forget all but the cheapest `count` candidates a problem, and those without a cost."""
        order = np.argsort(self.cost, axis=1, kind="stable")[:, :count]
        self.cost = self.cost[np.arange(len(order))[:, None], order]
        self._keep(order)

    @property
    def first_in_question(self) -> int:
        """Index of the first candidate that `keep_promising` may forget."""
        return max(self.num_ranked, self._num_given)

    def keep_promising(self, predicted: FloatArray | None, count: int) -> None:
        """Forget all but `count` of the candidates from `first_in_question` on; the rest stay.

        Args:
            predicted: Their predicted cost `[B, n]`: the lowest are kept, in this order, those that
                do not keep the constraints last. None keeps the first ones.
            count: How many a problem.
        """
        first, size = self.first_in_question, self.actions.shape[1]
        order = np.broadcast_to(np.arange(first, size), (len(self.actions), size - first))
        if predicted is not None:
            allowed = np.where(self.kept[:, first:], predicted, np.inf)
            order = first + np.argsort(allowed, axis=1, kind="stable")
        known = np.broadcast_to(np.arange(first), (len(order), first))
        self._keep(np.concatenate([known, order[:, :count]], axis=1))

    def _keep(self, columns: NDArray[np.intp]) -> None:
        """Only these candidates `[B, n]` of each problem, in this order."""
        rows = np.arange(len(columns))[:, None]
        self.actions, self.moved = self.actions[rows, columns], self.moved[rows, columns]
        self.kept = self.kept[rows, columns]

    def best_cost(self) -> FloatArray:
        """`[B]`, the lowest cost so far."""
        return np.asarray(self.cost.min(axis=1, initial=np.inf))

    def elites(self, count: int) -> FloatArray:
        """The best quarter, `[B, count, L, A]`, each repeated as often as needed."""
        order = np.argsort(self.cost, axis=1, kind="stable")[:, : max(1, count // 4)]
        chosen = order[:, np.arange(count) % order.shape[1]]
        return np.asarray(self.actions[np.arange(len(order))[:, None], chosen])

    def require_kept(self) -> None:
        """Raise `ConstraintError` where a problem has no candidate that may be its plan."""
        if not self.has_plans():
            without = np.flatnonzero(~self.kept.any(axis=1))
            raise ConstraintError(
                f"none of the {self.kept.shape[1]} candidates of problem {without[0]} keeps the "
                f"constraints: what is fixed or frozen, the forbidden rectangles and the rules of "
                f"one gesture leave too little. Loosen them; more num_candidates may help"
            )

    def has_plans(self) -> bool:
        """Whether every problem has a candidate that may be its plan."""
        return bool(self.kept.any(axis=1).all())

    def choice(self, *, ranking: bool) -> NDArray[np.intp]:
        """`[B]`, the plan of each problem: the cheapest, or one whose cost is not known.

        Where the worst cost near the cheapest ones is known, the plan is the lowest of those.

        Args:
            ranking: Whether there is a cost, asked or predicted. If there was no time to ask for
                it, the plan is the warm start, if it may be; without a cost at all, it is the first
                sample that may.

        Raises:
            ConstraintError: A problem has no candidate that keeps the constraints.
            CostError: Or none that the cost does not call infinitely bad.
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
        return np.asarray(np.where(np.isfinite(best), ranked.argmin(axis=1), unranked))

    def cost_of_choice(self, choice: NDArray[np.intp]) -> FloatArray:
        """`[B]`, the cost of the chosen candidates; NaN where it was not asked for."""
        if self.num_ranked == 0:
            return np.full(len(choice), np.nan)
        padded = np.pad(self.cost, ((0, 0), (0, self.num_unranked)), constant_values=np.nan)
        cost = padded[np.arange(len(choice)), choice]
        return np.where(np.isfinite(cost), cost, np.nan)
