"""What all training here does alike: the learning rate over time, the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["moving_average", "warmup_cosine"]


def warmup_cosine(total_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Share of the peak learning rate at each step: linear warm-up, then a cosine down to 0.

    Args:
        total_steps: Steps in all.
        warmup_share: Share of them that is warm-up, at least one step.
    """
    warmup = max(1, round(warmup_share * total_steps))

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))

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
