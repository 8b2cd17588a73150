"""The planners that sample: one loop that proposes a population, ranks it and learns from it.

A planner is its settings: what is searched over, and the `Proposal` that draws and learns.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from vj2_ddim_benchmark.planners.parameter_spaces import (
    ActionKnots,
    ParameterSpace,
    draw_sequences,
    natural_space,
)
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking, required_cost
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning import checks
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec

POPULATION_STARTS = ("middle", "gestures")


class Proposal(Protocol):
    """Where the next population comes from, for B problems in one planning call."""

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Draw parameters `[B, K, M, C]`, the same random numbers for all B; 0 is the first."""

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Learn from parameters `[B, K, M, C]` and their cost `[B, K]`."""


@dataclass(frozen=True)
class PopulationSettings(Settings, ABC):
    """What all planners that sample have in common."""

    planner: ClassVar[str]  # named in errors

    num_samples: int = setting(32, "Candidates of the first population.", low=1)
    num_iterations: int = setting(8, "Populations.", low=1)
    start: str = setting("middle", "Where, if not at a warm start.", choices=POPULATION_STARTS)
    seed: int = setting(0, "Used where a problem brings none.", low=0)

    def space(self, spec: ActionSpec) -> ParameterSpace:
        """What is searched over: the actions, or knots of them where there is such a setting."""
        return ActionKnots(spec, getattr(self, "num_knots", None))

    @abstractmethod
    def proposal(self, mean: FloatArray) -> Proposal:
        """The proposal of a planning call that starts around parameters `[B, M, C]`."""


class PopulationOptimizer:
    """An `ActionOptimizer` that draws and ranks populations."""

    def __init__(self, action_spec: ActionSpec, settings: PopulationSettings) -> None:
        self.action_spec, self.settings = action_spec, settings
        self.space, self._pace = settings.space(action_spec), Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """The projected candidate of lowest cost; the first is the projected `init_action`."""
        how = self.settings
        ranking = Ranking(problem, self.action_spec, how.seed, how.planner, self._pace)
        proposal, parameters = self._first(ranking)
        candidates = self.space.decode(parameters)
        candidates[:, : ranking.warm_start.shape[1]] = ranking.warm_start
        found = parameters, candidates, how.num_iterations, ranking.rng
        return search(ranking, self.space, proposal, *found)

    def _first(self, ranking: Ranking) -> tuple[Proposal, FloatArray]:
        """The proposal, and the first population `[B, K, M, C]`."""
        shape, warm = (ranking.batch, *self.space.shape), ranking.warm_start
        if self.settings.start == "gestures" and not warm.shape[1]:
            drawn = draw_sequences(self.settings.num_samples, self.action_spec, ranking.rng)
            parameters = self.space.encode(drawn)
            proposal = self.settings.proposal(np.broadcast_to(parameters.mean(axis=0), shape))
            return proposal, np.tile(parameters, (ranking.batch, 1, 1, 1))
        mean = self.space.encode(warm[:, 0]) if warm.shape[1] else np.zeros(shape)
        proposal = self.settings.proposal(mean)
        parameters = self.space.clip(proposal.ask(ranking.rng, 0))
        if warm.shape[1]:
            parameters[:, 0] = mean
        return proposal, parameters


def search(
    ranking: Ranking, space: ParameterSpace, proposal: Proposal,
    parameters: FloatArray, candidates: FloatArray, num_iterations: int, rng: np.random.Generator,
) -> RankedPlan:  # fmt: skip
    """Rank the first population, learn, propose the next: the loop of every planner here."""
    for iteration in range(1, num_iterations + 1):
        cost = ranking.rank(candidates)
        if iteration == num_iterations or ranking.out_of_time():
            break
        proposal.tell(parameters, cost)
        parameters = space.clip(proposal.ask(rng, iteration))
        candidates = space.decode(parameters)
    return ranking.result()


def elites_of(
    parameters: FloatArray, cost: FloatArray, num_elites: int
) -> tuple[FloatArray, FloatArray]:
    """The rows of lowest cost, best first (the earlier of equals): `[B, E, M, C]` and `[B, E]`."""
    best = np.argsort(cost, axis=1, kind="stable")[:, :num_elites]
    chosen = np.take_along_axis(parameters, best[:, :, None, None], axis=1)
    return chosen, np.take_along_axis(cost, best, axis=1)


@dataclass(frozen=True)
class MPPI(PopulationSettings):
    """Every sample moves the plan, the more the lower its cost; the first sample is the mean.

    Williams et al. (2017), "Information theoretic MPC for model-based reinforcement learning". The
    latent cost has no term for the controls themselves, so none is added to the weights.
    """

    planner = "MPPI"

    temperature: float = setting(1e-4, "Cost differences that matter by e.", above=0.0)
    noise_std: float = setting(0.5, "Of the samples; 1 is half of a channel's range.", above=0.0)
    num_knots: int | None = setting(None, "See `ActionKnots`.", low=2)

    def proposal(self, mean: FloatArray) -> "PathIntegral":
        """Samples around the mean."""
        return PathIntegral(self, mean)


class PathIntegral:
    """The `Proposal` of MPPI."""

    def __init__(self, how: MPPI, mean: FloatArray) -> None:
        self.how, self.mean = how, mean

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """The mean itself, then samples around it."""
        shape = (self.how.num_samples, *self.mean.shape[1:])
        noise = self.how.noise_std * rng.standard_normal(shape)
        noise[0] = 0.0
        return self.mean[:, None] + noise

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Move to the weighted mean; samples count as they were after clipping."""
        known = np.flatnonzero(np.isfinite(cost).any(axis=1))
        weights = path_integral_weights(cost[known], self.how.temperature)
        self.mean = self.mean.copy()
        self.mean[known] = np.einsum("bk,bkmc->bmc", weights, parameters[known])


