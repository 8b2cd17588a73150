"""`vj2-ddim benchmark pressure`: deadlines on a busy machine, threads, a hundred thousand plans."""

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.settings import PressureSettings
from vj2_ddim_benchmark.timing import random_problem
from vj2_ddim_plugin.cli.console import print_table
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.onnx.session import onnxruntime
from vj2_ddim_plugin.optimizer import DDIMOptimizer

Problems = Sequence[PlanningProblem]
WARM_UP_PLANS = 20
DEADLINES_S = (0.02, 0.05, 0.1)


def pressure(
    bundle: Path, settings: PressureSettings, world_model: Path | None, json_file: Path | None
) -> None:
    """Measure overhead, deadlines on a busy machine, memory over many plans, and many threads."""
    use_threads(settings.threads)
    busy = os.cpu_count() or 1 if settings.load is None else settings.load
    num = settings.num_plans
    session: dict[str, Any] = {"provider": "cpu", "num_threads": settings.threads}
    measured: dict[str, Any] = {"overhead": measure_overhead(bundle, num, settings.threads)}
    with DDIMOptimizer.from_bundle(bundle, num_refinements=None, **session) as optimizer:
        problems = _ranked_problems(optimizer, world_model, num)
        measured["deadlines"] = measure_deadlines(optimizer, problems, DEADLINES_S, busy)
    with DDIMOptimizer.from_bundle(bundle, **session) as optimizer:
        free = [random_problem(optimizer.model, seed) for seed in range(num)]
        measured["concurrency"] = measure_concurrency(optimizer, free, threads=8)
        measured["memory"] = measure_memory(optimizer, free[0], settings.memory_plans)
    measured["busy_processes"] = busy
    measured["cost"] = "world model" if world_model else "stand-in, 1 ms a candidate"
    measured["environment"] = environment()
    print_table(_rows(measured), ("measure", "figure"), title="planning under pressure")
    write_json(json_file, measured)


def stand_in_cost(seconds_per_candidate: float) -> Callable[[FloatArray], FloatArray]:
    """A cost that takes a known time: the distance from the centre of the screen."""

    def cost(candidates: FloatArray) -> FloatArray:
        taken = seconds_per_candidate * math.prod(candidates.shape[:2])
        ends = time.perf_counter() + taken
        while time.perf_counter() < ends:
            pass
        return np.asarray(np.mean((candidates - 0.5) ** 2, axis=(2, 3)))

    return cost


def _ranked_problems(optimizer: DDIMOptimizer, world_model: Path | None, count: int) -> Problems:
    """Problems with a cost: unseen touch screens, or noise and a stand-in of known duration."""
    if world_model is None:
        cost = stand_in_cost(0.001)
        return [random_problem(optimizer.model, seed, cost=cost) for seed in range(count)]
    from vj2_ddim_benchmark.race.tasks import planning_problem
    from vj2_ddim_benchmark.world.problems import one_gesture_problems
    from vj2_ddim_benchmark.world_model.model import WorldModel

    model = WorldModel.load(world_model)
    found = one_gesture_problems(count, split="test", seed=0, size=model.config.screen_size)
    start, goal = found.start.render(), found.goal.render()
    return [planning_problem(model, start[[row]], goal[[row]]) for row in range(count)]


