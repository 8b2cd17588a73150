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

    Costs of different rows are summed before the backward pass, so each row follows its own
    gradient and a row's result does not depend on its batch.

    Args:
        cost: What to descend.
        start: `[B, R, L, A]`, one row a problem and restart.
        bounds: Lowest and highest action, broadcastable to `start`.
        method: `sgd` or `adam`, torch's own.
        lr: Its learning rate.
        num_iterations: Steps, each a forward and a backward pass; one more forward pass judges the
            last iterate.
        out_of_time: Asked after each evaluation; True ends the descent.
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
    best, best_cost = start.detach().clone(), torch.full(start.shape[:2], torch.inf).to(start)
    history: list[Tensor] = []
    stopped = "finished"
    for iteration in range(num_iterations + 1):
        if watch is not None:
            watch(actions.detach().clone())
        last = iteration == num_iterations
        with torch.set_grad_enabled(not last):
            value = cost(actions)
        better = value.detach() < best_cost  # False for NaN
        best_cost = torch.where(better, value.detach(), best_cost)
        best = torch.where(better[:, :, None, None], actions.detach(), best)
        history.append(best_cost.amin(dim=1))
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
    evaluations = len(history) * best_cost.numel()
    return Descent(best, best_cost, torch.stack(history), evaluations, stopped)
