"""What `vj2-ddim train` and `vj2-ddim train-ranker` ask the touch screen while they train.

One call's problems share a starting noise, some luckier than other: so there are several calls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import ActionOptimizer, CostFn, FloatArray, PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.ranker.network import RankedSampler, RankerNetwork
from vj2_ddim_training.ranker.training import RankerCost
from vj2_ddim_training.validation import SUCCESS, SuccessMeasure

NUM_NOISES = 30
NUM_RANKED = 16  # candidates that a ranker chooses from


def touch_screen_success(world_model: str = "") -> SuccessMeasure:
    """The measure for `--judge`, of latents made by a world model's file; the shipped if empty."""
    return success_of(_load(world_model))


def world_model_cost(world_model: str = "") -> RankerCost:
    """The cost for `--cost`, by a world model's file; the shipped if empty."""
    return latent_cost_of(_load(world_model))


class Encoder(Protocol):
    """What a model sees of screens."""

    def see(self, screens: TouchScreen) -> FloatArray:
        """The latents `[n, N, D]` of n screens."""


CostOf = Callable[[IntArray], CostFn]
"""The cost of some of all problems, by their numbers."""


@dataclass(frozen=True)
class Screens:
    """Problems, and their latents `[n, N, D]`."""

    problems: Problems
    state: FloatArray
    goal: FloatArray

    @classmethod
    def of(cls, encoder: Encoder, num: int, split: str, seed: int) -> "Screens":
        """Draw problems, and see them through an encoder (a world model is one)."""
        problems = one_gesture_problems(num, split=split, seed=seed)
        return cls(problems, encoder.see(problems.start), encoder.see(problems.goal))

    def ask(self, rows: IntArray, seed: int, cost_of: CostOf | None = None) -> PlanningProblem:
        """Some of the problems, in one."""
        context = {"state": self.state[rows], "goal": self.goal[rows]}
        return PlanningProblem(context, None if cost_of is None else cost_of(rows), seed=seed)

    def reached(
        self, optimizer: ActionOptimizer, seed: int, cost_of: CostOf | None = None
    ) -> dict[str, float]:
        """The share of goals reached: of all, of multimodal ones, and of each kind of widget."""
        problems, rows = self.problems, np.arange(len(self.problems))
        actions = np.empty_like(problems.actions)
        for noise in range(min(NUM_NOISES, len(rows))):
            part = rows[noise::NUM_NOISES]
            actions[part] = optimizer.optimize(self.ask(part, seed + noise, cost_of)).actions
        reached = problems.start.execute(actions).matches(problems.goal.state)
        several = reached[np.isin(problems.kind, MULTIMODAL_KINDS)]
        multimodal = {f"{SUCCESS}_multimodal": float(several.mean())}
        return {**shares_of(reached, problems.kind), **multimodal}


def shares_of(reached: NDArray[np.bool_], kinds: NDArray[np.str_]) -> dict[str, float]:
    """The share of goals reached, of all and of each kind."""
    of_kind = {f"{SUCCESS}_{kind}": reached[kinds == kind] for kind in np.unique(kinds).tolist()}
    return {name: float(of.mean()) for name, of in {SUCCESS: reached, **of_kind}.items()}


def success_of(
    encoder: Encoder, num_problems: int = 300, seed: int = 7, split: str = "validation"
) -> SuccessMeasure:
    """Measures the share of goals reached by a model, or by its samples that a ranker chooses."""
    screens = Screens.of(encoder, num_problems, split, seed)

    def success(model: DiffusionModel, ranker: RankerNetwork | None = None) -> dict[str, float]:
        if ranker is None:
            optimizer = DDIMOptimizer(TorchSampler(model), num_candidates=1)
        else:
            sampler = RankedSampler(model, ranker)
            optimizer = DDIMOptimizer(sampler, num_candidates=NUM_RANKED, num_ranked=1)
        return screens.reached(optimizer, seed)

    return success


def latent_cost_of(world_model: Any) -> RankerCost:  # noqa: ANN401
    """The planner's cost, from the context's state and goal."""

    def cost(context: Mapping[str, FloatArray], candidates: FloatArray) -> FloatArray:
        return LatentCost(world_model, context["state"], context["goal"])(candidates)

    return cost


def _load(path: str) -> WorldModel:
    return WorldModel.load(Path(path) if path else shipped_assets().world_model)
