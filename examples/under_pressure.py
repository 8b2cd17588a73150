"""A deadline, a place not to be touched, a warm start, and actions that were already sent."""

import numpy as np
from plan import cost, shipped_bundle

from vj2_ddim_plugin import DDIMOptimizer, PlanConstraints, PlanningProblem


def main() -> None:
    """Plan, then plan again from what is left of the plan."""
    bottom = PlanConstraints(forbidden=[(0.0, 0.9, 1.0, 1.0)])
    with DDIMOptimizer.from_bundle(
        shipped_bundle(), num_refinements=None, on_failure=("previous",)
    ) as optimizer:
        context = {
            name: np.zeros((1, *shape), np.float32)
            for name, shape in optimizer.model.condition.inputs.items()
        }
        first = optimizer.optimize(
            PlanningProblem(context, cost, deadline_s=0.5, constraints=bottom)
        )
        sent = first.actions[:, :10]  # 20 ms of it are on their way
        second = optimizer.optimize(
            PlanningProblem(
                context,
                cost,
                deadline_s=0.5,
                constraints=bottom,
                init_action=first.actions,
                frozen_action=sent,
            )
        )
    for name, result in (("first", first), ("second", second)):
        total = 1e3 * result.wall_time_s["total"]
        print(f"{name}: cost {result.cost[0]:.3f} in {total:.0f} ms, {result.stopped_because}")
    print("begins with what was sent:", np.array_equal(second.actions[:, :10], sent))


if __name__ == "__main__":
    main()
