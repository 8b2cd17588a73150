"""The loop that all sampling planners share: draw a population, rank it, learn from it, again.

A planner is one `Proposal`: how the next population is drawn, and what is learnt from the ranks of
the last. Everything else (first population, warm start, deadline, accounts) is here, the same for
all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import numpy as np

from vj2_ddim_benchmark.planners.parameter_spaces import ParameterSpace
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_benchmark.planners.starts import DrawGestures, any_gestures, draw_sequences
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.deadline import Pace

__all__ = [
    "POPULATION_STARTS",
    "PopulationOptimizer",
    "Proposal",
    "require_at_least",
    "require_in",
]

POPULATION_STARTS = ("middle", "gestures")


def require_at_least(lowest: int, **settings: int) -> None:
    """Raise `ConfigError` for the first setting below `lowest`."""
    for name, value in settings.items():
        if value < lowest:
            raise ConfigError(f"{name} must be at least {lowest}; found {value}")


def require_in(low: float, high: float, **settings: float) -> None:
    """Raise `ConfigError` for the first setting outside `[low, high)`, NaN included."""
    for name, value in settings.items():
        if not low <= value < high:
            raise ConfigError(f"{name} must be at least {low} and below {high}; found {value}")


class Proposal(Protocol):
    """Where the next population comes from, for B problems in one planning call."""

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Draw parameters `[B, K, M, C]`, the random numbers equal for all problems.

        Args:
            rng: Source of randomness.
            iteration: 0 for the first population.
        """
        ...

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Learn from parameters `[B, K, M, C]` and their cost `[B, K]`."""
        ...


class PopulationOptimizer(ABC):
    """An `ActionOptimizer` that draws and ranks `num_iterations` populations.

    The first population is drawn around the warm start, which is one of it; without a warm start,
    around the middle of the bounds, or it is real gestures. Every problem of a batch gets the same
    random numbers, drawn from the seed alone.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        space: What is searched over.
        num_samples: Candidates K of the first population.
        num_iterations: Populations.
        start: `middle` or `gestures`, used where there is no warm start.
        draw_gestures: Source of the real gestures.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range or unknown.
    """

    name: ClassVar[str]

    def __init__(
        self,
        action_spec: ActionSpec,
        space: ParameterSpace,
        *,
        num_samples: int,
        num_iterations: int,
        start: str,
        draw_gestures: DrawGestures = any_gestures,
        seed: int = 0,
    ) -> None:
        require_at_least(1, num_samples=num_samples, num_iterations=num_iterations)
        require_at_least(0, seed=seed)
        if start not in POPULATION_STARTS:
            raise ConfigError(
                f"start {start!r} is unknown; use one of {', '.join(POPULATION_STARTS)}"
            )
        self.action_spec, self.space = action_spec, space
        self.num_samples, self.num_iterations = num_samples, num_iterations
        self.start, self.draw_gestures, self.seed = start, draw_gestures, seed
        self._pace = Pace()

    @abstractmethod
    def proposal(self, mean: FloatArray) -> Proposal:
        """The proposal of a planning call that starts around parameters `[B, M, C]`."""

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan.

        Args:
            problem: See `PlanningProblem`. `init_action` is the first candidate and the mean of the
                first population.

        Returns:
            The candidate of lowest cost of all populations, projected before it was ranked; never
            worse than the projected `init_action` (itself, when it is a valid gesture).

        Raises:
            ContextError: There is no cost, or the problem does not fit.
        """
        ranking = Ranking(
            problem, self.action_spec, seed=self.seed, planner=self.name, pace=self._pace
        )
        proposal, parameters = self._first(ranking)
        candidates = self.space.decode(parameters)
        candidates[:, : ranking.warm_start.shape[1]] = ranking.warm_start
        for iteration in range(1, self.num_iterations + 1):
            cost = ranking.rank(candidates)
            if iteration == self.num_iterations or ranking.out_of_time():
                break
            proposal.tell(parameters, cost)
            parameters = self.space.clip(proposal.ask(ranking.rng, iteration))
            candidates = self.space.decode(parameters)
        return ranking.result()

    def _first(self, ranking: Ranking) -> tuple[Proposal, FloatArray]:
        """The proposal, and the first population `[B, K, M, C]`."""
        shape = (ranking.batch, *self.space.shape)
        if ranking.warm_start.shape[1]:
            warm = self.space.encode(ranking.warm_start[:, 0])
            proposal = self.proposal(warm)
            parameters = self.space.clip(proposal.ask(ranking.rng, 0))
            parameters[:, 0] = warm
            return proposal, parameters
        if self.start == "middle":
            proposal = self.proposal(np.zeros(shape))
            return proposal, self.space.clip(proposal.ask(ranking.rng, 0))
        drawn = draw_sequences(self.num_samples, self.action_spec, self.draw_gestures, ranking.rng)
        parameters = self.space.encode(drawn)
        proposal = self.proposal(np.broadcast_to(parameters.mean(axis=0), shape))
        return proposal, np.tile(parameters, (ranking.batch, 1, 1, 1))
