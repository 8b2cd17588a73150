"""Gradient descent on action sequences, all restarts of all problems at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["METHODS", "Descent", "TorchCost", "descend"]

TorchCost = Callable[[Tensor], Tensor]
"""Differentiable cost: actions `[B, K, L, A]` to `[B, K]`, each entry a function of its own row."""

METHODS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}


@dataclass(frozen=True)
class Descent:
    """Where a descent went.

    Attributes:
        best: `[B, R, L, A]`, the iterate of lowest cost of each restart, the start included.
        best_cost: `[B, R]`, its cost.
        history: `[rounds, B]`, the lowest cost so far over all restarts; row 0 is the start's.
        num_cost_evaluations: Rows whose cost was computed, with or without a backward pass.
        stopped_because: `"finished"` or `"deadline"`.
    """

    best: Tensor
    best_cost: Tensor
    history: Tensor
    num_cost_evaluations: int
    stopped_because: str


def descend(
    cost: TorchCost,
    start: Tensor,
    bounds: tuple[Tensor, Tensor],
    *,
    method: str,
    lr: float,
    num_iterations: int,
    out_of_time: Callable[[], bool] = lambda: False,
    watch: Callable[[Tensor], None] | None = None,
) -> Descent:
    """Take `num_iterations` steps of SGD or Adam, clamping to the bounds after each.

    Each row follows its own gradient, so a row's result does not depend on its batch.

    Args:
        cost: What to descend.
        start: `[B, R, L, A]`, one row a problem and restart.
        bounds: Lowest and highest action, broadcastable to `start`.
        method: `sgd` or `adam`, torch's own.
        lr: Its learning rate.
        num_iterations: Steps, each a forward and a backward pass; one more forward pass judges the
            last iterate.
        out_of_time: Asked after each evaluation; True, where no more step fits, ends the descent.
        watch: Called with every iterate, the start included.

    Returns:
        The best iterates.

    Raises:
        ConfigError: The method is unknown.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; use one of {', '.join(METHODS)}")
    actions = start.detach().clone().requires_grad_()
    optimizer = METHODS[method]([actions], lr=lr)
    best, stopped = _BestSoFar(start), "finished"
    for iteration in range(num_iterations + 1):
        if watch is not None:
            watch(actions.detach().clone())
        last = iteration == num_iterations
        with torch.set_grad_enabled(not last):
            value = cost(actions)
        best.update(actions.detach(), value.detach())
        if last:
            break
        if out_of_time():
            stopped = "deadline"
            break
        optimizer.zero_grad()
        torch.autograd.backward(value.sum(), inputs=[actions])
        optimizer.step()
        with torch.no_grad():
            actions.clamp_(*bounds)
    return best.descent(stopped)


class _BestSoFar:
    """The best iterate of each row, and the history of the best costs."""

    def __init__(self, start: Tensor) -> None:
        self.best = start.detach().clone()
        self.cost = torch.full(start.shape[:2], torch.inf).to(start)
        self.history: list[Tensor] = []

    def update(self, actions: Tensor, value: Tensor) -> None:
        better = value < self.cost  # False for NaN
        self.cost = torch.where(better, value, self.cost)
        self.best = torch.where(better[:, :, None, None], actions, self.best)
        self.history.append(self.cost.amin(dim=1))

    def descent(self, stopped: str) -> Descent:
        evaluations = len(self.history) * self.cost.numel()
        return Descent(self.best, self.cost, torch.stack(self.history), evaluations, stopped)
