"""The incumbent: gradient descent on the raw action array, as VJ2-GUI's planner does it.

The press is continuous in [0, 1] while it descends and the coordinates are free at every step. The
plan is what projection makes of the best iterate, and is judged by the planner's cost as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vj2_ddim_benchmark.planners.descent import METHODS, Descent, TorchCost, descend
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.planners.host import latent_torch_cost
from vj2_ddim_benchmark.planners.starts import STARTS, DrawGestures, any_gestures, starts
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning.checks import (
    checked_batch,
    checked_cost,
    checked_deadline,
    padded_warm_start,
)
from vj2_ddim_plugin.planning.deadline import Deadline, Pace

__all__ = ["LEARNING_RATES", "GradientDescentOptimizer", "GradientDescentPlan", "gradient_descent"]

LEARNING_RATES = {
    "sgd": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5),
    "adam": (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
}
"""What the sweep tries: wide enough that the best is not at an edge."""


@dataclass(frozen=True, kw_only=True)
class GradientDescentPlan(PlanResult):
    """A plan, and the iterate it was projected from.

    Attributes:
        unprojected_actions: `[B, L, A]`, the iterate of lowest cost over all restarts.
        unprojected_cost: `[B]`, its cost.
    """

    unprojected_actions: FloatArray
    unprojected_cost: FloatArray


class GradientDescentOptimizer:
    """An `ActionOptimizer` that follows the gradient of the cost.

    Every problem of a batch gets the same random starts, drawn from the seed alone, so that a plan
    does not depend on what else is in its batch.

    Args:
        action_spec: Bounds, and what a valid gesture is.
        torch_cost_of: The differentiable cost of a problem, see `TorchCost`.
        method: `sgd` or `adam`.
        num_iterations: Steps; VJ2-GUI's planner takes 10.
        lr: The learning rate.
        start: `zeros`, `centre` (of the screen, pressed) or `gestures` (random real ones).
        num_restarts: Descents R side by side; those after the first start from random gestures.
        project: Whether plans are projected onto valid gestures before they are judged.
        draw_gestures: Source of the random gestures.
        dtype: Precision of the descent.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range or unknown.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        torch_cost_of: Callable[[PlanningProblem], TorchCost],
        *,
        lr: float,
        method: str = "sgd",
        num_iterations: int = 10,
        start: str = "zeros",
        num_restarts: int = 1,
        project: bool = True,
        draw_gestures: DrawGestures = any_gestures,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        if num_iterations < 0 or num_restarts < 1 or seed < 0 or not 0.0 < lr < float("inf"):
            raise ConfigError(
                f"need num_iterations >= 0, num_restarts >= 1, seed >= 0 and a positive lr; found "
                f"{num_iterations}, {num_restarts}, {seed} and {lr}"
            )
        if method not in METHODS:
            raise ConfigError(f"method {method!r} is unknown; use one of {', '.join(METHODS)}")
        self.action_spec, self.torch_cost_of = action_spec, torch_cost_of
        self.method, self.lr, self.num_iterations = method, lr, num_iterations
        self.start, self.num_restarts, self.project = start, num_restarts, project
        self.draw_gestures, self.dtype, self.seed = draw_gestures, dtype, seed
        self._pace = Pace()
        self._starts(1, np.random.default_rng(seed))  # an unknown start fails here, not in a plan

    def optimize(self, problem: PlanningProblem) -> GradientDescentPlan:
        """Plan.

        Args:
            problem: See `PlanningProblem`. `init_action` replaces the first start.

        Returns:
            Of each restart's start and best iterate, projected, the one of lowest cost; so the plan
            is never worse than the projected `init_action` (itself, when it is a valid gesture).
            `history` holds the costs of the unprojected iterates.

        Raises:
            ContextError: There is no cost, or the cost or `init_action` does not fit.
        """
        deadline = Deadline(checked_deadline(problem), self._pace)
        if problem.cost is None:
            raise ContextError("gradient descent needs a cost; this problem has none")
        start = self.initial_actions(problem)
        descent = self._descend(problem, start, deadline)
        descended = time.perf_counter()
        iterates = descent.best.numpy()
        candidates = np.concatenate([start.numpy(), iterates], axis=1)
        projected = self._projected(candidates)
        cost = checked_cost(problem.cost, projected)
        rows, chosen = np.arange(len(cost)), cost.argmin(axis=1)
        moved = np.abs(projected - candidates).max(axis=(2, 3))
        lowest = descent.best_cost.argmin(dim=1).numpy()
        deadline.record("finish", cost.size, time.perf_counter() - descended)
        return GradientDescentPlan(
            actions=projected[rows, chosen],
            cost=cost[rows, chosen],
            history=descent.history.numpy(),
            num_cost_evaluations=descent.num_cost_evaluations + cost.size,
            num_denoiser_evaluations=0,
            wall_time_s=_phases(deadline.started, descended),
            provider="torch",
            stopped_because=descent.stopped_because,
            projection_distance=moved[rows, chosen],
            unprojected_actions=iterates[rows, lowest],
            unprojected_cost=descent.best_cost.numpy()[rows, lowest],
        )

    def initial_actions(self, problem: PlanningProblem) -> torch.Tensor:
        """The starts `[B, R, L, A]` of a problem."""
        batch = checked_batch(problem, problem.context)
        rng = np.random.default_rng(self.seed if problem.seed is None else problem.seed)
        drawn = self._starts(self.num_restarts, rng)
        start = np.tile(drawn, (batch, 1, 1, 1))
        warm = padded_warm_start(problem.init_action, self.action_spec, batch)
        start[:, : warm.shape[1]] = warm
        return torch.as_tensor(start, dtype=self.dtype)

    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest action, `[A]` each."""
        low, high = self.action_spec.low_array, self.action_spec.high_array
        return torch.as_tensor(low, dtype=self.dtype), torch.as_tensor(high, dtype=self.dtype)

    def _projected(self, candidates: FloatArray) -> FloatArray:
        """Onto valid gestures; valid ones stay exactly as they are, without rounding."""
        if not self.project:
            return candidates
        valid = self.action_spec.is_valid(candidates)[..., None, None]
        projected: FloatArray = np.where(valid, candidates, self.action_spec.project(candidates))
        return projected

    def _starts(self, num: int, rng: np.random.Generator) -> FloatArray:
        return starts(self.start, num, self.action_spec, self.draw_gestures, rng)

    def _descend(
        self, problem: PlanningProblem, start: torch.Tensor, deadline: Deadline
    ) -> Descent:
        rows = start.shape[0] * start.shape[1]
        evaluated: list[float] = []

        def out_of_time() -> bool:
            evaluated.append(time.perf_counter())
            if len(evaluated) > 1:
                deadline.record("step", rows, evaluated[-1] - evaluated[-2])
            return not deadline.allows(("step", rows, 1), ("finish", 2 * rows, 1))

        return descend(
            self.torch_cost_of(problem),
            start,
            self.bounds(),
            method=self.method,
            lr=self.lr,
            num_iterations=self.num_iterations,
            out_of_time=out_of_time,
        )


def _phases(begun: float, descended: float) -> dict[str, float]:
    """Wall time by phase, up to now."""
    ended = time.perf_counter()
    return {"descend": descended - begun, "finish": ended - descended, "total": ended - begun}


def make_gradient_descent(
    assets: PlannerAssets, settings: TunedSettings
) -> GradientDescentOptimizer:
    """What the registry builds."""
    return GradientDescentOptimizer(
        assets.action_spec, latent_torch_cost, seed=assets.seed, **settings
    )


def gradient_descent(
    method: str,
    num_iterations: int,
    *,
    num_restarts: int = 1,
    start: str | None = None,
    in_quick: bool = True,
) -> Planner:
    """The registry's entry: from one start, or from many gestures; learning rate tuned.

    Args:
        method: `sgd` or `adam`.
        num_iterations: Steps.
        num_restarts: Descents side by side, all of them from gestures.
        start: The one start, named in the entry; None lets the sweep choose it.
        in_quick: Whether quick runs include it.

    Raises:
        ConfigError: The start is unknown, or is given for restarts.
    """
    if start is not None and (start not in STARTS or num_restarts > 1):
        raise ConfigError(
            f"start must be one of {', '.join(STARTS)} and is for a single descent; found "
            f"{start!r} for {num_restarts}"
        )

    suffix = f"-x{num_restarts}" if num_restarts > 1 else f"-{start}" if start else ""
    tried = ("gestures",) if num_restarts > 1 else (start,) if start else STARTS
    return Planner(
        f"gradient-descent-{method}-{num_iterations}{suffix}",
        make_gradient_descent,
        search_space={"lr": LEARNING_RATES[method], "start": tried},
        in_quick=in_quick,
        fixed={"method": method, "num_iterations": num_iterations, "num_restarts": num_restarts},
    )
