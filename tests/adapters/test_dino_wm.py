"""DINO-WM: its plan.py and its MPC planner call ours as they call their own."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.adapters import Answer, Recorder, best_of, gaussian_optimizer, robot_spec
from torch import nn

from vj2_ddim_plugin.adapters.dino_wm import DINOWMPlanner
from vj2_ddim_plugin.errors import ActionError, ContextError

BATCH, FRAMESKIP, HORIZON = 3, 2, 4
ACTION_DIM = 2 * FRAMESKIP
SPEC = robot_spec(HORIZON, FRAMESKIP)  # two actions (x, y) packed in one world-model step


class Preprocessor:
    """Arrays to tensors, as the host's does it."""

    def transform_obs(self, obs):
        visual = torch.tensor(obs["visual"]).permute(0, 1, 4, 2, 3) / 255.0
        return {"visual": visual, "proprio": torch.tensor(obs["proprio"]) / 2.0}


class WorldModel(nn.Module):
    """Every action moves all tokens by W a and the proprioception by its mean."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(ACTION_DIM, 6, generator=generator))
        self.rows = []

    def encode_obs(self, obs):
        batch, frames = obs["visual"].shape[:2]
        visual = obs["visual"].reshape(batch, frames, 2, -1)[..., :3]
        return {"visual": visual, "proprio": obs["proprio"]}

    def rollout(self, obs_0, act):
        assert act.shape[1:] == (act.shape[1], ACTION_DIM)
        assert not torch.is_grad_enabled()
        self.rows.append(len(act))
        z = self.encode_obs(obs_0)
        moved = (act @ self.weight).cumsum(1).view(len(act), -1, 2, 3)
        visual = torch.cat([z["visual"], z["visual"] + moved], dim=1)
        proprio = z["proprio"] + act.mean(-1, keepdim=True).cumsum(1)
        z_obses = {"visual": visual, "proprio": torch.cat([z["proprio"], proprio], dim=1)}
        return z_obses, visual


def objective(z_obs_pred, z_obs_tgt):
    """The last frame's squared difference, the proprioception's counted half."""
    visual = (z_obs_pred["visual"][:, -1:] - z_obs_tgt["visual"]).square().mean((1, 2, 3))
    proprio = (z_obs_pred["proprio"][:, -1:] - z_obs_tgt["proprio"]).square().mean((1, 2))
    return visual + 0.5 * proprio


def observations(seed=0):
    rng = np.random.default_rng(seed)
    visual = rng.integers(0, 255, (BATCH, 1, 2, 3, 3)).astype(np.uint8)
    return {"visual": visual, "proprio": rng.normal(size=(BATCH, 1, 1)).astype(np.float32)}


def make_planner(optimizer=None, **changes):
    arguments = {"wm": WorldModel(), "action_dim": ACTION_DIM, "objective_fn": objective}
    arguments |= {"env": None, "preprocessor": Preprocessor(), "evaluator": None}
    arguments |= {"wandb_run": None, "log_filename": "logs.json"}
    return DINOWMPlanner(optimizer or gaussian_optimizer(SPEC), **{**arguments, **changes})


def costs_by_hand(candidates, wm, steps=HORIZON):
    """Of every candidate `[B, K, L, 2]`, one at a time through the world model."""
    pre = Preprocessor()
    start, goal = pre.transform_obs(observations(1)), pre.transform_obs(observations(2))
    z_goal = wm.encode_obs(goal)
    costs = np.zeros(candidates.shape[:2])
    with torch.no_grad():
        for b, k in np.ndindex(costs.shape):
            act = torch.tensor(candidates[b, k]).reshape(1, -1, ACTION_DIM)[:, :steps]
            one = slice(b, b + 1)
            z, _ = wm.rollout({name: v[one] for name, v in start.items()}, act)
            costs[b, k] = objective(z, {name: v[one] for name, v in z_goal.items()})
    return costs


def test_the_plan_is_the_best_of_what_was_proposed_in_the_hosts_layout():
    recorder = Recorder(gaussian_optimizer(SPEC))
    planner = make_planner(recorder, rows_per_chunk=7)
    actions, lengths = planner.plan(observations(1), observations(2))
    expected = costs_by_hand(recorder.candidates, planner.wm)
    np.testing.assert_allclose(recorder.costs, expected, rtol=1e-4)
    # "b (t f) d -> b t (f d)": the host unpacks a step into consecutive actions
    best = best_of(recorder.candidates, expected)
    for step in range(HORIZON):
        for skip in range(FRAMESKIP):
            part = actions[:, step, 2 * skip : 2 * skip + 2]
            np.testing.assert_array_equal(part.numpy(), best[:, step * FRAMESKIP + skip])
    assert actions.shape == (BATCH, HORIZON, ACTION_DIM)
    assert actions.dtype == torch.float32
    assert max(planner.wm.rows[: -expected.size]) == 7
    np.testing.assert_array_equal(lengths, np.full(BATCH, np.inf))


def test_an_mpc_loop_hands_back_the_rest_of_the_plan():
    # the host's: take some actions, remember the others, plan again with them
    recorder = Recorder(gaussian_optimizer(SPEC))
    planner = make_planner(recorder)
    memo = None
    for taken in (1, 3, HORIZON):
        planner.logging_prefix = f"plan_{taken}"
        actions, _ = planner.plan(obs_0=observations(1), obs_g=observations(2), actions=memo)
        if memo is not None:
            given = recorder.problem.init_action
            np.testing.assert_array_equal(given, memo.reshape(BATCH, -1, 2).numpy())
        taken_actions = actions.detach()[:, :taken]
        taken_actions[:] = 0  # as the host does with what has succeeded
        memo = actions.detach()[:, taken:]
    assert memo.shape == (BATCH, 0, ACTION_DIM)  # n_taken_actions is the horizon by default
    planner.plan(obs_0=observations(1), obs_g=observations(2), actions=memo)
    assert recorder.problem.init_action is None


@pytest.mark.parametrize("configured", [HORIZON, HORIZON + 5])
def test_the_horizon_is_set_later_and_need_not_fit_before(configured):
    recorder = Recorder(gaussian_optimizer(SPEC))
    planner = make_planner(recorder, horizon=configured)
    planner.horizon = 2  # plan.py sets it to goal_H
    actions, _ = planner.plan(observations(1), observations(2))
    assert actions.shape == (BATCH, 2, ACTION_DIM)
    expected = costs_by_hand(recorder.candidates, planner.wm, steps=2)
    best = best_of(recorder.candidates, expected)[:, : 2 * FRAMESKIP]
    np.testing.assert_array_equal(actions.numpy(), best.reshape(BATCH, 2, ACTION_DIM))
    planner.horizon = HORIZON + 1
    with pytest.raises(ActionError, match="plans 5 world-model steps, the optimizer makes 4"):
        planner.plan(observations(1), observations(2))


def test_the_best_cost_of_each_round_is_logged():
    lines = []
    theirs = {"wandb_run": SimpleNamespace(log=lines.append), "logging_prefix": "plan_7"}
    planner = make_planner(gaussian_optimizer(SPEC, num_refinements=2), **theirs)
    planner.plan(observations(1), observations(2))
    history = planner.last_result.history.mean(axis=1)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["plan_7/loss"] for line in lines] == pytest.approx(list(history))


def test_every_argument_that_the_hosts_own_planners_are_made_with_by_name_is_taken():
    names = set(inspect.signature(DINOWMPlanner).parameters)
    assert names >= {"wm", "action_dim", "objective_fn", "preprocessor", "evaluator", "wandb_run"}
    assert names >= {"log_filename", "logging_prefix", "horizon"}


def test_context_is_what_is_seen_and_what_should_be():
    answer = Answer(SPEC, np.zeros((BATCH, 8, 2)))
    planner = make_planner(answer)
    planner.plan(observations(1), observations(2))
    for name, seed in (("state", 1), ("goal", 2)):
        z = planner.wm.encode_obs(Preprocessor().transform_obs(observations(seed)))
        np.testing.assert_allclose(answer.problem.context[name], z["visual"][:, -1], rtol=1e-6)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.full((BATCH, 1, ACTION_DIM), 2.5), "channel 'x': 2.5 to 2.5, allowed are -2 to 2"),
        (torch.zeros(BATCH, HORIZON + 1, ACTION_DIM), "10 actions long, a plan 8"),
        (torch.zeros(BATCH + 1, 1, ACTION_DIM), "warm start has shape"),
        (torch.zeros(BATCH, 1, 3), r"warm start has shape \(3, 1, 3\).*B, t, 4"),
        (torch.zeros(BATCH, 2, 2), r"warm start has shape \(3, 2, 2\).*B, t, 4"),
        (torch.zeros(BATCH, ACTION_DIM), "warm start has shape"),
    ],
)
def test_a_warm_start_that_does_not_fit_is_named(actions, message):
    with pytest.raises(ContextError, match=message):
        make_planner().plan(observations(1), observations(2), actions)


def test_an_action_of_another_width_is_named():
    with pytest.raises(ActionError, match=r"takes 6 numbers .* makes 4"):
        make_planner(action_dim=6)