def path_integral_weights(cost: FloatArray, temperature: float) -> FloatArray:
    """`exp(-(cost - lowest) / temperature)` of `[B, K]`, summing to 1 over K."""
    weights: FloatArray = np.exp(-(cost - cost.min(axis=1, keepdims=True)) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


@dataclass(frozen=True)
class PredictiveSampling(PopulationSettings):
    """Take the best of many real gestures, then the best around it; one round is ranking alone.

    Howell et al. (2022), "Predictive sampling: real-time behaviour synthesis with MuJoCo". Touches
    are perturbed in their gesture parameters, other actions as they are.
    """

    planner = "predictive sampling"

    start: str = setting("gestures", "See `PopulationSettings`.", choices=POPULATION_STARTS)
    noise_std: float = setting(0.1, "Of the neighbours; 1 is half of all.", above=0.0)

    def space(self, spec: ActionSpec) -> ParameterSpace:
        """Gestures where the actions are touches."""
        return natural_space(spec)

    def proposal(self, mean: FloatArray) -> "AroundTheBest":
        """Samples around the mean until there is a best."""
        return AroundTheBest(self, mean)


class AroundTheBest:
    """The `Proposal` of predictive sampling."""

    def __init__(self, how: PredictiveSampling, mean: FloatArray) -> None:
        self.how, self.best = how, mean
        self.best_cost = np.full(len(mean), np.inf)

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Samples around the best parameters so far."""
        shape = (self.how.num_samples, *self.best.shape[1:])
        return self.best[:, None] + self.how.noise_std * rng.standard_normal(shape)

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Keep the best; it is never lost."""
        first, lowest = elites_of(parameters, cost, 1)
        better = lowest[:, 0] < self.best_cost
        self.best = np.where(better[:, None, None], first[:, 0], self.best)
        self.best_cost = np.where(better, lowest[:, 0], self.best_cost)


@dataclass(frozen=True)
class RandomGestures(Settings):
    """How random gestures are planned with."""

    num_candidates: int = setting(16, "Gestures that are ranked.", low=1)
    seed: int = setting(0, "Used where a problem brings none.", low=0)


class RandomGesturesOptimizer:
    """An `ActionOptimizer` that returns the cheapest of gestures drawn from the seed alone."""

    def __init__(self, action_spec: ActionSpec, settings: RandomGestures) -> None:
        self.action_spec, self.settings = action_spec, settings

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan in one round; `init_action`, when given, is one candidate more."""
        begun = time.perf_counter()
        judge = required_cost(problem, "ranking random gestures")
        batch = checks.checked_batch(problem, problem.context)
        rng = np.random.default_rng(checks.checked_seed(problem, self.settings.seed))
        drawn = draw_sequences(self.settings.num_candidates, self.action_spec, rng)
        warm = checks.padded_warm_start(problem.init_action, self.action_spec, batch)
        candidates = np.concatenate([warm, np.tile(drawn, (batch, 1, 1, 1))], axis=1)
        cost = checks.checked_cost(judge, candidates)
        rows, chosen = np.arange(batch), cost.argmin(axis=1)
        return PlanResult(
            actions=candidates[rows, chosen],
            cost=cost[rows, chosen],
            history=cost[rows, chosen][None],
            num_cost_evaluations=cost.size,
            num_denoiser_evaluations=0,
            wall_time_s={"total": time.perf_counter() - begun},
            provider="numpy",
            stopped_because="finished",
            projection_distance=np.zeros(batch),
        )
