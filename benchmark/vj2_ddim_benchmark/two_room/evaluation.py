"""The host's own evaluation of one solver: its World, its policy, goals out of recordings."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.two_room.collect import IMAGE_SHAPE
from vj2_ddim_benchmark.two_room.host import ENVIRONMENT, import_host
from vj2_ddim_benchmark.two_room.lewm import WorldModel, image_transform
from vj2_ddim_plugin.errors import DataError

__all__ = ["EvaluationSettings", "OneByOne", "Outcome", "Problems", "choose_problems", "evaluate"]
__all__ += ["plan_config"]

SUCCESS_RADIUS = 16.0  # pixels, the environment's own
CALLABLES = [
    {"method": "_set_state", "args": {"state": {"value": "state"}}},
    {"method": "_set_goal_state", "args": {"goal_state": {"value": "goal_state"}}},
]


@dataclass(frozen=True)
class EvaluationSettings:
    """The host's protocol: goals out of recorded episodes, and how far ahead is planned.

    Attributes:
        goal_offset: Steps from start to goal in the recording.
        eval_budget: Steps a solver has to get there.
        horizon: World-model steps of a plan.
        receding_horizon: World-model steps of a plan that are carried out.
        action_block: Environment steps in one of them.
        warm_start: Whether the rest of a plan begins the next one.
        num_envs: Environments in one World.
    """

    goal_offset: int = 25
    eval_budget: int = 50
    horizon: int = 5
    receding_horizon: int = 5
    action_block: int = 5
    warm_start: bool = True
    num_envs: int = 50


@dataclass(frozen=True)
class Problems:
    """Starts and goals: episode numbers and first steps of a recording."""

    recording: Path
    episodes: list[int]
    starts: list[int]


@dataclass(frozen=True)
class Outcome:
    """What came of an evaluation.

    Attributes:
        successes: One a problem, in order.
        plan_seconds: Wall time of each plan, for one environment.
    """

    successes: list[bool]
    plan_seconds: list[float]


class OneByOne:
    """A solver that plans for one environment at a time, and notes how long each plan took."""

    def __init__(self, solver: Any) -> None:  # noqa: ANN401
        self.solver, self.seconds = solver, []  # type: Any, list[float]

    def configure(self, **settings: Any) -> None:  # noqa: ANN401
        """Passed on."""
        self.solver.configure(**settings)

    @property
    def action_dim(self) -> int:
        """Of the solver."""
        return int(self.solver.action_dim)

    @property
    def n_envs(self) -> int:
        """Of the solver."""
        return int(self.solver.n_envs)

    @property
    def horizon(self) -> int:
        """Of the solver."""
        return int(self.solver.horizon)

    def __call__(self, info_dict: dict[str, Any], init_action: Any = None) -> dict[str, Any]:  # noqa: ANN401
        """The same as `solve`."""
        return self.solve(info_dict, init_action)

    def solve(self, info_dict: dict[str, Any], init_action: Any = None) -> dict[str, Any]:  # noqa: ANN401
        """Plan for each environment by itself; what the host's solvers print is dropped."""
        plans = []
        for row in range(len(next(iter(info_dict.values())))):
            info = {key: value[row : row + 1] for key, value in info_dict.items()}
            start = None if init_action is None else init_action[row : row + 1]
            begun = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                plans.append(self.solver(info, init_action=start)["actions"])
            self.seconds.append(time.perf_counter() - begun)
        return {"actions": torch.cat(plans)}


def choose_problems(
    recording: Path, num: int, settings: EvaluationSettings, seed: int = 0
) -> Problems:
    """One start in each of `num` episodes, whose goal is not reached at the start already.

    Raises:
        DataError: The recording has too few such episodes.
    """
    dataset = import_host().data.LanceDataset(str(recording), keys_to_load=["state"])
    rng = np.random.default_rng(seed)
    lengths = np.asarray(dataset.lengths)
    states = dataset.get_col_data("state")
    firsts = np.cumsum(lengths) - lengths
    episodes, starts = [], []
    for episode in rng.permutation(len(lengths)):
        possible = np.arange(lengths[episode] - settings.goal_offset)
        rows = firsts[episode] + possible
        far = np.linalg.norm(states[rows] - states[rows + settings.goal_offset], axis=-1)
        possible = possible[far > SUCCESS_RADIUS]
        if len(possible):
            episodes.append(int(episode))
            starts.append(int(rng.choice(possible)))
    if len(episodes) < num:
        raise DataError(f"{recording}: {len(episodes)} episodes are long enough, {num} are needed")
    return Problems(recording, episodes[:num], starts[:num])


def plan_config(settings: EvaluationSettings) -> Any:  # noqa: ANN401
    """The host's `PlanConfig`."""
    return import_host().PlanConfig(
        horizon=settings.horizon,
        receding_horizon=settings.receding_horizon,
        action_block=settings.action_block,
        warm_start=settings.warm_start,
    )


def evaluate(
    solver: Any,  # noqa: ANN401
    world_model: WorldModel,
    problems: Problems,
    settings: EvaluationSettings,
    report: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Run `World.evaluate` with `WorldModelPolicy` and this solver.

    Args:
        solver: Of the host's protocol.
        world_model: Gives the scaler of the actions.
        problems: Starts and goals.
        settings: The protocol.
        report: Called with the problems done.

    Returns:
        Successes and planning times.
    """
    host = import_host()
    dataset = host.data.LanceDataset(str(problems.recording))
    timed, transform, plan = OneByOne(solver), image_transform(), plan_config(settings)
    successes: list[bool] = []
    for first in range(0, len(problems.episodes), settings.num_envs):
        chosen = slice(first, first + settings.num_envs)
        policy = host.policy.WorldModelPolicy(
            timed,
            plan,
            process={"action": world_model.action_scaler()},
            transform={"pixels": transform, "goal": transform},
        )
        world = host.World(
            ENVIRONMENT,
            num_envs=len(problems.episodes[chosen]),
            image_shape=IMAGE_SHAPE,
            max_episode_steps=2 * settings.eval_budget,
        )
        world.set_policy(policy)
        result = world.evaluate(
            dataset=dataset,
            episodes_idx=problems.episodes[chosen],
            start_steps=problems.starts[chosen],
            goal_offset=settings.goal_offset,
            eval_budget=settings.eval_budget,
            callables=CALLABLES,
        )
        world.close()
        successes += [bool(success) for success in result["episode_successes"]]
        report(len(successes))
    return Outcome(successes, timed.seconds)
