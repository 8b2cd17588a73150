"""Where problems are solved: in this process, in several, or on a Ray cluster. Same results.

All three are `MapProblems`. They solve whole problems and yield results in the problems' order, so
that a run's file does not tell how many processes made it, but for the times in it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import chain, repeat
from typing import Any

from vj2_ddim_benchmark.protocol.gather import MapProblems, Solved, Todo
from vj2_ddim_benchmark.protocol.worker import Worker, WorkerSettings
from vj2_ddim_plugin.errors import ConfigError

__all__ = ["import_ray", "in_this_process", "over_processes", "over_ray"]

LOCAL, AUTO = "local", "auto"
PATIENCE_S = 5.0  # for a cluster's address to answer


def in_this_process(worker: Worker) -> MapProblems:
    """One problem after the other; each plan is handed out as it comes."""

    def map_problems(todos: Sequence[Todo]) -> Iterator[Solved]:
        return chain.from_iterable(worker.solve(todo) for todo in todos)

    return map_problems


def over_processes(settings: WorkerSettings, num_workers: int) -> MapProblems:
    """Over fresh processes of this machine, each with planners of its own.

    Raises:
        ConfigError: `num_workers` is below 1; or, while it runs, a process died.
    """
    if num_workers < 1:
        raise ConfigError(f"workers must be at least 1; found {num_workers}")

    def map_problems(todos: Sequence[Todo]) -> Iterator[Solved]:
        if not todos:
            return
        spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's held locks
        with ProcessPoolExecutor(min(num_workers, len(todos)), mp_context=spawn) as pool:
            try:
                yield from pool.map(_solve, repeat(pickle.dumps(settings)), todos)
            except BrokenProcessPool as error:
                raise ConfigError(
                    f"one of {num_workers} workers died, perhaps for want of memory; what was "
                    f"solved is kept: run the same command again, with fewer --workers"
                ) from error

    return map_problems


def import_ray() -> Any:  # noqa: ANN401
    """The package, which is optional.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--ray needs Ray, which is not installed: pip install 'vj2-ddim-plugin[ray]'"
        ) from error


def over_ray(settings: WorkerSettings, address: str, num_workers: int = 1) -> MapProblems:
    """Over a Ray cluster, a task a problem; every node reads the same files at the same paths.

    Args:
        settings: What each worker is made from.
        address: Of the cluster; `local` starts one here with room for `num_workers`, `auto` joins
            the one that runs here, or starts one of all CPUs.
        num_workers: Problems solved at once by a `local` cluster.

    Raises:
        ConfigError: Ray is not installed; or, while it runs, the cluster cannot be reached or is
            too small.
    """
    ray, threads = import_ray(), settings.assets.num_threads

    def map_problems(todos: Sequence[Todo]) -> Iterator[Solved]:
        if not todos:
            return
        started = not ray.is_initialized()
        if started:
            _join(ray, address, num_workers * threads)
        try:
            num_cpus = ray.cluster_resources().get("CPU", 0)
            if num_cpus < threads:
                raise ConfigError(
                    f"the cluster has {num_cpus:g} CPUs, and a worker needs {threads}; "
                    f"use fewer --threads, or a larger cluster"
                )
            solve = ray.remote(num_cpus=threads)(_solve)
            payload = ray.put(pickle.dumps(settings))
            for result in [solve.remote(payload, todo) for todo in todos]:
                yield _get(ray, result)
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


def _join(ray: Any, address: str, num_cpus: int) -> None:  # noqa: ANN401
    """Connect, or start a cluster of this machine alone."""
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        settings |= {"address": LOCAL, "num_cpus": num_cpus, "include_dashboard": False}
    elif address != AUTO:  # without an address Ray looks for one that runs here
        settings["address"] = address
    try:
        if address not in (LOCAL, AUTO):
            _knock(address)
        ray.init(**settings)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot join the Ray cluster {address!r} ({error}); give its address, or 'local' to "
            f"start one here"
        ) from error


def _knock(address: str) -> None:
    """Raise at once where nobody answers; Ray itself would wait for minutes.

    Raises:
        ValueError: The address is not `HOST:PORT` or `ray://HOST:PORT`.
        OSError: Nobody answers.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("expected HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()


def _get(ray: Any, result: Any) -> Solved:  # noqa: ANN401
    """The result of a task, or what it raised."""
    try:
        solved: Solved = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    return solved
