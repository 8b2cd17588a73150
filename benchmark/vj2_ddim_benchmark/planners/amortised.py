"""Plans from a trained prediction: direct regression, and a Gaussian prior that is ranked.

Where a goal has several gestures, regression returns their mean; the prior samples around it.
"""

import time
from dataclasses import dataclass

import numpy as np

from vj2_ddim_benchmark.amortised import AmortisedModel
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import decode, diffused_bounds
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_context
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
        self._pace = Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan; `init_action`, where there is a cost, is one candidate more."""
        context, how = checked_context(problem, self.model.condition), self.settings
        asked = problem, self.action_spec, how.seed, NAMES[self.model.config.kind], self._pace
        ranking, begun = Ranking(*asked, needs_cost=False), time.perf_counter()
        mean, std = self.model.predict(context)
        predicted = time.perf_counter() - begun
        num_samples = 0 if problem.cost is None else how.num_candidates - 1
        noise = ranking.rng.standard_normal((num_samples, *mean.shape[1:]))
        samples = mean[:, None] + how.std_scale * std[:, None] * noise
        drawn = np.concatenate([mean[:, None], samples], axis=1)
        spec = self.model.action_spec
        clipped = np.clip(drawn, *diffused_bounds(spec)).astype(np.float32)  # as DDIM's are
        return ranking.once(decode(clipped, spec), PROVIDER, predict=predicted)
