"""The incumbent: gradient descent on the raw action array, as VJ2-GUI's planner does it.

The press is continuous while it descends; the plan is the best iterate, projected and judged.
"""

import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vj2_ddim_benchmark.planners.parameter_spaces import draw_sequences
from vj2_ddim_benchmark.planners.ranking import RankedPlan, onto_valid, required_cost
from vj2_ddim_benchmark.world_model.model import LatentCost
from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.planning import checks
from vj2_ddim_plugin.planning.deadline import Deadline, Pace
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec

TorchCost = Callable[[Tensor], Tensor]
"""Differentiable cost: actions `[B, K, L, A]` to `[B, K]`, each entry a function of its own row."""

METHODS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
STARTS = ("zeros", "centre", "gestures")


@dataclass(frozen=True)
class GradientDescent(Settings):
    """How gradients are followed."""

    lr: float = setting(MISSING, "The learning rate.", above=0.0)
    method: str = setting("sgd", "Torch's own SGD or Adam.", choices=tuple(METHODS))
    num_iterations: int = setting(10, "Steps; VJ2-GUI's planner takes 10.", low=0)
    start: str = setting("zeros", "The first one's; `centre` presses it.", choices=STARTS)
    num_restarts: int = setting(1, "Descents, the others from random gestures.", low=1)
    project: bool = setting(True, "Project plans onto valid gestures before they are judged.")
    seed: int = setting(0, "Used where a problem brings none.", low=0)


def latent_torch_cost(problem: PlanningProblem) -> TorchCost:
    """The differentiable side of a problem's `LatentCost`; `ContextError` for another cost."""
    cost = problem.cost
    if not isinstance(cost, LatentCost):
        raise ContextError(f"following gradients needs a LatentCost; found {type(cost).__name__}")
    return lambda actions: cost.torch_cost(cost.state, cost.goal, actions)


class GradientDescentOptimizer:
    """Follows the gradient of the cost, all problems from equal starts."""

    def __init__(
        self, action_spec: ActionSpec, settings: GradientDescent,
        torch_cost_of: Callable[[PlanningProblem], TorchCost] = latent_torch_cost,
    ) -> None:  # fmt: skip
        self.action_spec, self.settings, self.torch_cost_of = action_spec, settings, torch_cost_of
        self._pace = Pace()

    def optimize(self, problem: PlanningProblem) -> RankedPlan:
        """Of each restart's start (the first is `init_action`) and best iterate, the cheapest."""
        deadline = Deadline(checks.checked_deadline(problem), self._pace)
        judge = required_cost(problem, "gradient descent")
        start = self.initial_actions(problem)
        descent = self._descend(problem, start, deadline)
        descended = time.perf_counter()
        iterates = descent.best.numpy()
        candidates = projected = np.concatenate([start.numpy(), iterates], axis=1)
        if self.settings.project:
            projected = onto_valid(candidates, self.action_spec)
        cost = checks.checked_cost(judge, projected)
        rows = np.arange(len(cost))
        chosen = rows, cost.argmin(axis=1)
        lowest = rows, descent.best_cost.argmin(dim=1).numpy()
        ended = time.perf_counter()
        deadline.record("finish", cost.size, ended - descended)
        total, finish = ended - deadline.started, ended - descended
        phases = {"descend": total - finish, "finish": finish, "total": total}
        return RankedPlan(
            actions=projected[chosen],
            cost=cost[chosen],
            history=descent.history.numpy(),
            num_cost_evaluations=descent.num_cost_evaluations + cost.size,
            num_denoiser_evaluations=0,
            wall_time_s=phases,
            provider="torch",
            stopped_because=descent.stopped_because,
            projection_distance=np.abs(projected - candidates).max(axis=(2, 3))[chosen],
            unprojected_actions=iterates[lowest],
        )

    def iterates(self, problem: PlanningProblem) -> Tensor:
        """Where a descent without a deadline goes, `[num_iterations + 1, B, R, L, A]`."""
        seen: list[Tensor] = []
        self._descend(problem, self.initial_actions(problem), Deadline(None, Pace()), seen.append)
        return torch.stack(seen)

    def initial_actions(self, problem: PlanningProblem) -> Tensor:
        """The starts `[B, R, L, A]` of a problem."""
        how, batch = self.settings, checks.checked_batch(problem, problem.context)
        rng = np.random.default_rng(checks.checked_seed(problem, how.seed))
        drawn = starts(how.start, how.num_restarts, self.action_spec, rng)
        start = np.tile(drawn, (batch, 1, 1, 1))
        warm = checks.padded_warm_start(problem.init_action, self.action_spec, batch)
        start[:, : warm.shape[1]] = warm
        return torch.as_tensor(start, dtype=torch.float32)

    def _descend(
        self, problem: PlanningProblem, start: Tensor, deadline: Deadline,
        watch: Callable[[Tensor], None] | None = None,
    ) -> "Descent":  # fmt: skip
        how, spec, rows = self.settings, self.action_spec, start.shape[0] * start.shape[1]
        evaluated: list[float] = []

        def out_of_time() -> bool:
            evaluated.append(time.perf_counter())
            if len(evaluated) > 1:
                deadline.record("step", rows, evaluated[-1] - evaluated[-2])
            return not deadline.allows(("step", rows, 1), ("finish", 2 * rows, 1))

        low, high = (torch.as_tensor(each).to(start) for each in (spec.low_array, spec.high_array))
        return descend(
            self.torch_cost_of(problem), start, (low, high),
            method=how.method, lr=how.lr, num_iterations=how.num_iterations,
            out_of_time=out_of_time, watch=watch,
        )  # fmt: skip


