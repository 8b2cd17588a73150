"""The course of the learning rate over a training, as a share of its peak at each step."""

import math
from collections.abc import Callable

from vj2_ddim_training.config import TrainingConfig

__all__ = ["cosine_by_epoch", "learning_rate_of", "warmup_cosine"]


def warmup_cosine(
    total_steps: int, warmup_share: float, num_cycles: int = 1
) -> Callable[[int], float]:
    """Share of the peak learning rate at each step: linear warm-up, then a cosine down to 0.

    With several cycles that course is run again, each time from half the peak of the time before
    (warm restarts, Loshchilov & Hutter 2017, "SGDR", eq. 5, with a decaying peak), so that a run of
    one cycle more begins as the shorter one ended. The warm-up of each takes at least one step.
    """
    length = math.ceil(total_steps / num_cycles)
    warmup = max(1, round(warmup_share * length))

    def share(step: int) -> float:
        cycle = min(step // length, num_cycles - 1)
        peak, step = 0.5**cycle, step - cycle * length
        if step < warmup:
            return peak * (step + 1) / warmup
        cosine = math.cos(math.pi * (step - warmup) / max(1, length - warmup))
        return peak * 0.5 * (1.0 + cosine)

    return share


def cosine_by_epoch(num_epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The same share where it changes once an epoch: torch's `CosineAnnealingLR` down to 0."""

    def share(step: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * (step // steps_per_epoch) / num_epochs))

    return share


def learning_rate_of(
    config: TrainingConfig, total_steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """The share of the peak learning rate at each step of a run."""
    if config.lr_schedule == "cosine_by_epoch":
        return cosine_by_epoch(config.num_epochs, steps_per_epoch)
    return warmup_cosine(total_steps, config.warmup_share, config.num_cycles)
