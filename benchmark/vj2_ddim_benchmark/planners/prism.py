"""CEM over gestures, guided by a learned Gaussian as far as that is sure of itself.

Wang et al. (2026), "PRISM: prior-guided imagination sampling in world models" (arXiv 2606.07974):
in every round the sampling distribution is the normalised product of CEM's Gaussian and the
prior's, so that precisions add. The paper's prior sees the state; this one also sees the goal, as
all planners here do.
"""

import numpy as np

from vj2_ddim_benchmark.amortised.heads import HeadModel
from vj2_ddim_benchmark.planners.amortised import require_same_actions
from vj2_ddim_benchmark.planners.cross_entropy import Gaussian, GestureCEM
from vj2_ddim_benchmark.planners.population import PopulationOptimizer, search
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_context
from vj2_ddim_plugin.spec import ActionSpec


class FusedGaussian(Gaussian):
    """CEM's Gaussian, sampled through a prior `[B, M, C]`; elites are fitted without it."""

    def __init__(self, plain: Gaussian, mean: FloatArray, std: FloatArray) -> None:
        self.mean, self.std, self.min_std = plain.mean, plain.std, plain.min_std
        self.prior_mean, self.prior_std = mean, std

    def sample(self, noise: FloatArray) -> FloatArray:
        """Standard normal noise `[K, M, C]` to samples `[B, K, M, C]` of the product."""
        ours, theirs = self.std**-2.0, self.prior_std.astype(float) ** -2.0
        mean = (ours * self.mean + theirs * self.prior_mean) / (ours + theirs)
        samples: FloatArray = mean[:, None] + (ours + theirs)[:, None] ** -0.5 * noise
        return samples


class PrismOptimizer(PopulationOptimizer):
    """An `ActionOptimizer`; the prior's mean is a candidate, and a warm start one more."""

    settings: GestureCEM

    def __init__(self, action_spec: ActionSpec, model: HeadModel, settings: GestureCEM) -> None:
        super().__init__(action_spec, settings)
        require_same_actions(model, action_spec)
        if model.config.kind != "gaussian" or model.action_spec.diffused_shape != self.space.shape:
            found = f"{model.config.kind!r} of {model.action_spec.representation!r}"
            raise ConfigError(f"the prior must be a 'gaussian' of 'path' gestures; found {found}")
        if settings.covariance != "diagonal":
            raise ConfigError(f"covariance must be 'diagonal' here; found {settings.covariance!r}")
        self.model = model

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """The projected candidate of lowest cost."""
        context, how = checked_context(problem, self.model.condition), self.settings
        ranking = Ranking(problem, self.action_spec, how.seed, "PRISM", self._pace)
        mean, std = self.model.predict(context)
        proposal = how.proposal(0.0 * mean)
        proposal.gaussian = FusedGaussian(proposal.gaussian, mean, std)
        parameters, warm = proposal.ask(ranking.rng, 0), ranking.warm_start
        parameters[:, 0] = mean
        if warm.shape[1]:
            parameters = np.concatenate([self.space.encode(warm), parameters], axis=1)
        parameters = self.space.clip(parameters)
        candidates = self.space.decode(parameters)
        candidates[:, : warm.shape[1]] = warm
        found = parameters, candidates, how.num_iterations, ranking.rng
        return search(ranking, self.space, proposal, *found)
