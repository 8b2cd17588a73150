"""Planning times of all solvers, taken in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Mapping
from typing import Any

from vj2_ddim_benchmark.two_room.evaluation import EvaluationSettings, OneByOne, Problems, evaluate
from vj2_ddim_benchmark.two_room.lewm import WorldModel

__all__ = ["gather_infos", "time_in_turns"]

Info = dict[str, Any]


def gather_infos(
    solver: Any,  # noqa: ANN401
    world_model: WorldModel,
    problems: Problems,
    settings: EvaluationSettings,
) -> list[Info]:
    """What the host's policy hands to a solver at the start of each problem, one each."""
    asked: list[Info] = []

    class Listening(OneByOne):
        """Keeps what it was asked."""

        def solve(self, info_dict: Info, init_action: Any = None) -> dict[str, Any]:  # noqa: ANN401
            """Plan, and keep the question."""
            rows = range(len(next(iter(info_dict.values()))))
            asked.extend({key: value[i : i + 1] for key, value in info_dict.items()} for i in rows)
            return super().solve(info_dict, init_action)

    evaluate(Listening(solver), world_model, problems, settings)
    return asked[: len(problems.episodes)]


def time_in_turns(
    solvers: Mapping[str, Any], infos: list[Info], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each plan: in each round every solver plans once, for the same problem.

    Args:
        solvers: By name, configured; each has planned before.
        infos: Problems, taken in order and again from the start.
        rounds: Plans of each solver.
    """
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    for number in range(rounds):
        info = infos[number % len(infos)]
        for name, solver in solvers.items():
            with contextlib.redirect_stdout(io.StringIO()):
                begun = time.perf_counter()
                solver(dict(info), init_action=None)
                seconds[name].append(time.perf_counter() - begun)
    return seconds
