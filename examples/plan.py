"""A plan in place of gradient descent: the same problem, the same cost, no gradient.

    python examples/plan.py BUNDLE

Without an argument, the bundle that comes with the benchmark is used.
"""

import sys

import numpy as np

from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.interface import FloatArray


def shipped_bundle() -> str:
    """The bundle of `vj2-ddim-benchmark`."""
    from vj2_ddim_benchmark.assets import shipped_assets

    return str(shipped_assets().bundle)


def cost(candidates: FloatArray) -> FloatArray:
    """`[B, K, L, A]` to `[B, K]`: here, how far the finger is from the middle while it is down."""
    pressed = candidates[..., 2] > 0.5
    distance = np.abs(candidates[..., :2] - 0.5).sum(axis=-1)
    return (distance * pressed).sum(axis=-1) / np.maximum(pressed.sum(axis=-1), 1)


def main() -> None:
    """Load a bundle, plan once, say what came of it."""
    bundle = sys.argv[1] if len(sys.argv) > 1 else shipped_bundle()
    with DDIMOptimizer.from_bundle(bundle, num_candidates=16, num_inference_steps=10) as optimizer:
        rng = np.random.default_rng(0)
        context = {  # your encoder's latents go here
            name: rng.standard_normal((1, *shape)).astype(np.float32)
            for name, shape in optimizer.model.condition.inputs.items()
        }
        result = optimizer.optimize(PlanningProblem(context, cost, seed=0))
    print(f"plan {result.actions.shape}, cost {result.cost[0]:.3f}, on {result.provider}")
    print(f"{result.num_cost_evaluations} costs, {1e3 * result.wall_time_s['total']:.1f} ms")


if __name__ == "__main__":
    main()
