"""From two pictures to a problem and its plan, whatever optimizer stands behind the seam."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.world_model.model import LatentCost
from vj2_ddim_plugin import interface
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem

Frames = NDArray[np.uint8]

MakeCost = Callable[[Any, FloatArray, FloatArray], interface.CostFn]
"""The cost of B problems from a world model and the latents of their states and goals."""


def planning_problem(
    world_model: Any, start_frames: Frames, goal_frames: Frames, *,  # noqa: ANN401
    with_cost: bool = True, init_action: FloatArray | None = None,
    deadline_s: float | None = None, seed: int | None = None, make_cost: MakeCost = LatentCost,
) -> PlanningProblem:  # fmt: skip
    """Encode B pairs of pictures, uint8 `[B, H, W, 3]`, into the problem an optimizer is given."""
    if start_frames.shape != goal_frames.shape or start_frames.ndim != 4:
        shapes = f"{list(start_frames.shape)} and {list(goal_frames.shape)}"
        raise ContextError(f"start and goal frames must both be [B, H, W, 3]; found {shapes}")
    begun = time.perf_counter()
    state, goal = np.split(world_model.encode(np.concatenate([start_frames, goal_frames])), 2)
    cost = make_cost(world_model, state, goal) if with_cost else None
    if deadline_s is not None:
        deadline_s = max(0.0, deadline_s - (time.perf_counter() - begun))
    context = {"state": state, "goal": goal}
    return PlanningProblem(context, cost, init_action, deadline_s, seed)


def plan(
    optimizer: interface.ActionOptimizer, world_model: Any,  # noqa: ANN401
    start_frames: Frames, goal_frames: Frames, **asked: Any,  # noqa: ANN401
) -> interface.PlanResult:  # fmt: skip
    """Ask any optimizer for a plan; `asked` are the keywords of `planning_problem`."""
    begun = time.perf_counter()
    problem = planning_problem(world_model, start_frames, goal_frames, **asked)
    encoded = time.perf_counter()
    result = optimizer.optimize(problem)
    total = time.perf_counter() - begun
    phases = {**result.wall_time_s, "encode": encoded - begun, "total": total}
    return replace(result, wall_time_s=phases)
