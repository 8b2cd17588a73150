"""What a plan costs. What is compared takes turns, so that a busy machine slows all alike."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import SamplerModel

Seconds = dict[str, list[float]]  # by name
Run = tuple[str, Callable[[int], object]]  # its name, and what is timed; it is told the turn

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def take_turns(
    runs: Sequence[Run], num_turns: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Seconds]:
    """Seconds by clock and name; each turn makes every run, under its name."""
    seconds: dict[str, Seconds] = {clock: {name: [] for name, _ in runs} for clock in CLOCKS}
    for turn in range(num_turns):
        for name, run in runs:
            begun = {clock: now() for clock, now in CLOCKS.items()}
            run(turn)
            for clock, now in CLOCKS.items():
                seconds[clock][name].append(now() - begun[clock])
        if progress is not None:
            progress(turn + 1, num_turns)
    return seconds


def random_problem(model: SamplerModel, seed: int, **fields: Any) -> PlanningProblem:  # noqa: ANN401
    """A problem whose context is standard normal noise, B = 1."""
    rng, inputs = np.random.default_rng(seed), model.condition.inputs
    context = {name: rng.standard_normal((1, *of), np.float32) for name, of in inputs.items()}
    return PlanningProblem(context, batch_size=1, seed=seed, **fields)