def measure_overhead(bundle: Path, num_plans: int, threads: int) -> dict[str, float]:
    """`optimize` without a cost at batch 1, over the sum of its ONNX Runtime calls: medians."""
    run, inside, rows = onnxruntime.InferenceSession.run, [], []

    def timed(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        begun = time.perf_counter()
        outputs = run(*args, **options)
        inside.append(time.perf_counter() - begun)
        return outputs

    with (
        mock.patch.object(onnxruntime.InferenceSession, "run", timed),
        DDIMOptimizer.from_bundle(bundle, provider="cpu", num_threads=threads) as optimizer,
    ):
        problem = random_problem(optimizer.model, 0)
        for _ in range(WARM_UP_PLANS + num_plans):
            inside.clear()
            begun = time.perf_counter()
            optimizer.optimize(problem)
            rows.append((time.perf_counter() - begun, sum(inside)))
    seconds = np.array(rows[WARM_UP_PLANS:])
    whole, part = map(float, 1e3 * np.median(seconds, axis=0))
    ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
    return {"plan_ms": whole, "onnxruntime_ms": part, "ratio": ratio}


def measure_deadlines(
    optimizer: DDIMOptimizer, problems: Problems, deadlines_s: Sequence[float], load: int
) -> list[dict[str, Any]]:
    """How late plans are while `load` other processes keep the cores busy, a row a deadline."""
    rows = []
    with _busy_processes(load):
        for deadline_s in deadlines_s:
            late_ms, plans = [], []
            for problem in problems:
                urgent, begun = replace(problem, deadline_s=deadline_s), time.perf_counter()
                plans.append(optimizer.optimize(urgent))
                late_ms.append(1e3 * (time.perf_counter() - begun - deadline_s))
            p50, p99, worst = (float(late) for late in np.percentile(late_ms, (50, 99, 100)))
            evaluations = [plan.num_cost_evaluations for plan in plans]
            valid = [is_valid(plan.actions, optimizer.action_spec).all() for plan in plans]
            row: dict[str, Any] = {
                "deadline_ms": 1e3 * deadline_s,
                "late_p50_ms": p50,
                "late_p99_ms": p99,
                "late_max_ms": worst,
                "median_cost_evaluations": float(np.median(evaluations)),
                "share_ranked": float(np.mean([np.isfinite(plan.cost).all() for plan in plans])),
                "every_plan_valid": all(map(bool, valid)),
                "num_plans": len(problems),
            }
            rows.append(row)
    return rows


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """Processes that multiply matrices until the end."""
    if not count:
        yield
        return
    with multiprocessing.get_context("spawn").Pool(count, _be_busy):
        time.sleep(1.0)  # until they are busy
        yield


def _be_busy() -> None:
    matrix: FloatArray = np.random.default_rng(0).random((200, 200))
    while True:
        matrix = np.tanh(matrix @ matrix / 200)


def measure_memory(
    optimizer: DDIMOptimizer, problem: PlanningProblem, num_plans: int, settle: int = 1000
) -> dict[str, float]:
    """Growth of the resident memory over many plans, after the first `settle`."""
    sizes, first, every = [], min(settle, num_plans // 2), max(1, num_plans // 100)
    for plan in range(num_plans + 1):
        if plan >= first and plan % every == 0:
            sizes.append(_resident_mb())
        if plan < num_plans:
            optimizer.optimize(problem)
    return {
        "num_plans": float(num_plans),
        "resident_mb": sizes[-1],
        "growth_mb": sizes[-1] - sizes[0],
        "largest_growth_mb": max(sizes) - sizes[0],
    }


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError as error:
        raise ConfigError("memory can only be measured where there is /proc (Linux)") from error
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_concurrency(
    optimizer: DDIMOptimizer, problems: Problems, threads: int
) -> dict[str, float]:
    """The share of plans that come out the same, to the last bit, with many threads as with one."""
    alone = [optimizer.optimize(problem).actions for problem in problems]
    with ThreadPoolExecutor(threads) as pool:
        together = list(pool.map(lambda problem: optimizer.optimize(problem).actions, problems))
    same = [one.tobytes() == other.tobytes() for one, other in zip(alone, together, strict=True)]
    return {"threads": threads, "num_plans": len(problems), "share_identical": float(np.mean(same))}


def _rows(measured: dict[str, Any]) -> list[tuple[str, str]]:
    """Each measure, and its figures in words."""
    overhead, threads, memory = (measured[name] for name in ("overhead", "concurrency", "memory"))
    deadlines = [
        (
            f"deadline {row['deadline_ms']:.0f} ms, {measured['busy_processes']} busy processes",
            f"late by {row['late_p50_ms']:.1f} ms at p50, {row['late_p99_ms']:.1f} at p99, "
            f"{row['late_max_ms']:.1f} at most; {row['share_ranked']:.0%} ranked, "
            f"{row['median_cost_evaluations']:.0f} cost evaluations; "
            f"{'' if row['every_plan_valid'] else 'NOT '}every plan valid",
        )
        for row in measured["deadlines"]
    ]
    times = f"({overhead['plan_ms']:.2f} / {overhead['onnxruntime_ms']:.2f} ms)"
    same = f"{threads['share_identical']:.1%} of {threads['num_plans']} plans"
    growth = f"grew by {memory['growth_mb']:.1f} MB (at most {memory['largest_growth_mb']:.1f})"
    return [
        ("one sample over its ONNX Runtime calls", f"{overhead['ratio']:.3f} {times}"),
        *deadlines,
        (f"{threads['threads']} threads on one optimizer", f"{same} identical to one thread's"),
        (f"{memory['num_plans']:,.0f} plans", f"memory {growth} after the first 1,000"),
    ]
