"""`vj2-ddim benchmark serving`: a served plan beside the local one, many clients, killed replicas.

Server and clients share this machine's cores, as the figures do.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.settings import ServingSettings
from vj2_ddim_benchmark.timing import random_problem, take_turns
from vj2_ddim_plugin.cli.console import print_table
from vj2_ddim_plugin.errors import VJ2DDIMError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.remote import RemoteOptimizer
from vj2_ddim_plugin.serving import ServeSettings
from vj2_ddim_plugin.serving.server import serving as served

NUM_WARM_UP, NUM_PROBLEMS = 10, 200


def serving(bundle: Path, settings: ServingSettings, json_file: Path | None) -> None:
    """Time served plans in turns with local ones, and count what killed replicas lose."""
    use_threads(settings.threads)
    session = SessionSettings(provider="cpu", num_threads=settings.threads)
    local = DDIMOptimizer.from_bundle(bundle, session=session)
    problems = [random_problem(local.model, seed) for seed in range(NUM_PROBLEMS)]
    measured: dict[str, Any] = {}
    how = ServeSettings(port=settings.port, name="bundle", num_replicas=settings.num_replicas)
    with served(bundle, how, session) as process_of_one:
        remote = RemoteOptimizer.connect(  # patient: all replicas may be dead at once
            f"http://127.0.0.1:{settings.port}/bundle", timeout_s=600.0, max_retries=1000
        )
        measured["latency"] = measure_latency(local, remote, problems, settings.num_plans)
        spent = partial(processor_s, process_of_one() if settings.num_replicas == 1 else None)
        measured["throughput"] = measure_throughput(remote, problems, settings, spent)
        if settings.kill_every is not None:
            plans = [local.optimize(problem).actions for problem in problems]
            with _killing(process_of_one, settings.kill_every) as killed:
                counted = count_wrong(remote, problems, plans, settings)
            measured["killed"] = {**counted, "replicas_killed": len(killed)}
    measured |= {"num_replicas": settings.num_replicas, "environment": environment()}
    measured["load_average"] = os.getloadavg()
    print_table(_rows(measured), ("measure", "figure"), title="serving")
    write_json(json_file, measured)


def measure_latency(
    local: DDIMOptimizer, remote: RemoteOptimizer, problems: Sequence[PlanningProblem], num: int
) -> dict[str, float]:
    """Median ms of one plan, locally and served, in turns; the median of their differences."""
    runs = [
        (name, lambda turn, optimize=optimizer.optimize: optimize(problems[turn % len(problems)]))
        for name, optimizer in (("local", local), ("served", remote))
    ]
    clocks = take_turns(runs, NUM_WARM_UP + num)
    used = {
        name: 1e3 * float(np.median(s[NUM_WARM_UP:])) for name, s in clocks["processor"].items()
    }
    taken = {
        name: 1e3 * np.array(seconds[NUM_WARM_UP:]) for name, seconds in clocks["wall"].items()
    }
    more = float(np.median(taken["served"] - taken["local"]))
    return {
        **{f"{name}_p50_ms": float(np.median(ms)) for name, ms in taken.items()},
        "served_p95_ms": float(np.percentile(taken["served"], 95)),
        "difference_p50_ms": more,
        "local_processor_ms": used["local"],
        "client_processor_ms": used["served"],
    }


def measure_throughput(
    remote: RemoteOptimizer,
    problems: Sequence[PlanningProblem],
    settings: ServingSettings,
    spent: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Plans a second by one client and by many, in turns: medians, and their ratio.

    Beside them the processor's time of a plan, `spent` by all: of a busy machine it says more.
    """
    rates: dict[int, list[float]] = {1: [], settings.num_clients: []}
    each_ms: dict[int, list[float]] = {1: [], settings.num_clients: []}
    p50 = []
    for _ in range(settings.num_turns):
        for clients, found in rates.items():
            seconds, used, begun = [0.0] * settings.num_plans, spent(), time.perf_counter()

            def plan(index: int, seconds: list[float] = seconds) -> None:
                started = time.perf_counter()
                remote.optimize(problems[index % len(problems)])
                seconds[index] = time.perf_counter() - started

            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(plan, range(settings.num_plans)))
            found.append(settings.num_plans / (time.perf_counter() - begun))
            each_ms[clients].append(1e3 * (spent() - used) / settings.num_plans)
            if clients == settings.num_clients:
                p50.append(1e3 * float(np.median(seconds)))
    one, many = (float(np.median(found)) for found in rates.values())
    ratios = np.array(rates[settings.num_clients]) / np.array(rates[1])
    return {
        "num_clients": settings.num_clients,
        "one_client_per_s": one,
        "many_clients_per_s": many,
        "many_clients_p50_ms": float(np.median(p50)),
        "ratio": float(np.median(ratios)),
        "one_client_processor_ms": float(np.median(each_ms[1])),
        "many_clients_processor_ms": float(np.median(each_ms[settings.num_clients])),
    }


def processor_s(process: int | None) -> float:
    """Seconds of the processor that this process and a replica took so far."""
    if process is None:
        return time.process_time()
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    ticks = int(fields[11]) + int(fields[12])  # utime and stime
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def count_wrong(
    remote: RemoteOptimizer,
    problems: Sequence[PlanningProblem],
    plans: Sequence[FloatArray],
    settings: ServingSettings,
) -> dict[str, float]:
    """Of many plans, those that fail, and those that are not the local plan to the last bit."""

    def outcome(index: int) -> tuple[str, float]:
        begun = time.perf_counter()
        try:
            found = remote.optimize(problems[index % len(problems)]).actions
        except VJ2DDIMError:
            return "lost", 0.0
        same = found.tobytes() == plans[index % len(plans)].tobytes()
        return "right" if same else "wrong", time.perf_counter() - begun

    begun = time.perf_counter()
    with ThreadPoolExecutor(settings.num_clients) as pool:
        outcomes = list(pool.map(outcome, range(settings.plans)))
    names = [name for name, _ in outcomes]
    return {
        "num_plans": settings.plans,
        "lost": names.count("lost"),
        "wrong": names.count("wrong"),
        "slowest_s": max(seconds for _, seconds in outcomes),
        "seconds": time.perf_counter() - begun,
    }


@contextmanager
def _killing(process_of_one: Callable[[], int], every: float) -> Iterator[list[int]]:
    """Kill a replica chosen at random every so many seconds; yields the ids of the dead."""
    killed: list[int] = []
    ended, chance = threading.Event(), random.Random(0)

    def kill() -> None:
        while not ended.wait(every * chance.uniform(0.5, 1.5)):
            with suppress(Exception):  # one that was asked is dead already
                number = process_of_one()
                os.kill(number, signal.SIGKILL)
                killed.append(number)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def _rows(measured: dict[str, Any]) -> list[tuple[str, str]]:
    latency, many = measured["latency"], measured["throughput"]
    rows = [
        ("local plan, p50", f"{latency['local_p50_ms']:.2f} ms"),
        ("served plan, p50", f"{latency['served_p50_ms']:.2f} ms"),
        ("more, p50 of the differences", f"{latency['difference_p50_ms']:.2f} ms"),
        ("one client", f"{many['one_client_per_s']:.0f} plans a second"),
        (
            f"{many['num_clients']} clients",
            f"{many['many_clients_per_s']:.0f} plans a second, {many['ratio']:.2f} times as many",
        ),
    ]
    if (killed := measured.get("killed")) is not None:
        found = f"{killed['lost']} lost, {killed['wrong']} wrong of {killed['num_plans']:,}"
        rows.append((f"{killed['replicas_killed']} replicas killed", found))
    return rows
