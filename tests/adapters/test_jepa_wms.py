"""jepa-wms: its agent calls ours as it calls its own, and logs what it gets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.adapters import Answer, Recorder, best_of, gaussian_optimizer, robot_spec

from vj2_ddim_plugin.adapters.jepa_wms import JEPAWMsPlanner, PlanningResult
from vj2_ddim_plugin.errors import ActionError, ConfigError

HORIZON, FRAMESKIP = 4, 2
ACTION_DIM = 2 * FRAMESKIP
SPEC = robot_spec(HORIZON, FRAMESKIP)
GRID = (1, 2, 3, 5)  # views, height, width, channels
WEIGHT = torch.randn(ACTION_DIM, 30, generator=torch.Generator().manual_seed(0))


class Model:
    """What of the host's model its planners use."""

    action_dim = ACTION_DIM

    def __init__(self):
        self.calls = []

    def unroll(self, z_ctxt, act_suffix=None):
        steps, count, width = act_suffix.shape
        assert width == ACTION_DIM
        assert not torch.is_grad_enabled()
        self.calls.append((steps, count))
        visual = z_ctxt["visual"] if isinstance(z_ctxt, dict) else z_ctxt
        start = visual.expand(count, *visual.shape[1:]).transpose(0, 1)
        moved = (act_suffix @ WEIGHT).cumsum(0).view(steps, count, *GRID)
        frames = torch.cat([start, start[-1:] + moved])
        return {"visual": frames} if isinstance(z_ctxt, dict) else frames


class Objective:
    """Squared distance of the last latents to the target, as the host's."""

    def __init__(self, target_enc):
        self.target_enc = target_enc

    def __call__(self, encodings, actions):
        target = self.target_enc
        if isinstance(encodings, dict):
            encodings, target = encodings["visual"], target["visual"]
        return (target - encodings).pow(2).mean(dim=tuple(range(2, encodings.ndim)))[-1]


def latents(seed, frames=2):
    return torch.randn(1, frames, *GRID, generator=torch.Generator().manual_seed(seed))


def make_planner(optimizer=None, model=None, goal=None, **changes):
    model = model or Model()
    settings = {"planner_name": "cem", "num_samples": 300, "num_elites": 10, "var_scale": 1.0}
    settings |= {"unroll": model.unroll, "action_dim": model.action_dim}
    planner = JEPAWMsPlanner(optimizer or gaussian_optimizer(SPEC), **{**settings, **changes})
    planner.set_objective(Objective(latents(2, frames=1) if goal is None else goal))
    return planner


def costs_by_hand(candidates, z, goal, steps, limit=np.inf):
    blocks = candidates[0].reshape(candidates.shape[1], -1, ACTION_DIM)[:, :steps]
    blocks = blocks.clip(-limit, limit)
    moved = blocks.sum(axis=1, dtype=np.float64) @ WEIGHT.double().numpy()
    last = z[0, -1].flatten().double().numpy() + moved
    return ((last - goal.flatten().double().numpy()) ** 2).mean(axis=1)[None]


@pytest.mark.parametrize("steps_left", [None, 2, 9])
def test_the_plan_is_the_best_of_what_was_proposed(steps_left):
    recorder, model = Recorder(gaussian_optimizer(SPEC)), Model()
    planner = make_planner(recorder, model, rows_per_chunk=4)
    z, goal, steps = latents(1), latents(2, frames=1), min(HORIZON, steps_left or HORIZON)
    result = planner.plan(z, steps_left=steps_left)
    expected = costs_by_hand(recorder.candidates, z, goal, steps)
    np.testing.assert_allclose(recorder.costs, expected, rtol=1e-4)
    best = best_of(recorder.candidates, expected)[0].reshape(-1, ACTION_DIM)[:steps]
    np.testing.assert_array_equal(result.actions.numpy(), best)
    assert result.actions.dtype == torch.float32
    assert {size for size, _ in model.calls} == {steps}
    assert max(count for _, count in model.calls) == 4
    assert result.losses[-1, 0] == pytest.approx(expected.min(), rel=1e-4)


def test_latents_with_more_than_pictures_in_them():
    answer = Answer(SPEC, np.zeros((1, 8, 2)))
    planner = make_planner(answer, goal={"visual": latents(2, 1), "proprio": torch.zeros(1)})
    z = {"visual": latents(1), "proprio": torch.zeros(1, 2, 3)}
    planner.plan(z)
    state = latents(1)[:, -1].reshape(1, 6, 5)
    np.testing.assert_array_equal(answer.problem.context["state"], state)
    np.testing.assert_array_equal(answer.problem.context["goal"], latents(2, 1).reshape(1, 6, 5))


def test_an_objective_without_a_target_leaves_the_goal_out():
    answer = Answer(SPEC, np.zeros((1, 8, 2)))
    planner = make_planner(answer)
    planner.set_objective(lambda encodings, actions: encodings[-1].flatten(1).mean(1))
    planner.plan(latents(1))
    assert set(answer.problem.context) == {"state"}


