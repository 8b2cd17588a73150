"""One gesture a block of twenty steps, and an optimizer of such gestures."""

import numpy as np

from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel

SPEC = ActionSpec(action_block=20, min_press_steps=4, max_press_steps=10)
SCHEDULE = NoiseSchedule(num_train_timesteps=50, prediction_type="sample")


def gesture(start, stop, begin, end):
    block = np.zeros((1, SPEC.action_block, 3), np.float32)
    for axis in (0, 1):
        block[0, start:stop, axis] = np.linspace(begin[axis], end[axis], stop - start)
    block[0, start:stop, 2] = 1.0
    return block


def make_optimizer(**settings):
    model = GaussianModel(SPEC, SCHEDULE, np.zeros(SPEC.diffused_shape), 0.7)
    return DDIMOptimizer(model, **{"num_candidates": 8, **settings})
