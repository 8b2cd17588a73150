"""The host's own evaluation of one solver, with its World, policy and goals; and fair timing."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.timing import take_turns
from vj2_ddim_benchmark.two_room.lewm import WorldModel, image_transform
from vj2_ddim_benchmark.two_room.stable_worldmodel import (
    ENVIRONMENT,
    IMAGE_SHAPE,
    import_stable_worldmodel,
)
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["EvaluationSettings", "OneByOne", "Outcome", "Problems", "choose_problems", "evaluate"]
__all__ += ["time_in_turns"]

SUCCESS_RADIUS = 16.0  # pixels, the environment's own
CALLABLES = [
    {"method": "_set_state", "args": {"state": {"value": "state"}}},
    {"method": "_set_goal_state", "args": {"goal_state": {"value": "goal_state"}}},
]
Info = dict[str, Any]


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """The host's protocol: goals out of recorded episodes, and how far ahead is planned."""

    goal_offset: int = setting(25, "Steps from start to goal in the recording.", low=1)
    eval_budget: int = setting(50, "Steps a solver has to get there.", low=1)
    horizon: int = setting(5, "World-model steps of a plan.", low=1)
    receding_horizon: int = setting(5, "World-model steps of a plan that are carried out.", low=1)
    action_block: int = setting(5, "Environment steps in one of them.", low=1)
    warm_start: bool = setting(True, "Whether the rest of a plan begins the next one.")
    num_envs: int = setting(50, "Environments in one World.", low=1)

    def plan_config(self) -> Any:  # noqa: ANN401
        """The host's `PlanConfig`."""
        return import_stable_worldmodel().PlanConfig(
            horizon=self.horizon,
            receding_horizon=self.receding_horizon,
            action_block=self.action_block,
            warm_start=self.warm_start,
        )


@dataclass(frozen=True)
class Problems:
    """Starts and goals: episode numbers and first steps of a recording."""

    recording: Path
    episodes: list[int]
    starts: list[int]


@dataclass(frozen=True)
class Outcome:
    """What came of an evaluation: by problem, and by plan for one environment, wall time."""

    successes: list[bool]
    plan_seconds: list[float]


class OneByOne:
    """A solver that plans for one environment at a time, and notes how long each plan took."""

    def __init__(self, solver: Any, keep: int = 0) -> None:  # noqa: ANN401
        self.solver, self.keep = solver, keep
        self.seconds: list[float] = []
        self.asked: list[Info] = []  # the first `keep` questions

    def configure(self, **settings: Any) -> None:  # noqa: ANN401
        """Passed on; the solver tells its sizes afterwards."""
        self.solver.configure(**settings)
        self.action_dim, self.n_envs = self.solver.action_dim, self.solver.n_envs
        self.horizon = self.solver.horizon

    def __call__(self, info_dict: Info, init_action: Any = None) -> Info:  # noqa: ANN401
        """The same as `solve`."""
        return self.solve(info_dict, init_action)

    def solve(self, info_dict: Info, init_action: Any = None) -> Info:  # noqa: ANN401
        """Plan for each environment by itself; what the host's solvers print is dropped."""
        plans = []
        for row in range(len(next(iter(info_dict.values())))):
            info = {key: value[row : row + 1] for key, value in info_dict.items()}
            if len(self.asked) < self.keep:
                self.asked.append(dict(info))
            start = None if init_action is None else init_action[row : row + 1]
            begun = time.perf_counter()
            plans.append(_quietly(self.solver, info, start)["actions"])
            self.seconds.append(time.perf_counter() - begun)
        return {"actions": torch.cat(plans)}


def _quietly(solver: Any, info: Info, init_action: Any) -> Any:  # noqa: ANN401
    """A plan, without what the host's solvers print."""
    with contextlib.redirect_stdout(io.StringIO()):
        return solver(info, init_action=init_action)


def choose_problems(
    recording: Path, num: int, settings: EvaluationSettings, seed: int = 0
) -> Problems:
    """One start in each of `num` episodes, whose goal is not reached at the start already."""
    dataset = import_stable_worldmodel().data.LanceDataset(str(recording), keys_to_load=["state"])
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


def evaluate(
    solver: Any,  # noqa: ANN401
    world_model: WorldModel,
    problems: Problems,
    settings: EvaluationSettings,
) -> Outcome:
    """Run `World.evaluate` with `WorldModelPolicy` and this solver."""
    host = import_stable_worldmodel()
    dataset = host.data.LanceDataset(str(problems.recording))
    timed, transform = OneByOne(solver), image_transform()
    successes: list[bool] = []
    for first in range(0, len(problems.episodes), settings.num_envs):
        chosen = slice(first, first + settings.num_envs)
        policy = host.policy.WorldModelPolicy(
            timed,
            settings.plan_config(),
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
    return Outcome(successes, timed.seconds)


def time_in_turns(
    solvers: Mapping[str, Any], infos: list[Info], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each plan: in each round every solver plans once, for the same problem."""

    def planning(solver: Any) -> Callable[[int], object]:  # noqa: ANN401
        return lambda turn: _quietly(solver, dict(infos[turn % len(infos)]), None)

    runs = [(name, planning(solver)) for name, solver in solvers.items()]
    return take_turns(runs, rounds)["wall"]
