"""The touch screen: a small phone whose screens are laid out, touched and rendered by numpy.

Importing this package registers the `gymnasium` environment `TouchScreen-v0`.
"""

import gymnasium

from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.problems import Problems, TouchScreenEnv, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen

__all__ = ["Problems", "TouchScreen", "TouchScreenEnv", "draw_gesture", "one_gesture_problems"]

ENTRY_POINT = "vj2_ddim_benchmark.world.problems:TouchScreenEnv"
gymnasium.register("TouchScreen-v0", ENTRY_POINT, max_episode_steps=20)
