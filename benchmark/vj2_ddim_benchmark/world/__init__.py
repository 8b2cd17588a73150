"""The touch screen: a small phone whose screens are laid out, touched and rendered by numpy.

Importing this package registers the `gymnasium` environment `TouchScreen-v0`.
"""

from __future__ import annotations

import gymnasium

from vj2_ddim_benchmark.world.collect import (
    Transitions,
    collect_transitions,
    load_transitions,
    save_transitions,
)
from vj2_ddim_benchmark.world.environment import TouchScreenEnv
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world.screen import TouchScreen

__all__ = [
    "Problems", "TouchScreen", "TouchScreenEnv", "Transitions", "collect_transitions",
    "draw_gesture", "load_transitions", "one_gesture_problems", "save_transitions",
]  # fmt: skip

gymnasium.register(
    id="TouchScreen-v0",
    entry_point="vj2_ddim_benchmark.world.environment:TouchScreenEnv",
    max_episode_steps=20,
)
