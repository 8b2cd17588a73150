"""`vj2-ddim pressure`: deadlines on a busy machine, threads, a hundred thousand plans."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from vj2_ddim_benchmark.pressure import (
    measure_concurrency,
    measure_deadlines,
    measure_memory,
    measure_overhead,
    random_problem,
)
from vj2_ddim_benchmark.protocol.setup import environment, use_threads
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer

__all__ = ["pressure"]


def pressure(
    bundle: Annotated[Path, typer.Argument(help="The bundle to plan with.")],
    world_model: Annotated[
        Path | None, typer.Option(help="Whose cost ranks; a stand-in of 1 ms a candidate if none.")
    ] = None,
    num_plans: Annotated[int, typer.Option(min=10, help="Plans of each timed measure.")] = 300,
    memory_plans: Annotated[
        int, typer.Option(min=10, help="Plans of the memory measure.")
    ] = 100_000,
    load: Annotated[
        int | None, typer.Option(min=0, help="Busy processes; one a core unless told.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch and ONNX Runtime.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
) -> None:
    """Measure overhead, deadlines on a busy machine, memory over many plans, and many threads."""
    use_threads(threads)
    busy = os.cpu_count() or 1 if load is None else load
    options: dict[str, Any] = {"provider": "cpu", "num_threads": threads}
    measured: dict[str, Any] = {"overhead": measure_overhead(bundle, num_plans, threads)}
    with DDIMOptimizer.from_bundle(bundle, num_refinements=None, **options) as optimizer:
        problems = _ranked_problems(optimizer, world_model, num_plans)
        measured["deadlines"] = measure_deadlines(optimizer, problems, (0.02, 0.05, 0.1), busy)
    with DDIMOptimizer.from_bundle(bundle, **options) as optimizer:
        free = [random_problem(optimizer.model, seed) for seed in range(num_plans)]
        measured["concurrency"] = measure_concurrency(optimizer, free, threads=8)
        measured["memory"] = measure_memory(optimizer, free[0], memory_plans)
    measured |= {
        "busy_processes": busy,
        "cost": "world model" if world_model else "stand-in, 1 ms a candidate",
        "environment": environment(),
    }
    _show(measured)
    if json_file is not None:
        write_json(json_file, measured)


def _ranked_problems(
    optimizer: DDIMOptimizer, world_model: Path | None, count: int
) -> list[PlanningProblem]:
    """Problems with a cost: unseen touch screens, or noise and a stand-in of known duration."""
    if world_model is None:
        problems = [random_problem(optimizer.model, seed) for seed in range(count)]
        return [replace(problem, cost=stand_in_cost(0.001)) for problem in problems]
    from vj2_ddim_benchmark.planners.host import planning_problem
    from vj2_ddim_benchmark.world.problems import one_gesture_problems
    from vj2_ddim_benchmark.world_model.model import WorldModel

    model = WorldModel.load(world_model)
    found = one_gesture_problems(count, split="test", seed=0, size=model.config.screen_size)
    start, goal = found.start.render(), found.goal.render()
    return [
        planning_problem(model, start[row : row + 1], goal[row : row + 1]) for row in range(count)
    ]


def stand_in_cost(seconds_per_candidate: float) -> Callable[[FloatArray], FloatArray]:
    """A cost that takes a known time: the distance from the centre of the screen."""

    def cost(candidates: FloatArray) -> FloatArray:
        ends = (
            time.perf_counter() + seconds_per_candidate * candidates.shape[0] * candidates.shape[1]
        )
        while time.perf_counter() < ends:
            pass
        return np.asarray(np.mean((candidates - 0.5) ** 2, axis=(2, 3)))

    return cost


def _show(measured: dict[str, Any]) -> None:
    table = Table("measure", "figure", title="planning under pressure", title_justify="left")
    overhead, memory = measured["overhead"], measured["memory"]
    table.add_row(
        "one sample over its ONNX Runtime calls",
        f"{overhead['ratio']:.3f} ({overhead['plan_ms']:.2f} / "
        f"{overhead['onnxruntime_ms']:.2f} ms)",
    )
    for row in measured["deadlines"]:
        table.add_row(
            f"deadline {row['deadline_ms']:.0f} ms, {measured['busy_processes']} busy processes",
            f"late by {row['late_p50_ms']:.1f} ms at p50, {row['late_p99_ms']:.1f} at p99, "
            f"{row['late_max_ms']:.1f} at most; {row['share_ranked']:.0%} ranked, "
            f"{row['median_cost_evaluations']:.0f} cost evaluations; "
            f"{'every plan valid' if row['every_plan_valid'] else 'NOT every plan valid'}",
        )
    threads = measured["concurrency"]
    table.add_row(
        f"{threads['threads']} threads on one optimizer",
        f"{threads['share_identical']:.1%} of {threads['num_plans']} plans identical to those of "
        f"one thread",
    )
    table.add_row(
        f"{memory['num_plans']:,.0f} plans",
        f"resident memory grew by {memory['growth_mb']:.1f} MB (at most "
        f"{memory['largest_growth_mb']:.1f}) after the first 1,000",
    )
    Console().print(table)
