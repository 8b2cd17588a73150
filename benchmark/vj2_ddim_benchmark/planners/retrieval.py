"""Retrieval: do what was done in training between the two states most like these."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.trajectories import Trajectories

FEATURES = ("both", "difference")  # one after the other, or what changed
ROWS_PER_CHUNK = 1024  # transitions read at once

Float32 = NDArray[np.float32]


def features_of(state: FloatArray, goal: FloatArray, kind: str) -> Float32:
    """What is compared, `[n, F]`, of latents before and after, `[n, N, D]`; see `FEATURES`."""
    if kind not in FEATURES:
        raise ConfigError(f"features {kind!r} are unknown; use one of {', '.join(FEATURES)}")
    before, after = (np.asarray(z, np.float32).reshape(len(z), -1) for z in (state, goal))
    return np.concatenate([before, after], axis=1) if kind == "both" else after - before


@dataclass(frozen=True)
class Memory:
    """Transitions, held ready to be compared: features `[n, F]` of a kind, actions `[n, L, A]`."""

    features: Float32
    actions: Float32
    kind: str

    @classmethod
    def of(
        cls, transitions: Trajectories, kind: str = "both", max_bytes: int = 1 << 30, seed: int = 0
    ) -> "Memory":
        """Read transitions, chunk by chunk; if too many for `max_bytes`, a random part of them."""
        if not len(transitions):
            raise ConfigError("there are no transitions to retrieve from; give other data")
        state, goal, actions = transitions.gather([0])
        rows = features_of(state, goal, kind)[0], actions[0]
        each = sum(row.nbytes for row in rows)
        num = min(len(transitions), max_bytes // each)
        if num < 1:
            raise ConfigError(f"max_bytes {max_bytes} holds no transition; one takes {each} bytes")
        chosen = np.arange(len(transitions))
        if num < len(transitions):
            chosen = np.sort(np.random.default_rng(seed).permutation(chosen)[:num])
        features, blocks = (np.empty((num, *row.shape), np.float32) for row in rows)
        memory = cls(features, blocks, kind)
        for first in range(0, num, ROWS_PER_CHUNK):
            part = slice(first, first + ROWS_PER_CHUNK)
            state, goal, memory.actions[part] = transitions.gather(chosen[part])
            memory.features[part] = features_of(state, goal, kind)
        return memory

    def nearest(self, state: FloatArray, goal: FloatArray, num: int) -> IntArray:
        """The rows of lowest squared distance to each of B problems, `[B, num]`, nearest first."""
        asked = features_of(state, goal, self.kind)
        if asked.shape[1] != self.features.shape[1]:
            raise ContextError(
                f"state and goal have {asked.shape[1]} features, the remembered transitions "
                f"{self.features.shape[1]}; use those of the same world model"
            )
        # |known - asked|^2 without the part that is the same for all known; one problem at a time,
        # so that rounding does not depend on the batch
        distance = np.stack([self._squared_norm - 2 * (self.features @ row) for row in asked])
        return np.argsort(distance, axis=1, kind="stable")[:, :num]

    @cached_property
    def _squared_norm(self) -> Float32:
        """`[n]`."""
        norm: Float32 = np.einsum("nf,nf->n", self.features, self.features)
        return norm


class RetrievalOptimizer:
    """An `ActionOptimizer` that returns what was done nearest; with a cost, of the nearest."""

    def __init__(self, action_spec: ActionSpec, memory: Memory, num_neighbours: int = 16) -> None:
        most = len(memory.actions)
        if not 1 <= num_neighbours <= most:
            raise ConfigError(
                f"num_neighbours must be at least 1 and at most {most}, the transitions there are; "
                f"found {num_neighbours}"
            )
        self.action_spec, self.memory = action_spec, memory
        self.num_neighbours, self._pace = num_neighbours, Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan in one round; `init_action`, when there is a cost, is one candidate more."""
        if missing := {"state", "goal"} - set(problem.context):
            raise ContextError(f"retrieval needs {sorted(missing)} in the context")
        ranking = Ranking(problem, self.action_spec, 0, "retrieval", self._pace, needs_cost=False)
        num = 1 if problem.cost is None else self.num_neighbours
        nearest = self.memory.nearest(problem.context["state"], problem.context["goal"], num)
        return ranking.once(self.memory.actions[nearest], "numpy")
