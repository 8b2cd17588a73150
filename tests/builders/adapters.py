"""What the adapters' tests share: optimizers without a bundle, and a record of what was ranked."""

from dataclasses import replace

import numpy as np
import torch

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel

torch.set_num_threads(1)

TOUCH = ActionSpec(action_block=20, min_press_steps=5, max_press_steps=10)
TWO_TOUCHES = replace(TOUCH, horizon=2)


def robot_spec(horizon=3, action_block=1, channels="xy", bound=2.0):
    """Actions that are no touches, bounded by `bound` on every side."""
    num = len(channels)
    return ActionSpec(
        action_block=action_block,
        horizon=horizon,
        channels=tuple(channels),
        action_low=(-bound,) * num,
        action_high=(bound,) * num,
        press_channel=None,
        representation="raw",
    )


def gaussian_optimizer(spec, **settings):
    model = GaussianModel(spec, NoiseSchedule())
    return DDIMOptimizer(model, **{"num_candidates": 9, "num_inference_steps": 4, **settings})


class Recorder:
    """An `ActionOptimizer` that remembers its problem and every candidate that was ranked."""

    def __init__(self, optimizer):
        self.optimizer, self.action_spec = optimizer, optimizer.action_spec
        self.model = optimizer.model
        self.problem, self.batches = None, []

    def optimize(self, problem):
        self.problem, self.batches = problem, []

        def cost(candidates):
            values = problem.cost(candidates)
            self.batches.append((candidates.copy(), values))
            return values

        return self.optimizer.optimize(replace(problem, cost=cost))

    @property
    def candidates(self):
        """All that was ranked, `[B, K, L, A]`."""
        return np.concatenate([candidates for candidates, _ in self.batches], axis=1)

    @property
    def costs(self):
        """What the host said of it, `[B, K]`."""
        return np.concatenate([values for _, values in self.batches], axis=1)


class Answer:
    """An `ActionOptimizer` that gives the plan it was made with, and does not say what it wants."""

    def __init__(self, spec, actions):
        self.action_spec, self.actions = spec, np.asarray(actions, np.float32)
        self.problem = None

    def optimize(self, problem):
        self.problem = problem
        result = gaussian_optimizer(self.action_spec).optimize(replace(problem, context={}))
        return replace(result, actions=self.actions)


def best_of(candidates, costs):
    """The cheapest of `[B, K, L, A]` by costs `[B, K]` that a test computed itself."""
    return candidates[np.arange(len(candidates)), costs.argmin(axis=1)]
