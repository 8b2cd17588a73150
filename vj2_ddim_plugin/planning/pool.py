"""The candidates of one planning call: a growing pool, and what is known of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ConstraintError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Candidates", "Pool"]


class Candidates(NamedTuple):
    """Actions `[B, K, L, A]`, how far each was moved, and whether it keeps the constraints."""

    actions: FloatArray
    moved: FloatArray
    kept: NDArray[np.bool_]


class Pool:
    """Candidates `[B, K', L, A]` in the order they came; the first ones are ranked.

    Attributes:
        actions: `[B, K', L, A]`.
        moved: `[B, K']`, how far projection and constraints moved each.
        kept: `[B, K']`, whether it keeps the constraints; one that does not is never the plan.
        cost: `[B, ranked]`, infinite where it may not be the plan.
    """

    def __init__(self, actions: FloatArray, kept: NDArray[np.bool_]) -> None:
        self.actions, self.kept = actions, kept
        self.moved = np.zeros(actions.shape[:2])
        self.cost = np.zeros((len(actions), 0))

    @property
    def num_ranked(self) -> int:
        """Candidates a problem whose cost is known."""
        return int(self.cost.shape[1])

    @property
    def num_unranked(self) -> int:
        """Candidates a problem whose cost is not known yet."""
        return int(self.actions.shape[1]) - self.num_ranked

    def add(self, candidates: Candidates) -> None:
        """Append K more candidates a problem."""
        self.actions = np.concatenate([self.actions, candidates.actions], axis=1)
        self.moved = np.concatenate([self.moved, candidates.moved], axis=1)
        self.kept = np.concatenate([self.kept, candidates.kept], axis=1)

    def rank(self, cost: FloatArray) -> None:
        """Append the cost `[B, n]` of the next n candidates."""
        kept = self.kept[:, self.num_ranked : self.num_ranked + cost.shape[1]]
        self.cost = np.concatenate([self.cost, np.where(kept, cost, np.inf)], axis=1)

    def drop_unranked(self) -> None:
        """Forget the candidates there was no time to rank, if any could be ranked."""
        if self.num_ranked and self.num_unranked:
            ranked = slice(self.num_ranked)
            self.actions, self.moved = self.actions[:, ranked], self.moved[:, ranked]
            self.kept = self.kept[:, ranked]

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
        without = np.flatnonzero(~self.kept.any(axis=1))
        if len(without):
            raise ConstraintError(
                f"none of the {self.kept.shape[1]} candidates of problem {without[0]} keeps the "
                f"constraints. Fixed entries and forbidden rectangles may contradict each other; "
                f"more candidates may help"
            )

    def choice(self, *, prefer_last: bool) -> NDArray[np.intp]:
        """`[B]`, the plan of each problem: the cheapest, else the last or first one kept."""
        if self.num_ranked:
            return np.asarray(np.argmin(self.cost, axis=1))
        if prefer_last:
            return np.asarray(self.kept.shape[1] - 1 - np.argmax(self.kept[:, ::-1], axis=1))
        return np.asarray(np.argmax(self.kept, axis=1))
