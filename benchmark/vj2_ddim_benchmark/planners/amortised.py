"""Plans from a trained prediction: one candidate as it is, or several, ranked.

Where a goal has several gestures, regression returns their mean; what can be sampled has each.
"""

import time

import numpy as np

from vj2_ddim_benchmark.amortised.base import AmortisedModel, Sampling
from vj2_ddim_benchmark.planners.description import SearchSpace
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import decode, diffused_bounds
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.planning.checks import checked_context
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.spec import ActionSpec

PROVIDER = "torch-cpu"
NAMES = {"gaussian": "the Gaussian prior"}  # in errors, where it is not the kind's own

GUIDANCE, WIDTHS = (1.0, 1.25, 1.5, 2.0), (0.25, 0.5, 1.0)
NEAR = {"std_scale": (0.05, 0.1, 0.2, 0.4, 0.8)}
OF_FLOW = {"guidance_scale": GUIDANCE, "std_scale": WIDTHS}
OF_MIXTURE = {"std_scale": (0.25, 0.5, 1.0, 1.5), "greedy": (True, False)}
TRIED: dict[str, tuple[SearchSpace, SearchSpace]] = {  # of one sample, and of ranked ones
    "regression": ({}, NEAR),
    "mixture": (OF_MIXTURE, OF_MIXTURE),
    "flow": (OF_FLOW, OF_FLOW),
    "mip": ({}, {"std_scale": (0.5, 1.0, 2.0, 4.0, 8.0)}),
    "inverse-dynamics": ({}, NEAR),
    "gaussian": ({}, {"std_scale": (0.25, 0.5, 1.0, 1.5)}),
}


class AmortisedOptimizer:
    """An `ActionOptimizer` that ranks the warm start and the model's candidates."""

    def __init__(self, action_spec: ActionSpec, model: AmortisedModel, settings: Sampling) -> None:
        require_same_actions(model, action_spec)
        self.action_spec, self.model, self.settings = action_spec, model, settings
        self._pace = Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Plan; `init_action`, where there is a cost, is one candidate more."""
        context, how = checked_context(problem, self.model.condition), self.settings
        kind = self.model.config.kind
        asked = problem, self.action_spec, how.seed, NAMES.get(kind, kind), self._pace
        ranking, begun = Ranking(*asked, needs_cost=False), time.perf_counter()
        num = 1 if problem.cost is None else how.num_candidates
        drawn = self.model.draw(context, how, num, ranking.rng)
        predicted = time.perf_counter() - begun
        spec = self.model.action_spec
        clipped = np.clip(drawn, *diffused_bounds(spec)).astype(np.float32)  # as DDIM's are
        return ranking.once(decode(clipped, spec), PROVIDER, predict=predicted)


def require_same_actions(model: AmortisedModel, action_spec: ActionSpec) -> None:
    """Raise `ConfigError` for a model that plans other actions."""
    specs = model.action_spec, action_spec
    predicted, needed = (f"{spec.length} actions of {spec.channels}" for spec in specs)
    if predicted != needed:
        raise ConfigError(
            f"the model plans {predicted}, the planner needs {needed}; train it on the same "
            f"data as the denoiser"
        )
