"""Planning under pressure: overhead, deadlines on a busy machine, memory, threads.

Everything is measured through `DDIMOptimizer.optimize`, as a planner calls it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.model import SamplerModel
from vj2_ddim_plugin.optimizer import DDIMOptimizer

__all__ = [
    "measure_concurrency",
    "measure_deadlines",
    "measure_memory",
    "measure_overhead",
    "random_problem",
]

WARM_UP_PLANS = 20


def random_problem(model: SamplerModel, seed: int, **fields: Any) -> PlanningProblem:  # noqa: ANN401
    """A problem whose context is standard normal noise, B = 1."""
    rng = np.random.default_rng(seed)
    context = {
        name: rng.standard_normal((1, *shape), np.float32)
        for name, shape in model.condition.inputs.items()
    }
    return PlanningProblem(context, batch_size=1, seed=seed, **fields)


def measure_overhead(bundle: Path, num_plans: int, threads: int) -> dict[str, float]:
    """`optimize` without a cost at batch 1, over the sum of its ONNX Runtime calls.

    Returns:
        Medians in ms of `plan_ms` and `onnxruntime_ms`, and the median `ratio` of the two.
    """
    with DDIMOptimizer.from_bundle(bundle, provider="cpu", num_threads=threads) as optimizer:
        inside = _count_seconds_inside(optimizer.model)
        problem, rows = random_problem(optimizer.model, 0), []
        for _ in range(WARM_UP_PLANS + num_plans):
            inside[0], begun = 0.0, time.perf_counter()
            optimizer.optimize(problem)
            rows.append((time.perf_counter() - begun, inside[0]))
    seconds = np.array(rows[WARM_UP_PLANS:])
    plan_ms, onnxruntime_ms = 1e3 * np.median(seconds, axis=0)
    return {
        "plan_ms": float(plan_ms),
        "onnxruntime_ms": float(onnxruntime_ms),
        "ratio": float(np.median(seconds[:, 0] / seconds[:, 1])),
    }


def _count_seconds_inside(model: Any) -> list[float]:  # noqa: ANN401
    """A counter of the seconds spent in ONNX Runtime's own `run`, from now on."""
    inside = [0.0]
    for part in (model._denoiser, model._condition):
        if part is None:
            continue
        run = part.graph._run

        def timed(feeds: Any, run: Any = run) -> Any:  # noqa: ANN401
            begun = time.perf_counter()
            outputs = run(feeds)
            inside[0] += time.perf_counter() - begun
            return outputs

        part.graph._run = timed
    return inside


def measure_deadlines(
    optimizer: DDIMOptimizer,
    problems: Sequence[PlanningProblem],
    deadlines_s: Sequence[float],
    load: int,
) -> list[dict[str, Any]]:
    """Plans under deadlines while `load` other processes keep the cores busy.

    Args:
        optimizer: Should refine until the deadline (`num_refinements=None`).
        problems: With a cost and without a deadline; planned in turn.
        deadlines_s: The deadlines, each planned for all problems.
        load: Busy processes beside this one.

    Returns:
        One row a deadline: percentiles of how late plans were in ms, evaluations, and whether every
        plan was valid.
    """
    rows = []
    with _busy_processes(load):
        for deadline_s in deadlines_s:
            late, evaluations, ranked, valid = [], [], [], True
            for problem in problems:
                fields = {**problem.__dict__, "deadline_s": deadline_s}
                begun = time.perf_counter()
                result = optimizer.optimize(PlanningProblem(**fields))
                late.append(time.perf_counter() - begun - deadline_s)
                evaluations.append(result.num_cost_evaluations)
                ranked.append(bool(np.isfinite(result.cost).all()))
                valid &= bool(optimizer.action_spec.is_valid(result.actions).all())
            p50, p99, worst = np.percentile(late, (50, 99, 100)) * 1e3
            rows.append(
                {
                    "deadline_ms": 1e3 * deadline_s,
                    "late_p50_ms": float(p50),
                    "late_p99_ms": float(p99),
                    "late_max_ms": float(worst),
                    "median_cost_evaluations": float(np.median(evaluations)),
                    "share_ranked": float(np.mean(ranked)),
                    "every_plan_valid": valid,
                    "num_plans": len(problems),
                }
            )
    return rows


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """Processes that multiply matrices until the end."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_be_busy, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    time.sleep(1.0 if workers else 0.0)  # until they are busy
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _be_busy() -> None:
    matrix: FloatArray = np.random.default_rng(0).random((200, 200))
    while True:
        matrix = np.tanh(matrix @ matrix / 200)


def measure_memory(
    optimizer: DDIMOptimizer, problem: PlanningProblem, num_plans: int, settle: int = 1000
) -> dict[str, float]:
    """Growth of the resident memory over many plans, after the first `settle`.

    Raises:
        ConfigError: The system does not say how much memory a process has.
    """
    sizes = []
    for plan in range(num_plans + 1):
        if plan >= min(settle, num_plans // 2) and plan % max(1, num_plans // 100) == 0:
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
    optimizer: DDIMOptimizer, problems: Sequence[PlanningProblem], threads: int
) -> dict[str, float]:
    """The share of plans that come out the same, to the last bit, with many threads as with one."""
    alone = [optimizer.optimize(problem).actions for problem in problems]
    with ThreadPoolExecutor(threads) as pool:
        together = list(pool.map(lambda problem: optimizer.optimize(problem).actions, problems))
    same = [one.tobytes() == other.tobytes() for one, other in zip(alone, together, strict=True)]
    return {"threads": threads, "num_plans": len(problems), "share_identical": float(np.mean(same))}
