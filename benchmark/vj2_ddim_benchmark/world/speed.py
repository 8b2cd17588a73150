"""How fast the world is: transitions a second on one core, drawing screens not counted."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from vj2_ddim_benchmark.world.policies import mixed_policy
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_plugin.errors import ConfigError

__all__ = ["measure_speed"]

SCRIPTED_SHARE = 0.7  # of the gestures; the others are random


def measure_speed(
    num_screens: int = 512, *, size: int = 64, num_repeats: int = 9, seed: int = 0
) -> dict[str, Any]:
    """Measure the batch path: `execute` and `render`, with screens and gestures drawn before.

    numpy uses one thread for all of it. Time is taken on the wall and in the process: on a busy
    machine, the latter tells how fast one core to itself would be.

    Args:
        num_screens: Screens in the batch.
        size: Width and height of the pictures, in pixels.
        num_repeats: How often it is timed, after one run that is not.
        seed: Draws screens and gestures.

    Returns:
        The settings; `transitions_per_second` as medians over the repeats, by `wall` and by `cpu`
        time; and `repeats`, the seconds of each.

    Raises:
        ConfigError: A number is out of range.
    """
    if num_repeats < 1:
        raise ConfigError(f"num_repeats must be at least 1; found {num_repeats}")
    screens = TouchScreen.generate(num_screens, split="train", seed=seed, size=size)
    actions = mixed_policy(screens, SCRIPTED_SHARE, np.random.default_rng(seed))
    repeats: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(num_repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        screens.execute(actions).render()
        repeats["cpu"].append(time.process_time() - cpu)
        repeats["wall"].append(time.perf_counter() - wall)
    repeats = {clock: seconds[1:] for clock, seconds in repeats.items()}
    return {
        "num_screens": num_screens,
        "size": size,
        "num_repeats": num_repeats,
        "seed": seed,
        "transitions_per_second": {
            clock: num_screens / median(seconds) for clock, seconds in repeats.items()
        },
        "repeats": repeats,
    }
