"""What all training here does alike: the learning rate over time, the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["moving_average", "warmup_cosine"]


def warmup_cosine(
    total_steps: int, warmup_share: float, num_cycles: int = 1
) -> Callable[[int], float]:
    """Share of the peak learning rate at each step: linear warm-up, then a cosine down to 0.

    With several cycles that course is run again, each time from half the peak of the time before
    (warm restarts, Loshchilov & Hutter 2017, "SGDR", eq. 5, with a decaying peak), so that a run of
    one cycle more begins as the shorter one ended.

    Args:
        total_steps: Steps in all.
        warmup_share: Share of each cycle that is warm-up, at least one step.
        num_cycles: Times the course is run.
    """
    length = math.ceil(total_steps / num_cycles)
    warmup = max(1, round(warmup_share * length))

    def share(step: int) -> float:
        cycle = min(step // length, num_cycles - 1)
        peak = 0.5**cycle
        step -= cycle * length
        if step < warmup:
            return peak * (step + 1) / warmup
        cosine = math.cos(math.pi * (step - warmup) / max(1, length - warmup))
        return peak * 0.5 * (1.0 + cosine)

    return share


def moving_average(most_decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """For `AveragedModel`: an exponential moving average of the weights.

    Its decay grows from 0.1 to `most_decay`, so that short runs are not averaged with the start.
    """

    def averaged(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        decay = min(most_decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(current, average, decay)

    return averaged
