"""CEM that begins at another planner's ranked candidates in place of a guess."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from vj2_ddim_benchmark.planners.cem import CrossEntropy, Gaussian, GaussianSettings, elites_of
from vj2_ddim_benchmark.planners.gesture_cem import COVARIANCES, CorrelatedGaussian
from vj2_ddim_benchmark.planners.parameter_spaces import natural_space
from vj2_ddim_benchmark.planners.population import require_at_least
from vj2_ddim_benchmark.planners.ranking import Ranking
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning.checks import checked_seed
from vj2_ddim_plugin.planning.deadline import Pace

__all__ = ["CandidateCEM"]

STREAM = 1  # of random numbers: not the ones that the candidates were drawn with


@dataclass(frozen=True)
class CandidateCEM:
    """CEM whose first Gaussian is fitted to the best candidates, which stay in every population.

    Attributes:
        action_spec: What candidates are; touches are searched as gestures of six numbers.
        num_samples: Candidates that are drawn in each population, beside the elites carried in.
        num_iterations: Populations.
        num_elites: Best candidates so far, that the Gaussian is fitted to.
        smoothing: Share of the old mean and std that each later fit keeps.
        min_std: Floor of the standard deviation.
        covariance: `diagonal` or `full`.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: On construction, for a setting out of range or unknown.
    """

    action_spec: ActionSpec
    num_samples: int = 16
    num_iterations: int = 4
    num_elites: int = 4
    smoothing: float = 0.7
    min_std: float = 0.05
    covariance: str = "diagonal"
    seed: int = 0
    _pace: Pace = field(default_factory=Pace, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_at_least(1, num_samples=self.num_samples, num_iterations=self.num_iterations)
        require_at_least(0, seed=self.seed)
        if self.covariance not in COVARIANCES:
            raise ConfigError(
                f"covariance {self.covariance!r} is unknown; use one of {', '.join(COVARIANCES)}"
            )
        self._settings()

    def __call__(
        self,
        problem: PlanningProblem,
        first: PlanResult,
        candidates: FloatArray,
        cost: FloatArray,
        /,
    ) -> PlanResult:
        """Search around the candidates `[B, K, L, A]` of known cost `[B, K]`."""
        ranking = Ranking(
            problem, self.action_spec, seed=self.seed, planner="DDIM-started CEM", pace=self._pace
        )
        rng = np.random.default_rng((checked_seed(problem, self.seed), STREAM))
        space = natural_space(self.action_spec)
        elites, cost = elites_of(space.encode(candidates), cost, self.num_elites)
        proposal = CrossEntropy(self._fitted(elites), self.num_samples)
        for iteration in range(1, self.num_iterations + 1):
            drawn = space.clip(proposal.ask(rng, iteration))
            drawn_cost = ranking.rank(space.decode(drawn))
            if iteration == self.num_iterations or ranking.out_of_time():
                break
            pool = np.concatenate([elites, drawn], axis=1)
            elites, cost = elites_of(
                pool, np.concatenate([cost, drawn_cost], axis=1), self.num_elites
            )
            proposal.tell(elites, cost)
        return ranking.result()

    def _settings(self) -> GaussianSettings:
        """Of the Gaussian, checked; its first `std` is replaced by the elites'."""
        return GaussianSettings(1.0, self.num_elites, self.smoothing, self.min_std)

    def _fitted(self, elites: FloatArray) -> Gaussian:
        """The Gaussian of the elites alone, `[B, E, M, C]`."""
        kind = CorrelatedGaussian if self.covariance == "full" else Gaussian
        gaussian = kind(elites.mean(axis=1), replace(self._settings(), smoothing=0.0))
        gaussian.refit(elites)
        gaussian.settings = self._settings()
        return gaussian
