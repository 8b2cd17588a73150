"""V-JEPA 2: a callable that its world model wrapper cannot tell from its own `cem`."""

import inspect
import sys
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from builders.adapters import Answer, Recorder, best_of, gaussian_optimizer, robot_spec
from torch.nn.functional import layer_norm

from vj2_ddim_plugin.adapters.vjepa2 import VJEPA2CEM, l1
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError

TOKENS, WIDTH = 2, 3
WEIGHT = torch.randn(7, TOKENS * WIDTH, generator=torch.Generator().manual_seed(0))
ARM = robot_spec(horizon=2, channels="abcdefg", bound=1.0)
HAND = robot_spec(horizon=2, channels="xyzg", bound=1.0)
GIVEN = ("context_frame", "context_pose", "goal_frame", "world_model")
# The host's arguments, in its order, with its defaults.
ARGUMENTS = dict.fromkeys(GIVEN, inspect.Parameter.empty)
ARGUMENTS |= {"rollout": 1, "cem_steps": 100, "momentum_mean": 0.25, "momentum_std": 0.95}
ARGUMENTS |= {"momentum_mean_gripper": 0.15, "momentum_std_gripper": 0.15, "samples": 100}
ARGUMENTS |= {"topk": 10, "verbose": False, "maxnorm": 0.05, "axis": {}, "objective": l1}
ARGUMENTS |= {"close_gripper": None}


LIMITS = ({}, {"maxnorm": 0.2, "axis": {1: 0.1, 3: -0.5}})
LIMITS += ({"axis": {-1: 0.5, -4: 0.02}}, {"close_gripper": 1})
LIMITS += ({"axis": {3: 0.1}}, {"axis": {3: 0.9}}, {"axis": {3: 0.2}, "close_gripper": 1})


class WorldModel:
    """The host's wrapper in small: latents and poses move by what is done, poses through numpy."""

    def __init__(self):
        self.rows = []

    def __call__(self, frames, actions, poses):
        count, steps = frames.shape[:2]
        assert frames.shape == (count, steps, TOKENS, WIDTH)
        assert actions.shape == poses.shape == (count, steps, 7)
        self.rows.append(count)
        turned = actions[:, -1] * (1 + poses[:, -1, :1])  # what it does depends on where it is
        next_frame = frames[:, -1:] + (turned @ WEIGHT).view(count, 1, TOKENS, WIDTH)
        pose = poses[:, -1:].cpu().numpy() + actions[:, -1:].cpu().numpy()
        return next_frame, torch.from_numpy(pose).to(poses)


def scene(seed=0):
    generator = torch.Generator().manual_seed(seed)
    frame, goal = torch.randn(2, 1, 1, TOKENS, WIDTH, generator=generator)
    return frame, torch.randn(1, 1, 7, generator=generator), goal


def as_the_host_samples(candidates, maxnorm=0.05, axis=None, close_gripper=None):
    """`[B, K, l, 4 or 7]`: all clipped, then what is given, small gripper commands dropped last."""
    full = np.zeros((*candidates.shape[:3], 7))
    full[..., :3] = np.clip(candidates[..., :3], -maxnorm, maxnorm)
    full[..., 3:6] = candidates[..., 3:6] if candidates.shape[-1] == 7 else 0
    full[..., 6] = np.clip(candidates[..., -1], -0.75, 0.75)
    for index, value in (axis or {}).items():
        full[..., [0, 1, 2, 6][index]] = value
    if close_gripper is not None:
        full[:, :, close_gripper:, 6] = 1.0
    full[..., 6] = np.where(np.abs(full[..., 6]) < 0.25, 0, full[..., 6])
    return full


def costs_by_hand(actions, frame, pose, goal):
    """L1 of every sequence `[1, K, l, 7]`, one at a time."""
    weight = WEIGHT.double().numpy()
    costs = np.zeros(actions.shape[:2])
    for index, sequence in enumerate(actions[0]):
        z, where = frame.double().numpy().reshape(-1), pose.double().numpy()[0, 0].copy()
        for action in sequence:
            z, where = z + (action * (1 + where[0])) @ weight, where + action
        costs[0, index] = np.abs(z - goal.double().numpy().reshape(-1)).mean()
    return costs


def test_it_is_put_where_cem_stood():
    module = ModuleType("world_model_wrapper")
    exec("cem = print\nclass WorldModel: pass", vars(module))
    planner = VJEPA2CEM(gaussian_optimizer(ARM))
    with mock.patch.dict(sys.modules, {"world_model_wrapper": module}):
        for given_ in (module.WorldModel, module.WorldModel()):
            module.cem = print
            planner.put_into(given_)
            assert module.cem is planner
        del module.cem
        with pytest.raises(ConfigError, match="is not V-JEPA 2's WorldModel: its module has"):
            planner.put_into(module.WorldModel)


@pytest.mark.parametrize("spec", [ARM, HAND], ids=["7 channels", "4 channels"])
def test_the_warm_start_is_the_rest_of_what_left_within_the_bounds(spec):
    recorder, seen = Recorder(gaussian_optimizer(spec)), (*scene()[:2], scene()[2])
    cem = VJEPA2CEM(recorder, warm_start=True)
    plan = cem(*seen, WorldModel(), rollout=2, close_gripper=1, axis={0: 3.0})
    cem(*seen, WorldModel(), rollout=2)
    own = [0, 1, 2, 6] if spec is HAND else list(range(7))
    expected = plan[:, 1:, own].clamp(-1, 1)
    np.testing.assert_array_equal(recorder.problem.init_action, expected)