def centre_press(spec: ActionSpec) -> FloatArray:
    """One sequence `[L, A]`: each block holds the middle of all, pressed in its own middle."""
    middle: FloatArray = np.tile((spec.low_array + spec.high_array) / 2, (spec.action_block, 1))
    if spec.press_channel is not None:
        duration = max(1, (spec.min_press_steps + spec.longest_press) // 2)
        since = np.arange(spec.action_block) - (spec.action_block - duration) // 2
        middle[:, spec.press_index] = (since >= 0) & (since < duration)
        middle = gestures.release(middle, spec)
    return np.tile(middle, (spec.horizon, 1))


def starts(kind: str, num: int, spec: ActionSpec, rng: np.random.Generator) -> FloatArray:
    """Sequences `[num, L, A]`: the first of the kind (see `STARTS`), the others random gestures."""
    if kind == "gestures":
        return draw_sequences(num, spec, rng)
    first = centre_press(spec) if kind == "centre" else np.zeros((spec.length, spec.num_channels))
    others = [draw_sequences(num - 1, spec, rng)] if num > 1 else []
    return np.concatenate([first[None], *others])


@dataclass(frozen=True)
class Descent:
    """Where a descent went."""

    best: Tensor  # `[B, R, L, A]`, the iterate of lowest cost of each restart, the start included
    best_cost: Tensor  # `[B, R]`
    history: Tensor  # `[rounds, B]`, the lowest cost so far of all restarts; row 0 is the start's
    num_cost_evaluations: int  # rows, with or without a backward pass
    stopped_because: str  # `"finished"` or `"deadline"`


def descend(
    cost: TorchCost, start: Tensor, bounds: tuple[Tensor, Tensor], *,
    method: str, lr: float, num_iterations: int,
    out_of_time: Callable[[], bool] = lambda: False,
    watch: Callable[[Tensor], None] | None = None,
) -> Descent:  # fmt: skip
    """Take `num_iterations` steps of SGD or Adam from `[B, R, L, A]`, clamping after each."""
    actions = start.detach().clone().requires_grad_()
    optimizer = METHODS[method]([actions], lr=lr)
    best = start.detach().clone()
    best_cost = torch.full(start.shape[:2], torch.inf).to(start)
    history: list[Tensor] = []
    stopped = "finished"
    for iteration in range(num_iterations + 1):
        if watch is not None:
            watch(actions.detach().clone())
        with torch.set_grad_enabled(iteration < num_iterations):
            value = cost(actions)
        better = value.detach() < best_cost  # False for NaN
        best_cost = torch.where(better, value.detach(), best_cost)
        best = torch.where(better[:, :, None, None], actions.detach(), best)
        history.append(best_cost.amin(dim=1))
        if iteration == num_iterations:
            break
        if out_of_time():
            stopped = "deadline"
            break
        optimizer.zero_grad()
        torch.autograd.backward(value.sum(), inputs=[actions])
        optimizer.step()
        with torch.no_grad():
            actions.clamp_(*bounds)
    evaluations = len(history) * best_cost.numel()
    return Descent(best, best_cost, torch.stack(history), evaluations, stopped)
