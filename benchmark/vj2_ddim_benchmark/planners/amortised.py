"""Plans from a trained prediction: direct regression, and a Gaussian prior that is ranked.

Regression returns the mean of what was done between such states, in one pass; where a goal has
several gestures, that is their mean. The Gaussian prior ranks the mean and samples around it, which
is what planning by sampling from a learned prior comes to when the prior has one mode.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from vj2_ddim_benchmark.amortised import AmortisedModel
from vj2_ddim_benchmark.planners import ranking as ranked
from vj2_ddim_benchmark.planners.ranking import RankedPlan
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import decode, diffused_bounds
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_batch, checked_context, checked_deadline
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec

PROVIDER = "torch-cpu"
NAMES = {"regression": "regression", "gaussian": "the Gaussian prior"}


@dataclass(frozen=True)
class Sampling(Settings):
    """What is made of a prediction."""

    num_candidates: int = setting(1, "The mean, and so many less one samples around it.", low=1)
    std_scale: float = setting(1.0, "Factor of the predicted standard deviation.", low=0.0)
    seed: int = setting(0, "Used where a problem brings none.", low=0)


class AmortisedOptimizer:
    """An `ActionOptimizer` that ranks the warm start, the mean and samples around it."""

    def __init__(self, action_spec: ActionSpec, model: AmortisedModel, settings: Sampling) -> None:
        specs = model.action_spec, action_spec
        predicted, needed = (f"{spec.length} actions of {spec.channels}" for spec in specs)
        if predicted != needed:
            raise ConfigError(
                f"the model plans {predicted}, the planner needs {needed}; train it on the same "
                f"data as the denoiser"
            )
        self.action_spec, self.model, self.settings = action_spec, model, settings
        self._planner, self._pace = NAMES[model.config.kind], Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan; `init_action`, where there is a cost, is one candidate more."""
        begun = time.perf_counter()
        context = checked_context(problem, self.model.condition)
        if problem.cost is None:
            return self._unranked(problem, context, begun)
        seed = self.settings.seed
        ranking = ranked.Ranking(problem, self.action_spec, seed, self._planner, self._pace)
        mean, std = self.model.predict(context)
        predicted = time.perf_counter()
        candidates = self._decoded(self._drawn(mean, std, ranking.rng))
        ranking.rank(np.concatenate([ranking.warm_start, candidates], axis=1))
        result = ranking.result()
        total = time.perf_counter() - begun
        phases = {**result.wall_time_s, "predict": predicted - begun, "total": total}
        return replace(result, provider=PROVIDER, wall_time_s=phases)

    def _drawn(self, mean: FloatArray, std: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Normalized candidates `[B, K, M, C]`, the mean first."""
        num, scale = self.settings.num_candidates - 1, self.settings.std_scale
        drawn = mean[:, None] + scale * std[:, None] * rng.standard_normal((num, *mean.shape[1:]))
        return np.concatenate([mean[:, None], drawn], axis=1)

    def _unranked(
        self, problem: PlanningProblem, context: dict[str, FloatArray], begun: float
    ) -> RankedPlan:
        """The mean, decoded and projected."""
        ranked.require_free_plan(problem, self._planner)
        checked_batch(problem, context)
        deadline_s = checked_deadline(problem)
        mean, _ = self.model.predict(context)
        predicted = time.perf_counter()
        drawn = self._decoded(mean)
        actions = ranked.onto_valid(drawn, self.action_spec)
        total = time.perf_counter() - begun
        phases = {"predict": predicted - begun, "total": total}
        result = ranked.unranked(actions, drawn, phases, PROVIDER)
        in_time = deadline_s is None or total < deadline_s
        return result if in_time else replace(result, stopped_because="deadline")

    def _decoded(self, diffused: FloatArray) -> FloatArray:
        """Actions `[..., L, A]`, not yet projected, of `[..., M, C]`, clipped as DDIM's are."""
        spec = self.model.action_spec
        return decode(np.clip(diffused, *diffused_bounds(spec)).astype(np.float32), spec)