def test_the_signature_is_the_hosts():
    found = inspect.signature(VJEPA2CEM(gaussian_optimizer(ARM))).parameters
    assert {name: parameter.default for name, parameter in found.items()} == ARGUMENTS
    assert list(found) == list(ARGUMENTS)


@pytest.mark.parametrize("spec", [ARM, HAND], ids=["7 channels", "4 channels"])
@pytest.mark.parametrize("rollout", [1, 2])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_the_plan_is_the_best_of_what_was_proposed(spec, rollout, limits):
    recorder, (frame, pose, goal) = Recorder(gaussian_optimizer(spec)), scene()
    planner = VJEPA2CEM(recorder, warm_start=True)
    plan = planner(frame, pose, goal, WorldModel(), rollout=rollout, **limits)
    np.testing.assert_array_equal(planner.last_result.actions, plan)
    assert (plan.shape, plan.dtype) == ((1, rollout, 7), torch.float32)
    actions = as_the_host_samples(recorder.candidates[:, :, :rollout], **limits)
    expected = costs_by_hand(actions, frame, pose, goal)
    np.testing.assert_allclose(recorder.costs, expected, rtol=1e-4)
    np.testing.assert_allclose(plan.numpy(), best_of(actions, expected), rtol=1e-6)


@pytest.mark.parametrize("pose", [torch.zeros(1, 1, 7), torch.zeros(1, 7)], ids=["3-D", "2-D"])
def test_the_hosts_own_call(pose):
    # as its world model wrapper makes it, with the configuration of its notebook
    # on what it encodes and knows: frames [1, HW, D], a pose [1, 1, 7] or [1, 7]
    pictures = torch.randn(2, 1, 1, TOKENS, WIDTH)
    frame, goal = (h.view(1, 1, -1, h.size(-1)).flatten(1, 2) for h in pictures)
    assert frame.shape == (1, TOKENS, WIDTH)
    mpc_args = {"rollout": 2, "samples": 4, "topk": 10, "cem_steps": 10, "maxnorm": 0.05}
    mpc_args |= {"momentum_mean": 0.15, "momentum_std": 0.15, "verbose": True}
    model, cem = WorldModel(), VJEPA2CEM(gaussian_optimizer(ARM))
    seen = dict(zip(GIVEN, (frame, pose, goal, model), strict=True))
    action = cem(**seen, close_gripper=None, **mpc_args)[0]
    whole = (frame[:, None], pose.view(1, 1, 7), goal[:, None], WorldModel())
    again = VJEPA2CEM(gaussian_optimizer(ARM))(*whole, **mpc_args)[0]
    torch.testing.assert_close(action, again, rtol=0, atol=0)
    assert action.shape == (2, 7)
    assert action[:, :3].abs().max() <= 0.05
    assert max(model.rows) == 4  # `samples` rows at once
    assert cem.last_result.num_cost_evaluations == 9


def test_another_objective_and_a_world_model_that_norms():
    frame, pose, goal = scene()
    recorder = Recorder(gaussian_optimizer(ARM))

    def world_model(frames, actions, poses):
        next_frame, pose = WorldModel()(frames, actions, poses)
        return layer_norm(next_frame, next_frame.shape[-1:]), pose

    def objective(a, b):
        assert a.shape == b.shape == (len(a), TOKENS * WIDTH)
        return (a - b).square().sum(-1)

    VJEPA2CEM(recorder)(frame, pose, goal, world_model, objective=objective)
    actions = torch.tensor(as_the_host_samples(recorder.candidates)[0, :, :1]).float()
    for index, action in enumerate(actions):
        last, _ = world_model(frame, action[None], pose)
        expected = (last - goal).square().sum()
        assert recorder.costs[0, index] == pytest.approx(expected.item(), rel=1e-4)


def test_context_is_the_two_frames():
    answer = Answer(ARM, np.zeros((1, 2, 7)))
    frame, pose, goal = scene()
    plan = VJEPA2CEM(answer)(frame, pose, goal, WorldModel(), rollout=2)
    np.testing.assert_array_equal(answer.problem.context["state"], frame[:, 0])
    np.testing.assert_array_equal(answer.problem.context["goal"], goal[:, 0])
    np.testing.assert_array_equal(plan, np.zeros((1, 2, 7)))


def test_what_does_not_fit_is_named():
    frame, pose, goal = scene()
    cem, model = VJEPA2CEM(gaussian_optimizer(ARM)), WorldModel()
    with pytest.raises(ActionError, match="plans 3 world-model steps, the optimizer makes 2"):
        cem(frame, pose, goal, model, rollout=3)
    with pytest.raises(ActionError, match="optimizer makes 2 of 2"):
        VJEPA2CEM(gaussian_optimizer(robot_spec(1, 2)))
    for index in (4, 6, -5):
        with pytest.raises(ConfigError, match=rf"axis has the indices \[{index}\]"):
            cem(frame, pose, goal, model, axis={0: 0.1, index: 0.1})
    for name, arguments in {
        "context_pose": (frame, pose[..., :6], goal, model),
        "goal_frame": (frame, pose, goal[:, :, :1], model),
        "context_frame": (frame.repeat(2, 1, 1, 1), pose, goal, model),
        "the next frame": (frame, pose, goal, lambda f, a, p: (f[:, -1], p)),
    }.items():
        with pytest.raises(ContextError, match=f"{name} has shape"):
            cem(*arguments)