def test_the_result_is_the_hosts_field_for_field():
    # names and order of the host's own result
    assert PlanningResult._fields == (
        *("actions", "losses", "prev_elite_losses_mean", "prev_elite_losses_std", "info"),
        *("plan_metrics", "pred_frames_over_iterations", "predicted_best_encs_over_iterations"),
    )

    def decode(latents):
        return np.zeros((len(latents), 4, 4, 3), np.uint8)

    planner = make_planner(decode_each_iteration=True, decode_unroll=decode, num_act_stepped=1)
    result = planner.plan(latents(1))
    assert result.actions.shape == (1, ACTION_DIM)
    assert result.losses.shape == result.prev_elite_losses_std.shape == (1, 1)
    assert result.pred_frames_over_iterations[-1].shape == (2 + HORIZON, 4, 4, 3)
    last = result.predicted_best_encs_over_iterations[-1][-1]
    cost = (last - latents(2, 1)[:, 0]).square().mean()
    assert result.losses[-1].item() == pytest.approx(cost.item(), rel=1e-4)
    assert make_planner().plan(latents(1)).pred_frames_over_iterations is None


def test_as_many_losses_as_the_host_stacks():
    # it stacks the losses of every step of an episode, so their number must not vary
    optimizer = gaussian_optimizer(SPEC, num_refinements=3)
    raw = make_planner(optimizer, seed=1).plan(latents(1)).losses[:, 0]
    assert len(raw) == 4
    for rows in (1, 3, 6):
        losses = make_planner(optimizer, seed=1, iterations=rows).plan(latents(1)).losses[:, 0]
        kept = min(rows - 1, 4)
        assert losses.shape == (rows,)
        torch.testing.assert_close(losses[:kept], raw[:kept])
        assert (losses[kept:] == raw[-1]).all()


def test_plans_keep_to_max_norms_and_what_is_ranked_is_what_is_clipped():
    recorder = Recorder(gaussian_optimizer(SPEC))
    planner = make_planner(recorder, max_norms=[0.3, 0.3], max_norm_dims=[[0, 1], [2, 3]])
    result = planner.plan(latents(1))
    assert result.actions.abs().max() == pytest.approx(0.3)
    goal = latents(2, frames=1)
    expected = costs_by_hand(recorder.candidates, latents(1), goal, HORIZON, limit=0.3)
    np.testing.assert_allclose(recorder.costs, expected, rtol=1e-4)
    best = best_of(recorder.candidates, expected)[0].reshape(-1, ACTION_DIM).clip(-0.3, 0.3)
    np.testing.assert_array_equal(result.actions.numpy(), best)
    one = make_planner(max_norms=[0.1], max_norm_dims=[[2]]).plan(latents(1)).actions
    assert one[:, 2].abs().max() <= 0.1 < one[:, [0, 1, 3]].abs().max()


@pytest.mark.parametrize("where", ["argument", "configuration"])
def test_a_planner_for_an_agent_that_is_made(where):
    model, optimizer = Model(), gaussian_optimizer(SPEC)
    model.decode_unroll = lambda latents: latents
    own = {"planner_name": "mppi", "temperature": 0.005, "num_samples": 300, "horizon": 3}
    own |= {"num_act_stepped": 2} | ({"optimizer": optimizer} if where == "configuration" else {})
    named = () if where == "configuration" else (optimizer,)
    agent = SimpleNamespace(model=model, cfg=SimpleNamespace(planner=own))
    agent.planner = JEPAWMsPlanner.for_agent(agent, *named, horizon=4)
    assert agent.planner.objective is None
    agent.planner.set_objective(Objective(latents(2, frames=1)))
    again = JEPAWMsPlanner.for_agent(agent, optimizer, horizon=4)  # after the host's set_goal
    for planner in (agent.planner, again):
        assert planner.plan(latents(1)).actions.shape == (2, ACTION_DIM)
    assert planner.decode_unroll is model.decode_unroll
    agent.cfg.planner = {}
    with pytest.raises(ConfigError, match="no bundle is named"):
        JEPAWMsPlanner.for_agent(agent)


def test_what_is_clipped_twice_is_clipped_to_the_less():
    planner = make_planner(max_norms=[0.1, 0.3], max_norm_dims=[[0, 1], [1, 2]])
    assert planner.limit.tolist() == pytest.approx([0.1, 0.1, 0.3, np.inf])


def test_what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="call set_objective before plan"):
        JEPAWMsPlanner(gaussian_optimizer(SPEC), Model().unroll, ACTION_DIM).plan(latents(1))
    with pytest.raises(ActionError, match="plans 5 world-model steps, the optimizer makes 4"):
        make_planner(horizon=5)
    with pytest.raises(ConfigError, match=r"max_norm_dims has \[6\], but a step has 4 numbers"):
        make_planner(max_norms=[0.1, 0.75])
    with pytest.raises(ActionError, match="takes 7 numbers"):
        JEPAWMsPlanner(gaussian_optimizer(SPEC), Model().unroll, 7)
