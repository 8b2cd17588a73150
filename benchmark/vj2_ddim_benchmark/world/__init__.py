"""The touch screen, by numpy; importing it registers `TouchScreen-v0` with `gymnasium`."""

import gymnasium

from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.problems import Problems, TouchScreenEnv, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen

__all__ = ["Problems", "TouchScreen", "TouchScreenEnv", "draw_gesture", "one_gesture_problems"]

ENTRY_POINT = "vj2_ddim_benchmark.world.problems:TouchScreenEnv"
gymnasium.register("TouchScreen-v0", ENTRY_POINT, max_episode_steps=20)
