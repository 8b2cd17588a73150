"""Plans from a trained prediction: direct regression, and a Gaussian prior that is ranked.

Regression returns the mean of what was done between such states, in one pass. Where one goal has
one obvious gesture this is all that is needed; where it has several, their mean. The Gaussian prior
ranks the mean and samples around it, which is what sampling-based planning from a learned prior
comes to when the prior has one mode.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from vj2_ddim_benchmark.amortised.model import Predictor
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking, require_free_plan
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_batch, checked_context, checked_deadline
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["AmortisedOptimizer", "Sampling"]

NAMES = {"regression": "regression", "gaussian": "the Gaussian prior"}


@dataclass(frozen=True)
class Sampling(Settings):
    """What is made of a prediction."""

    num_candidates: int = setting(1, "The mean, and so many less one samples around it.", low=1)
    std_scale: float = setting(1.0, "Factor of the predicted standard deviation.", low=0.0)
    seed: int = setting(0, "Used where a problem brings none.", low=0)


class AmortisedOptimizer:
    """An `ActionOptimizer` that plans in one round from a trained model's mean and std.

    With a cost the warm start and all candidates are ranked; without, the mean is the plan. Every
    problem of a batch gets the same standard normal noise, drawn from the seed alone, as with DDIM.
    """

    def __init__(
        self, action_spec: ActionSpec, predictor: Predictor, settings: Sampling | None = None
    ) -> None:
        predicted = predictor.action_spec
        if (predicted.length, predicted.channels) != (action_spec.length, action_spec.channels):
            raise ConfigError(
                f"the model plans {predicted.length} actions of {predicted.channels}, the planner "
                f"needs {action_spec.length} of {action_spec.channels}; train it on the same data "
                f"as the denoiser"
            )
        self.action_spec, self.predictor = action_spec, predictor
        self.settings = settings or Sampling()
        self._planner, self._pace = NAMES[predictor.kind], Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan; `init_action`, where there is a cost, is one candidate more."""
        begun = time.perf_counter()
        context = checked_context(problem, self.predictor.condition)
        if problem.cost is None:
            return self._unranked(problem, context, begun)
        ranking = Ranking(
            problem,
            self.action_spec,
            seed=self.settings.seed,
            planner=self._planner,
            pace=self._pace,
        )
        mean, std = self.predictor.predict(context)
        predicted = time.perf_counter()
        candidates = self._decoded(self._drawn(mean, std, ranking.rng))
        ranking.rank(np.concatenate([ranking.warm_start, candidates], axis=1))
        result = ranking.result()
        total = time.perf_counter() - begun
        phases = {**result.wall_time_s, "predict": predicted - begun, "total": total}
        return replace(result, provider=self.predictor.provider, wall_time_s=phases)

    def _drawn(self, mean: FloatArray, std: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Normalized candidates `[B, K, M, C]`, the mean first."""
        how = self.settings
        if how.num_candidates == 1:
            return mean[:, None]
        noise = rng.standard_normal((how.num_candidates - 1, *mean.shape[1:]))
        noise = np.concatenate([np.zeros((1, *mean.shape[1:])), noise])
        return mean[:, None] + how.std_scale * std[:, None] * noise

    def _unranked(
        self, problem: PlanningProblem, context: dict[str, FloatArray], begun: float
    ) -> RankedPlan:
        """The mean, decoded and projected."""
        require_free_plan(problem, self._planner)
        batch, deadline_s = checked_batch(problem, context), checked_deadline(problem)
        mean, _ = self.predictor.predict(context)
        predicted, spec = time.perf_counter(), self.action_spec
        drawn = self._decoded(mean)
        actions = np.where(spec.is_valid(drawn)[:, None, None], drawn, spec.project(drawn))
        total = time.perf_counter() - begun
        return RankedPlan(
            actions=actions,
            cost=np.full(batch, np.nan),
            history=np.zeros((0, batch)),
            num_cost_evaluations=0,
            num_denoiser_evaluations=0,
            wall_time_s={"predict": predicted - begun, "total": total},
            provider=self.predictor.provider,
            stopped_because="finished" if deadline_s is None or total < deadline_s else "deadline",
            projection_distance=np.abs(actions - drawn).max(axis=(1, 2)),
            unprojected_actions=drawn,
        )

    def _decoded(self, diffused: FloatArray) -> FloatArray:
        """Actions `[..., L, A]`, not yet projected, of `[..., M, C]`, clipped as DDIM's are."""
        spec = self.predictor.action_spec
        return spec.decode(np.clip(diffused, *spec.diffused_bounds).astype(np.float32))
