"""Success of a denoiser on validation screens, measured while it trains: it chooses the checkpoint.

One sample is the plan, and no world model is asked: what the denoiser itself has learned. All
problems of one call start from the same noise, and some noise is luckier than other: so the
problems are spread over several calls.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world.widgets import MULTIMODAL_KINDS
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.validation import SUCCESS, Judge

__all__ = ["success_judge"]

NUM_NOISES = 30


def success_judge(world_model: WorldModel, num_problems: int = 300, seed: int = 7) -> Judge:
    """What `train_run` asks after an epoch.

    Args:
        world_model: Only its encoder is used.
        num_problems: One-gesture problems of the validation split.
        seed: Of the problems and of the samples.

    Returns:
        A function that measures the share of goals reached: `success` overall,
        `success_multimodal`, and `success_KIND` for each kind of widget.
    """
    problems = one_gesture_problems(
        num_problems, split="validation", seed=seed, size=world_model.config.screen_size
    )
    state = world_model.encode(problems.start.render())
    goal = world_model.encode(problems.goal.render())

    def judge(model: DiffusionModel) -> dict[str, float]:
        optimizer, spec = DDIMOptimizer(TorchSampler(model), num_candidates=1), model.action_spec
        actions = np.empty((num_problems, spec.length, spec.num_channels), np.float32)
        for noise in range(min(NUM_NOISES, num_problems)):
            part = slice(noise, None, NUM_NOISES)
            context = {"state": state[part], "goal": goal[part]}
            plans = optimizer.optimize(PlanningProblem(context, seed=seed + noise))
            actions[part] = plans.actions
        reached = problems.start.execute(actions).matches(problems.goal.state)
        several = np.isin(problems.kind, MULTIMODAL_KINDS)
        shares = {SUCCESS: reached, f"{SUCCESS}_multimodal": reached[several]}
        shares |= {
            f"{SUCCESS}_{kind}": reached[problems.kind == kind]
            for kind in np.unique(problems.kind).tolist()
        }
        return {name: float(values.mean()) for name, values in shares.items()}

    return judge
