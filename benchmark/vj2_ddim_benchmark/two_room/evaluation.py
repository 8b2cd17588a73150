"""The host's own evaluation of a policy, with its World and goals; and the solvers.

Routes come out of it, which `rules` judges. The host's CEM is at its constructor's defaults, which
are the published rules' (300 samples, 30 iterations, 30 elites, one environment at a time).
"""

import io
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vj2_ddim_benchmark.timing import Seconds, take_turns
from vj2_ddim_benchmark.two_room import ENVIRONMENT, IMAGE_SHAPE, import_stable_worldmodel
from vj2_ddim_benchmark.two_room.geometry import Point
from vj2_ddim_benchmark.two_room.lewm import WorldModel, image_transform
from vj2_ddim_benchmark.two_room.rules import Manifest
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.settings import Settings, setting

CALLABLES = [
    {"method": "_set_state", "args": {"state": {"value": "state"}}},
    {"method": "_set_goal_state", "args": {"goal_state": {"value": "goal_state"}}},
]
Info = dict[str, Any]
Chosen = dict[str, Any]  # settings of a solver, by the names of its constructor


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """The protocol: goals out of recorded episodes, and how far ahead is planned."""

    goal_offset: int = setting(25, "Steps from start to goal in the recording.", low=1)
    eval_budget: int = setting(50, "Steps a solver has to get there.", low=1)
    horizon: int = setting(5, "World-model steps of a plan.", low=1)
    receding_horizon: int = setting(5, "World-model steps of a plan that are carried out.", low=1)
    action_block: int = setting(5, "Environment steps in one of them.", low=1)
    warm_start: bool = setting(True, "Whether the rest of a plan begins the next one.")

    def plan_config(self) -> Any:  # noqa: ANN401
        """The host's `PlanConfig`."""
        names = ("horizon", "receding_horizon", "action_block", "warm_start")
        given = {name: getattr(self, name) for name in names}
        return import_stable_worldmodel().PlanConfig(**given)


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

    __call__ = solve


def _quietly(solver: Any, info: Info, init_action: Any = None) -> Any:  # noqa: ANN401
    """A plan, without what the host's solvers print."""
    with redirect_stdout(io.StringIO()):
        return solver(info, init_action=init_action)


def policy_of(solver: Any, world_model: WorldModel, settings: EvaluationSettings) -> Any:  # noqa: ANN401
    """The host's `WorldModelPolicy` around a solver."""
    transform = image_transform()
    return import_stable_worldmodel().policy.WorldModelPolicy(
        solver,
        settings.plan_config(),
        process={"action": world_model.action_scaler()},
        transform={"pixels": transform, "goal": transform},
    )


def evaluate(
    policy: Any,  # noqa: ANN401
    recording: Path, manifest: Manifest, settings: EvaluationSettings,
) -> list[tuple[Point, ...]]:  # fmt: skip
    """Run `World.evaluate` on all pairs at once: the routes."""
    host, num = import_stable_worldmodel(), len(manifest.pairs)
    steps = 2 * settings.eval_budget
    world = host.World(ENVIRONMENT, num_envs=num, image_shape=IMAGE_SHAPE, max_episode_steps=steps)
    world.set_policy(policy)
    world.evaluate(
        dataset=host.data.LanceDataset(str(recording)),
        episodes_idx=[pair.episode for pair in manifest.pairs],
        start_steps=[pair.first_step for pair in manifest.pairs],
        goal_offset=settings.goal_offset,
        eval_budget=settings.eval_budget,
        callables=CALLABLES,
    )
    world.close()
    return [tuple(env.unwrapped.route) for env in world.envs.envs]


def time_in_turns(solvers: Mapping[str, Any], infos: list[Info], rounds: int) -> dict[str, Seconds]:
    """Seconds by clock: in each round every solver plans once, for the same problem."""

    def planning(solver: Any) -> Callable[[int], object]:  # noqa: ANN401
        return lambda turn: _quietly(solver, dict(infos[turn % len(infos)]))

    return take_turns([(name, planning(of)) for name, of in solvers.items()], rounds)


CEM = "CEM"  # the host's
OURS: dict[str, Chosen] = {
    "16 candidates, 4 steps": {"num_candidates": 16, "num_inference_steps": 4},
    "1 sample": {"num_candidates": 1, "ranked": False},
}


def build_solver(name: str, world_model: WorldModel, bundles: Mapping[str, Path], seed: int) -> Any:  # noqa: ANN401
    """The host's; or ours, on the CPU with as many threads as torch has."""
    if name == CEM:
        return import_stable_worldmodel("solver").CEMSolver(world_model.model, seed=seed)
    bundle, how = name.split(", ", 1)
    session: Chosen = {"provider": "cpu", "num_threads": torch.get_num_threads(), "seed": seed}
    return StableWorldModelSolver(bundles[bundle], world_model.model, **session, **OURS[how])
