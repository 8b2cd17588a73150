"""What the adapters' tests share: optimizers without a bundle, and a record of what was ranked."""

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from vj2_ddim_plugin.adapters.dino_wm import DINOWMPlanner
from vj2_ddim_plugin.adapters.jepa_wms import JEPAWMsPlanner
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.adapters.vj2_gui import VJ2GUIPlanner
from vj2_ddim_plugin.adapters.vjepa2 import VJEPA2CEM
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel

torch.set_num_threads(1)

TOUCH = ActionSpec(action_block=20, min_press_steps=5, max_press_steps=10)
TWO_TOUCHES = replace(TOUCH, horizon=2)


def robot_spec(horizon=3, action_block=1, channels="xy", bound=2.0):
    """Actions that are no touches, bounded by `bound` on every side."""
    low, high = (-bound,) * len(channels), (bound,) * len(channels)
    sizes = {"action_block": action_block, "horizon": horizon, "channels": tuple(channels)}
    free = {"press_channel": None, "representation": "raw"}
    return ActionSpec(**sizes, action_low=low, action_high=high, **free)


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


# Each adapter, with the least of its host that can be planned in: a world in which every action
# moves the latents. `plan` returns `[B, L, A]` in numpy; it takes `broken`: "nan" gives NaN costs,
# "shape" one number too many.

ARM = robot_spec(horizon=2, channels="abcdefg", bound=1.0)
BLOCKS = robot_spec(horizon=4, action_block=2)  # two actions (x, y) packed in one step


class Rig:
    """One adapter: how it is made, and one call as its host makes it."""

    host, spec, batch = "", TOUCH, 2
    wrong_shape = "the objective of {host} returned shape"

    def __init__(self):
        self.rows = []  # of every pass through the world model

    def scores(self, actions, broken=None):
        """One number a row, `[n]`, from its actions."""
        assert not torch.is_grad_enabled()
        self.rows.append(len(actions))
        values = (actions.flatten(1).double() - 0.3).square().mean(1).float()
        values = values * torch.nan if broken == "nan" else values
        return torch.cat([values, values[:1]]) if broken == "shape" else values


class VJ2GUIRig(Rig):
    host = "VJ2-GUI"
    wrong_shape = "the predictor's output has shape"

    def make(self, optimizer, **settings):
        return VJ2GUIPlanner(optimizer, **{"action_form": "flat", "layer_norm": False, **settings})

    def plan(self, planner, warm=None, broken=None):
        def predictor(z, actions):
            scores = self.scores(actions, broken)
            return torch.zeros_like(z[: len(scores)]) + scores[: len(z), None, None, None]

        if broken == "shape":
            return planner.plan(*self.scene(), lambda z, actions: z[:, :, 1:], warm).numpy()
        return planner.plan(*self.scene(), predictor, warm).numpy()

    def scene(self):
        return torch.zeros(self.batch, 1, 4, 5), torch.zeros(self.batch, 4, 5)


class StableWorldModelRig(Rig):
    host, spec = "stable-worldmodel", TWO_TOUCHES
    wrong_shape = "StableWorldModelRig.get_cost returned"

    def make(self, optimizer, **settings):
        with mock.patch.object(DDIMOptimizer, "from_bundle", return_value=optimizer):
            settings.setdefault("encode", lambda model, info: {"state": info["pixels"][:, -1]})
            solver = StableWorldModelSolver("bundle", self, **settings)
        space = SimpleNamespace(shape=(self.batch, 3))
        config = SimpleNamespace(horizon=2, action_block=20)
        solver.configure(action_space=space, n_envs=self.batch, config=config)
        return solver

    def plan(self, planner, warm=None, broken=None):
        self.broken = broken
        warm = None if warm is None else warm.reshape(self.batch, -1, 60)
        actions = planner({"pixels": torch.zeros(self.batch, 1, 3)}, warm)["actions"]
        return actions.reshape(self.batch, -1, 3).numpy()

    def get_cost(self, info, candidates):
        batch, count = candidates.shape[:2]
        scores = self.scores(candidates.view(batch * count, *candidates.shape[2:]), self.broken)
        return scores if self.broken == "shape" else scores.view(batch, count)


class DINOWMRig(Rig):
    host, spec, batch = "DINO-WM", BLOCKS, 3

    def make(self, optimizer, **settings):
        self.wm = SimpleNamespace(
            parameters=lambda: iter([torch.zeros(1)]),
            encode_obs=lambda obs: obs,
            rollout=lambda obs_0, act: ({"moved": act.view(-1).view(act.shape)}, None),
        )
        preprocessor = SimpleNamespace(transform_obs=lambda obs: obs)

        def objective(z, goal):
            return self.scores(z["moved"], self.broken)

        return DINOWMPlanner(optimizer, self.wm, 4, objective, preprocessor, **settings)

    def plan(self, planner, warm=None, broken=None):
        self.broken = broken
        seen = {"visual": torch.zeros(self.batch, 1, 2, 3)}
        warm = None if warm is None else warm.reshape(self.batch, -1, 4)
        return planner.plan(seen, seen, warm)[0].reshape(self.batch, -1, 2).numpy()


class JEPAWMsRig(Rig):
    host, spec, batch = "jepa-wms", BLOCKS, 1

    def make(self, optimizer, **settings):
        unroll = lambda z, actions: actions.view(-1).view(actions.shape)  # noqa: E731
        planner = JEPAWMsPlanner(optimizer, unroll, 4, **settings)
        planner.set_objective(self.objective)
        return planner

    def objective(self, latents, actions):
        return self.scores(actions.transpose(0, 1), self.broken)

    def plan(self, planner, warm=None, broken=None):
        self.broken = broken
        return planner.plan(torch.zeros(1, 2, 1, 2, 3)).actions.reshape(1, -1, 2).numpy()


class VJEPA2Rig(Rig):
    host, spec, batch = "V-JEPA 2", ARM, 1

    def make(self, optimizer, **settings):
        self.samples = settings.pop("rows_per_chunk", 100)  # the host gives it with each call
        return VJEPA2CEM(optimizer, **settings)

    def plan(self, planner, warm=None, broken=None):
        def objective(last, goal):
            return self.scores(last, broken)

        frame, pose = torch.zeros(1, 1, 7, 1), torch.zeros(1, 1, 7)
        settings = {"samples": self.samples, "objective": objective, "maxnorm": 1.0}
        return planner(frame, pose, frame, self.step, 2, **settings).numpy()

    @staticmethod
    def step(frames, actions, poses):
        whole = actions.view(-1).view(actions.shape)  # all hosts take views
        return frames[:, -1:] + whole[:, -1:, :, None], poses[:, -1:] + whole[:, -1:]


RIGS = (VJ2GUIRig, StableWorldModelRig, DINOWMRig, JEPAWMsRig, VJEPA2Rig)
