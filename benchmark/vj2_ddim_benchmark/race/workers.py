"""Who solves whole problems: this process, several, or a Ray cluster. Same results, same order."""

import importlib
import pickle
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config  # type: ignore[import-untyped]
from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

from vj2_ddim_benchmark.environment import use_threads
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_benchmark.race.folder import MapProblems, Solved, Todo
from vj2_ddim_benchmark.race.tasks import Budgets, ChainRace, Race, ReadyPlanner, make_ready
from vj2_ddim_benchmark.world.problems import chain_problems, one_gesture_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.process import kept_handler
from vj2_ddim_plugin.serving import join_cluster

LOCAL = "local"


class Worker:
    """A race and the planners in it; a planner is warmed up before the first problem it meets."""

    def __init__(
        self, race: Race | ChainRace, planners: Sequence[ReadyPlanner], budgets: Budgets
    ) -> None:
        self.race, self.budgets = race, list(budgets)
        self.planners = {planner.name: planner for planner in planners}
        self._cold: dict[str, Mapping[str, float]] = {}

    def solve(self, todo: Todo) -> Iterator[Solved]:
        """Make the plans of one problem, in turn, and hand each out as it comes."""
        names = dict.fromkeys(name for name, _ in todo.turns)
        fresh = [self.planners[name] for name in names if name not in self._cold]
        if fresh:
            self._cold |= self.race.warm_up(fresh, self.budgets)
        for name, budget_ms in todo.turns:
            record = self.race.attempt(self.planners[name], todo.problem, budget_ms)
            yield Solved((record,), dict(self._cold))


@dataclass(frozen=True)
class WorkerSettings:
    """What a process needs to make a worker of its own; everything in it can be sent."""

    planners: tuple[Planner, ...]
    tuned: Mapping[str, TunedSettings]  # by planner
    world_model: Path
    assets: PlannerAssets
    num_problems: int
    split: str
    budgets: tuple[float | None, ...]
    stop_distance: float | None = None  # of chains; None where the problems are of one gesture

    def make(self) -> Worker:
        """Load the models, draw the problems, build the planners."""
        use_threads(self.assets.num_threads)
        paths = {self.world_model, *(p.world_model for p in self.planners if p.world_model)}
        models: dict[Path | None, WorldModel] = {path: WorldModel.load(path) for path in paths}
        model = models[None] = models[self.world_model]
        seed = self.assets.seed
        draw: dict[str, Any] = {"split": self.split, "seed": seed, "size": model.config.screen_size}
        race: Race | ChainRace
        if self.stop_distance is None:
            race = Race(model, one_gesture_problems(self.num_problems, **draw), seed)
        else:
            chains = chain_problems(self.num_problems, **draw)
            race = ChainRace(model, chains, seed, stop_distance=self.stop_distance)
        ready = [
            make_ready(planner, self.assets, self.tuned[planner.name], models, race.make_cost)
            for planner in self.planners
        ]
        return Worker(race, ready, self.budgets)


def in_this_process(worker: Worker) -> MapProblems:
    """One problem after the other; each plan is handed out as it comes."""
    return lambda todos: chain.from_iterable(map(worker.solve, todos))


def over_processes(settings: WorkerSettings, num_workers: int) -> MapProblems:
    """Over fresh processes of this machine, each with planners of its own."""

    def map_problems(todos: Sequence[Todo]) -> Iterator[Solved]:
        if not todos:
            return
        payload, num = pickle.dumps(settings), min(num_workers, len(todos))
        with parallel_config("loky", inner_max_num_threads=settings.assets.num_threads):
            pool = Parallel(n_jobs=num, batch_size=1, return_as="generator")
            try:
                with closing(pool(delayed(_solve)(payload, todo) for todo in todos)) as solved:
                    yield from solved
            except TerminatedWorkerError as error:
                raise ConfigError(
                    f"one of {num_workers} workers died, perhaps for want of memory; what was "
                    f"solved is kept: run the same command again, with fewer workers"
                ) from error

    return map_problems


def import_ray() -> Any:  # noqa: ANN401
    """The package, which is optional."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "solving on a cluster needs Ray, which is not installed: "
            "pip install 'vj2-ddim-benchmark[ray]'"
        ) from error


def over_ray(settings: WorkerSettings, address: str, num_workers: int = 1) -> MapProblems:
    """Over a Ray cluster, a task a problem; every node reads the same files at the same paths."""
    ray, threads = import_ray(), settings.assets.num_threads

    def map_problems(todos: Sequence[Todo]) -> Iterator[Solved]:
        if todos:
            with kept_handler(signal.SIGTERM):  # Ray puts one of its own there
                yield from solve_all(todos)

    def solve_all(todos: Sequence[Todo]) -> Iterator[Solved]:
        started = not ray.is_initialized()
        if started:
            how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address == LOCAL:
                how |= {"num_cpus": num_workers * threads, "include_dashboard": False}
            join_cluster(ray.init, address, **how)
        try:
            num_cpus = ray.cluster_resources().get("CPU", 0)
            if num_cpus < threads:
                raise ConfigError(
                    f"the cluster has {num_cpus:g} CPUs, and a worker needs {threads}; "
                    f"use fewer threads, or a larger cluster"
                )
            solve = ray.remote(num_cpus=threads)(_solve)
            payload = ray.put(pickle.dumps(settings))
            for result in [solve.remote(payload, todo) for todo in todos]:
                solved: Solved = ray.get(result)
                yield solved
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from error
        finally:
            if started:
                ray.shutdown()

    return map_problems


def _solve(payload: bytes, todo: Todo) -> Solved:
    """What a worker process does: one whole problem."""
    parts = list(_worker(payload).solve(todo))
    records = tuple(record for part in parts for record in part.records)
    return Solved(records, parts[-1].cold)


@lru_cache(maxsize=1)
def _worker(payload: bytes) -> Worker:
    """Made once a process, with the first problem it gets."""
    settings: WorkerSettings = pickle.loads(payload)
    return settings.make()
