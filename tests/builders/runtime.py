"""What the runtime's tests share: specifications, schedules, and an interpreter of their own."""

import subprocess
import sys

import numpy as np

from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel

# Installed before anything is imported: names outside the allowlist do not exist. What numpy and
# ONNX Runtime themselves import is theirs: the check looks at who asks.
HOOK = """
import builtins, sys

allowed = set(sys.stdlib_module_names) | {"numpy", "onnxruntime", "vj2_ddim_plugin"}
theirs = {"numpy", "onnxruntime"} | set(sys.stdlib_module_names) - {"importlib"}
real_import = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    asker = ((globals or {}).get("__name__") or "").partition(".")[0]
    top = name.partition(".")[0]
    if level == 0 and top not in allowed and asker not in theirs:
        raise ModuleNotFoundError(f"{asker} asked for {top}", name=top)
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


FREE = ActionSpec(
    action_block=6,
    channels=("a", "b"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    press_channel=None,
    representation="raw",
)
TOUCH = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
SCHEDULE = NoiseSchedule(num_train_timesteps=100)
TARGET = np.full((6, 2), 0.5)  # of the cost, for `FREE`
TOUCH_SCHEDULE = NoiseSchedule(num_train_timesteps=100, prediction_type="sample")
TOUCH_TARGET = np.full((10, 3), 0.5)
CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
MEANS = np.array([[0.2], [-0.3], [0.1]], np.float32)
LIKED = 0.4  # the ranker likes plans whose mean is near it
WANTED = -0.4  # and the cost those near here: the two disagree


def liked(actions):
    """The predicted cost of actions `[..., L, A]` of `FREE`, whose sampler's units are theirs."""
    return np.abs(actions.mean(axis=(-2, -1)) - LIKED)


def wanted(candidates):
    return np.abs(candidates.mean(axis=(2, 3)) - WANTED)


class Ranked(GaussianModel):
    """Has a ranker that is written above; remembers how many candidates it was shown."""

    def __init__(self, spec=FREE, **settings):
        super().__init__(spec, SCHEDULE, 0.0, 0.5, conditional=True, **settings)
        self.seen = []

    def ranker(self, candidates, condition):
        assert condition.shape == (len(candidates), 1, 1)
        self.seen.append(len(candidates))
        return liked(candidates)


class Asked:
    """A cost that keeps what it was asked about."""

    def __init__(self, cost=wanted):
        self.cost, self.rounds = cost, []

    def __call__(self, candidates):
        self.rounds.append(candidates)
        return self.cost(candidates)


def make_optimizer(model=None, **changes):
    settings = {"num_inference_steps": 3, "num_candidates": 8, **changes}
    return DDIMOptimizer(model or Ranked(), **settings)


def problem(cost=None, means=MEANS, **fields):
    return PlanningProblem({"mean": means}, cost, **fields)


def all_candidates(**fields):
    asked = Asked()
    make_optimizer().optimize(problem(asked, **fields))
    return asked.rounds[0]
