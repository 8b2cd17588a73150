"""The host's own evaluation of a solver, with its World, policy and goals; and the solvers.

The host's are at their constructors' defaults, or at those of its configuration files.
"""

import io
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.timing import Seconds, take_turns
from vj2_ddim_benchmark.two_room import ENVIRONMENT, IMAGE_SHAPE, import_stable_worldmodel
from vj2_ddim_benchmark.two_room.lewm import WorldModel, image_transform
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.settings import Settings, setting

SUCCESS_RADIUS = 16.0  # pixels, the environment's own
CALLABLES = [
    {"method": "_set_state", "args": {"state": {"value": "state"}}},
    {"method": "_set_goal_state", "args": {"goal_state": {"value": "goal_state"}}},
]
Info = dict[str, Any]
Chosen = dict[str, Any]  # settings of a solver, by the names of its constructor


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
        names = ("horizon", "receding_horizon", "action_block", "warm_start")
        given = {name: getattr(self, name) for name in names}
        return import_stable_worldmodel().PlanConfig(**given)


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


def choose_problems(
    recording: Path, num: int, settings: EvaluationSettings, seed: int = 0
) -> Problems:
    """One start in each of `num` episodes, whose goal is not reached at the start already."""
    dataset = import_stable_worldmodel().data.LanceDataset(str(recording), keys_to_load=["state"])
    rng, lengths = np.random.default_rng(seed), np.asarray(dataset.lengths)
    states, firsts = dataset.get_col_data("state"), np.cumsum(lengths) - lengths
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
    world_model: WorldModel, problems: Problems, settings: EvaluationSettings,
) -> Outcome:  # fmt: skip
    """Run `World.evaluate` with `WorldModelPolicy` and this solver."""
    host, timed, transform = import_stable_worldmodel(), OneByOne(solver), image_transform()
    dataset = host.data.LanceDataset(str(problems.recording))
    given = {
        "process": {"action": world_model.action_scaler()},
        "transform": {"pixels": transform, "goal": transform},
    }
    asked = {
        "dataset": dataset,
        "goal_offset": settings.goal_offset,
        "eval_budget": settings.eval_budget,
        "callables": CALLABLES,
    }
    shown = {"image_shape": IMAGE_SHAPE, "max_episode_steps": 2 * settings.eval_budget}
    successes: list[bool] = []
    for first in range(0, len(problems.episodes), settings.num_envs):
        chosen = slice(first, first + settings.num_envs)
        episodes, starts = problems.episodes[chosen], problems.starts[chosen]
        world = host.World(ENVIRONMENT, num_envs=len(episodes), **shown)
        config = settings.plan_config()
        world.set_policy(host.policy.WorldModelPolicy(timed, config, **given))
        result = world.evaluate(episodes_idx=episodes, start_steps=starts, **asked)
        world.close()
        successes += map(bool, result["episode_successes"])
    return Outcome(successes, timed.seconds)


def time_in_turns(solvers: Mapping[str, Any], infos: list[Info], rounds: int) -> Seconds:
    """Seconds of each plan: in each round every solver plans once, for the same problem."""

    def planning(solver: Any) -> Callable[[int], object]:  # noqa: ANN401
        return lambda turn: _quietly(solver, dict(infos[turn % len(infos)]))

    return take_turns([(name, planning(of)) for name, of in solvers.items()], rounds)["wall"]


@dataclass(frozen=True)
class PublishedSolver:
    """One of the host's solvers; tuning tries every combination of the values of `space`."""

    name: str  # its class in `stable_worldmodel.solver`
    defaults: Chosen  # what its constructor asks for, or what names the variant
    space: Mapping[str, tuple[Any, ...]]

    def candidates(self) -> list[Chosen]:
        """The settings that tuning tries."""
        values = itertools.product(*self.space.values())
        return [dict(zip(self.space, chosen, strict=True)) for chosen in values]

    def build(self, settings: Chosen, world_model: WorldModel) -> Any:  # noqa: ANN401
        """The solver; `optimizer` and `lr` go together, `budget` is `(num_samples, n_steps)`."""
        chosen: Chosen = {"batch_size": 1, **self.defaults, **settings}
        if "budget" in chosen:
            chosen["num_samples"], chosen["n_steps"] = chosen.pop("budget")
        if "optimizer" in chosen:
            chosen["optimizer_cls"] = getattr(torch.optim, chosen.pop("optimizer"))
            chosen["optimizer_kwargs"] = {"lr": chosen.pop("lr")}
        return getattr(import_stable_worldmodel("solver"), self.name)(world_model.model, **chosen)


BUDGETS = ((300, 30), (300, 10), (100, 10))  # num_samples, n_steps; the first is the default

PUBLISHED = {
    name: PublishedSolver(*row)
    for name, *row in (
        ("gradient, 1 sample", "GradientSolver", {"n_steps": 30, "num_samples": 1},
         {"optimizer": ("SGD", "Adam"), "lr": (0.03, 0.1, 0.3, 1.0, 3.0)}),
        ("gradient, 100 samples", "GradientSolver", {"n_steps": 30, "num_samples": 100},
         {"optimizer": ("SGD", "Adam"), "lr": (0.1, 0.3, 1.0), "n_steps": (10, 30)}),
        ("CEM", "CEMSolver", {}, {"budget": BUDGETS, "topk": (10, 30), "var_scale": (1.0, 2.0)}),
        ("iCEM", "ICEMSolver", {},
         {"budget": BUDGETS[:2], "topk": (10, 30), "noise_beta": (0.5, 2.0)}),
        ("MPPI", "MPPISolver", {},
         {"budget": BUDGETS[:2], "temperature": (0.05, 0.5, 5.0, 20.0, 80.0)}),
    )
}  # fmt: skip

OURS: dict[str, Chosen] = {
    "ours, 16 candidates": {"num_candidates": 16},
    "ours, 16 candidates, 4 steps": {"num_candidates": 16, "num_inference_steps": 4},
    "ours, 1 sample": {"num_candidates": 1, "ranked": False},
}


def build_solver(name: str, settings: Chosen, world_model: WorldModel, bundle: Path) -> Any:  # noqa: ANN401
    """One of the host's; or ours, on the CPU with as many threads as torch has."""
    if name in PUBLISHED:
        return PUBLISHED[name].build(settings, world_model)
    session: Chosen = {"provider": "cpu", "num_threads": torch.get_num_threads()}
    return StableWorldModelSolver(bundle, world_model.model, **session, **settings)
