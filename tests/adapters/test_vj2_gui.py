"""VJ2-GUI: the candidate chosen is the best of those proposed, however its predictor is called."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.adapters import (
    TOUCH,
    TWO_TOUCHES,
    Answer,
    Recorder,
    best_of,
    gaussian_optimizer,
    robot_spec,
)
from builders.bundles import make_bundle
from builders.training import make_gestures
from torch import nn

from vj2_ddim_plugin.adapters.vj2_gui import VJ2GUIPlanner
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError
from vj2_ddim_plugin.gestures import is_valid

BATCH, TOKENS, WIDTH = 2, 4, 5
NUMBERS = 20 * 3


class Flat(nn.Module):
    """z + W a, with actions `[B, T, 60]`, in the manner of the host's plain predictor."""

    def __init__(self, states=1):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.action_encoder = nn.Linear(NUMBERS, TOKENS * WIDTH, bias=False)
        with torch.no_grad():
            self.action_encoder.weight.normal_(generator=generator)
        self.states, self.rows = states, []
        self.eval()

    def forward(self, z, actions):
        batch, states, tokens, width = z.shape
        assert states == self.states
        assert actions.shape == (batch, states, NUMBERS)
        self.rows.append(batch)
        return z + self.action_encoder(actions).view(batch, states, tokens, width)

    def weight(self):
        return self.action_encoder.weight.detach().double().numpy()


class FiLM(Flat):
    """The same with actions `[B, T, 20, 3]`, said and viewed as the host's FiLM variants do it."""

    def actions_formatter(self, actions):
        return actions

    def forward(self, z, actions):
        batch, states, steps, _ = actions.shape
        each = actions.view(batch * states, steps, -1)  # their encoder of actions
        assert z.view(batch, -1).shape[1] == states * TOKENS * WIDTH
        return super().forward(z, each.view(batch, states, NUMBERS))


class Probabilistic(Flat):
    def forward(self, z, actions):
        return super().forward(z, actions), torch.full_like(z, 1e9)


class Blended(Flat):
    """Looks at every state it is given, later ones more, and at their actions."""

    def forward(self, z, actions):
        share = torch.arange(1.0, z.shape[1] + 1)[:, None, None]
        return (super().forward(z, actions) * share).cumsum(1) / 3


def latents(states=1, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(BATCH, states, TOKENS, WIDTH, generator=generator)
    goal = torch.randn(BATCH, TOKENS, WIDTH, generator=generator)
    return z.to(dtype), goal.to(dtype)


def normed(z):
    z = z.double().numpy()
    centred = z - z.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def costs_by_hand(recorder, z, goal, weight, loss):
    """Cost `[B, K]` of everything proposed: every block moves the state by W a."""
    candidates = recorder.candidates
    blocks = candidates.reshape(*candidates.shape[:2], -1, NUMBERS).sum(axis=2, dtype=np.float64)
    last = z[:, None] + (blocks @ weight.T).reshape(*blocks.shape[:2], TOKENS, WIDTH)
    difference = last - goal[:, None]
    size = np.abs(difference) if loss == "l1" else difference**2
    return size.mean(axis=(2, 3))


class ProbabilisticFiLM(FiLM):
    def forward(self, z, actions):
        return super().forward(z, actions), torch.full_like(z, 1e9)


@pytest.mark.parametrize("states", [1, 2, 3])
@pytest.mark.parametrize("kind", [FiLM, ProbabilisticFiLM])
def test_predictors_that_view_what_they_are_given(kind, states):
    z, goal = latents(states)
    plans = [
        VJ2GUIPlanner(gaussian_optimizer(TWO_TOUCHES), rows_per_chunk=3).plan(z, goal, predictor)
        for predictor in (kind(states), Flat(states))
    ]
    torch.testing.assert_close(*plans, rtol=0, atol=0)


@pytest.mark.parametrize("predictor", [Flat, FiLM, Probabilistic])
@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("spec", [TOUCH, TWO_TOUCHES], ids=["one block", "two blocks"])
def test_the_plan_is_the_best_of_what_was_proposed(predictor, loss, layer_norm, spec):
    predictor, (z, goal) = predictor(), latents()
    recorder = Recorder(gaussian_optimizer(spec))
    planner = VJ2GUIPlanner(recorder, loss=loss, layer_norm=layer_norm, seed=1)
    plan = planner.plan(z, goal, predictor)
    assert plan.shape == (BATCH, spec.length, 3)
    start, target = (normed(h) if layer_norm else h.numpy() for h in (z[:, 0], goal))
    expected = costs_by_hand(recorder, start, target, predictor.weight(), loss)
    np.testing.assert_allclose(recorder.costs, expected, rtol=2e-4)
    assert np.ptp(expected, axis=1).min() > 1e-3  # there was something to choose
    np.testing.assert_array_equal(plan.numpy(), best_of(recorder.candidates, expected))
    np.testing.assert_allclose(planner.last_result.cost, expected.min(axis=1), rtol=2e-4)


def test_the_bundle_is_given_the_last_state_and_the_goal_as_it_was_trained_on_them():
    z, goal = latents(states=2)
    for wanted, expected in ((False, (z[:, -1], goal)), (True, (normed(z[:, -1]), normed(goal)))):
        answer = Answer(TOUCH, np.zeros((BATCH, 20, 3)))
        VJ2GUIPlanner(answer, layer_norm_context=wanted).plan(z, goal[:, None], Flat(states=2))
        context = answer.problem.context
        assert set(context) == {"state", "goal"}
        for name, value in zip(("state", "goal"), expected, strict=True):
            assert context[name].dtype == np.float32
            np.testing.assert_allclose(context[name], np.asarray(value), atol=1e-5)


NORMED, NOT_NORMED, UNSAID = ({"layer_normed": said} for said in (True, False, None))
RECORDED = [({}, None, False), (UNSAID, None, False), (NOT_NORMED, None, False)]
RECORDED += [(NORMED, None, True), (NORMED, False, False), ({}, True, True)]


@pytest.mark.parametrize(("recorded", "asked", "normed"), RECORDED)
def test_what_the_bundle_recorded_of_its_latents_need_not_be_typed_again(
    tmp_path, recorded, asked, normed
):
    folder = make_bundle(tmp_path / "bundle", provenance={"made_by": "hand", **recorded})
    settings = {} if asked is None else {"layer_norm_context": asked}
    planner = VJ2GUIPlanner(folder, provider="cpu", num_threads=1, **settings)
    assert planner.layer_norm_context is normed
    assert planner.provenance == {"made_by": "hand", **recorded}


def test_what_contradicts_what_the_bundle_recorded_is_refused(tmp_path):
    cpu = {"provider": "cpu", "num_threads": 1, "layer_norm": False}
    no = make_bundle(tmp_path / "no", provenance={"made_by": "hand", **NOT_NORMED})
    with pytest.raises(ConfigError, match="not layer-normed; leave it out"):
        VJ2GUIPlanner(no, layer_norm_context=True, **cpu)
    yes = make_bundle(tmp_path / "yes", provenance={"made_by": "hand", **NORMED})
    planner = VJ2GUIPlanner(yes, layer_norm_context=False, action_form="flat", **cpu)
    z = torch.randn(1, 1, 2, 3)
    with pytest.raises(ContextError, match="state is not layer-normed"):
        planner.plan(5 + z, 5 + z[:, 0], lambda z, actions: z)
    normal = torch.nn.functional.layer_norm(z, (3,))
    planner.plan(normal, normal[:, 0], lambda z, actions: z)


def test_with_one_state_the_rollout_is_the_trainers_own():
    # the trainer's loop: the prediction alone is the next input, and is not normed again
    z, goal = latents()
    predictor, recorder = Flat(), Recorder(gaussian_optimizer(TWO_TOUCHES))
    VJ2GUIPlanner(recorder, layer_norm=False).plan(z, goal, predictor)
    for index in range(recorder.candidates.shape[1]):
        blocks = torch.tensor(recorder.candidates[:, index]).view(BATCH, 2, NUMBERS)
        state = z
        for step in range(2):
            state = predictor(state, blocks[:, step : step + 1])
        expected = (state[:, 0] - goal).abs().mean((1, 2)).detach()
        np.testing.assert_allclose(recorder.costs[:, index], expected, rtol=1e-5)


def test_with_more_states_predictions_push_the_oldest_out():
    z, goal = latents(states=2)
    past = torch.rand(BATCH, 1, 20, 3)
    predictor, recorder = Blended(states=2), Recorder(gaussian_optimizer(TWO_TOUCHES))
    planner = VJ2GUIPlanner(recorder, layer_norm=False, rows_per_chunk=4)
    planner.plan(z, goal, predictor, past_actions=past)
    for index in range(recorder.candidates.shape[1]):
        blocks = torch.tensor(recorder.candidates[:, index]).view(BATCH, 2, NUMBERS)
        sent = torch.cat([past.flatten(2), blocks], dim=1)
        with torch.no_grad():
            middle = predictor(z, sent[:, :2])[:, -1]
            last = predictor(torch.stack([z[:, 1], middle], dim=1), sent[:, 1:])[:, -1]
        expected = (last - goal).abs().mean((1, 2))
        np.testing.assert_allclose(recorder.costs[:, index], expected, rtol=1e-5)


def test_no_past_is_no_touch():
    z, goal = latents(states=3)
    planner = VJ2GUIPlanner(gaussian_optimizer(TOUCH), layer_norm=False, seed=5)
    silent = planner.plan(z, goal, Blended(states=3))
    cost = planner.last_result.cost
    said = planner.plan(z, goal, Blended(states=3), past_actions=torch.zeros(BATCH, 2, 20, 3))
    torch.testing.assert_close(silent, said, rtol=0, atol=0)
    assert planner.last_result.cost == pytest.approx(cost)


def test_a_previous_plan_that_reaches_the_goal_is_kept():
    (z, _), predictor = latents(), Flat()
    previous = torch.tensor(make_gestures(BATCH, seed=3))
    goal = predictor(z, previous.view(BATCH, 1, -1)).detach()
    planner = VJ2GUIPlanner(gaussian_optimizer(TOUCH), loss="l2", layer_norm=False)
    plan = planner.plan(z, goal, predictor, previous=previous)
    torch.testing.assert_close(plan, previous, rtol=0, atol=0)
    assert planner.last_result.cost == pytest.approx([0.0, 0.0], abs=1e-10)
    planner.plan(z, goal, predictor)
    assert (planner.last_result.cost > 1e-3).all()


def test_a_shorter_horizon_ranks_and_returns_the_beginning():
    z, goal = latents()
    recorder = Recorder(gaussian_optimizer(TWO_TOUCHES))
    planner = VJ2GUIPlanner(recorder, horizon=1, layer_norm=False)
    plan = planner.plan(z, goal, Flat())
    recorder.batches = [(candidates[:, :, :20], costs) for candidates, costs in recorder.batches]
    expected = costs_by_hand(recorder, z[:, 0].numpy(), goal.numpy(), Flat().weight(), planner.loss)
    np.testing.assert_allclose(recorder.costs, expected, rtol=1e-4)
    np.testing.assert_array_equal(plan.numpy(), best_of(recorder.candidates, expected))


def test_half_precision_in_half_precision_out_and_no_gradient():
    z, goal = latents(dtype=torch.bfloat16)
    planner = VJ2GUIPlanner(gaussian_optimizer(TOUCH))
    plan = planner.plan(z.requires_grad_(), goal, Flat().to(torch.bfloat16))
    assert (plan.dtype, plan.device) == (torch.bfloat16, z.device)
    exact = torch.tensor(planner.last_result.actions)
    torch.testing.assert_close(plan.float(), exact, rtol=2**-8, atol=0)
    assert not plan.requires_grad
    plan.mul_(0.5)  # and it is a tensor like any other
    assert z.grad is None


def test_timestamps_are_two_milliseconds_apart_and_shift_when_asked():
    planner = VJ2GUIPlanner(gaussian_optimizer(TWO_TOUCHES))
    planner.plan(*latents(), Flat())
    stamps = planner.timestamps(100.0)
    np.testing.assert_allclose(stamps, 100.0 + np.arange(40) / 500)
    assert planner.planning_time_s > 0
    shifted = planner.timestamps(100.0, adjust=True)
    np.testing.assert_allclose(shifted - stamps, planner.planning_time_s)


def test_a_form_that_nothing_says_is_asked_for():
    z, goal = latents()
    planner = VJ2GUIPlanner(gaussian_optimizer(TOUCH))
    with pytest.raises(ConfigError, match=r"action_form='flat' for \[B, T, 60\].*'steps'"):
        planner.plan(z, goal, lambda z, actions: z)
    for form, shape in (("flat", (60,)), ("steps", (20, 3))):
        seen = []

        def predictor(z, actions, seen=seen):
            seen.append(tuple(actions.shape[2:]))
            return z

        VJ2GUIPlanner(gaussian_optimizer(TOUCH), action_form=form).plan(z, goal, predictor)
        assert set(seen) == {shape}


def test_a_predictor_wrapped_for_several_gpus_is_read_through():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *arguments):
            return self.module(*arguments)

    planner = VJ2GUIPlanner(gaussian_optimizer(TOUCH), seed=7)
    for kind in (Flat, FiLM):
        wrapped = planner.plan(*latents(), Wrapper(kind()).eval())
        torch.testing.assert_close(wrapped, planner.plan(*latents(), kind()), rtol=0, atol=0)


def test_a_predictor_in_training_mode_is_warned_of(caplog):
    VJ2GUIPlanner(gaussian_optimizer(TOUCH)).plan(*latents(), Flat().train())
    assert "call eval()" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_context": torch.zeros(2, 4, 5)}, r"z_context has shape \[2, 4, 5\]"),
        ({"z_goal": torch.zeros(2, 4, 6)}, r"z_goal has shape \[2, 4, 6\]"),
        ({"z_goal": torch.zeros(2, 2, 4, 5)}, r"\[B, 1, N, D\] = \[2, 1, 4, 5\]"),
        ({"previous": torch.zeros(2, 21, 3)}, "21 actions long, a plan 20"),
        ({"previous": torch.zeros(3, 20, 3)}, "warm start has shape"),
        ({"previous": torch.full((2, 20, 3), 1.5)}, "channel 'x': 1.5 to 1.5, allowed are 0 to 1"),
        ({"previous": torch.full((2, 20, 3), torch.nan)}, "120 values that are NaN"),
        ({"past_actions": torch.zeros(2, 1, 20, 3)}, "past_actions has shape"),
        ({"predictor": lambda z, a: z[:, 0]}, "predictor's output has shape"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    z, goal = latents()
    arguments = {"z_context": z, "z_goal": goal, "predictor": Flat(), **change}
    planner = VJ2GUIPlanner(gaussian_optimizer(TOUCH), action_form="flat")
    with pytest.raises(ContextError, match=message):
        planner.plan(**arguments)


def test_nan_for_some_candidates_is_not_chosen():
    class Broken(Flat):
        def forward(self, z, actions):
            out = super().forward(z, actions)
            out[::2] = torch.nan
            return out

    recorder = Recorder(gaussian_optimizer(TOUCH))
    planner = VJ2GUIPlanner(recorder, rows_per_chunk=1000)
    planner.plan(*latents(), Broken())
    assert np.isnan(recorder.costs).any()
    assert np.isfinite(planner.last_result.cost).all()


def test_sizes_and_settings_that_cannot_work_are_refused():
    optimizer = gaussian_optimizer(TOUCH)
    with pytest.raises(ActionError, match="plans 2 world-model steps, the optimizer makes 1"):
        VJ2GUIPlanner(optimizer, horizon=2)
    with pytest.raises(ConfigError, match="loss must be one of"):
        VJ2GUIPlanner(optimizer, loss="mse")
    longer = VJ2GUIPlanner(gaussian_optimizer(robot_spec(1, 21, "xyp")))
    with pytest.raises(ActionError, match=r"takes 60 numbers a block, the optimizer makes 63"):
        longer.plan(*latents(), Flat())


def test_touches_whose_bounds_do_not_hold_zero():
    # a released step is zero there all the same
    low, high = (0.05, 0.05, 0.0), (0.95, 0.95, 1.0)
    planner = VJ2GUIPlanner(gaussian_optimizer(replace(TOUCH, action_low=low, action_high=high)))
    plan = planner.plan(*latents(), Flat())
    assert (plan == 0).all(dim=-1).any()
    planner.plan(*latents(), Flat(), plan)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bound", [0.9, 0.3, 1.1, 1.0])
def test_half_precision_does_not_round_out_of_bounds(dtype, bound):
    low, high = (bound / 9, bound / 7, 0.0), (bound, bound, 1.0)
    spec = replace(TOUCH, action_low=low, action_high=high, representation="held")
    actions = np.zeros((BATCH, 20, 3))
    actions[0, 5:12], actions[1, :5] = low, high
    actions[0, 5:12, 2] = 1.0
    seen = []

    class Half(Flat):
        def forward(self, z, actions):
            seen.append(actions.double())
            return super().forward(z.float(), actions.float()).to(dtype)

    z, goal = latents(dtype=dtype)
    planner = VJ2GUIPlanner(Answer(spec, actions))
    plan = planner.plan(z, goal, Half())
    assert plan.dtype == dtype
    values, pressed = plan.double().numpy(), actions[..., 2] > 0.5
    assert (values[pressed] >= low).all()
    assert (values[pressed] <= high).all()
    assert (values[~pressed] == 0).all()
    np.testing.assert_allclose(values, actions, rtol=2 * torch.finfo(dtype).eps)
    ranked = torch.cat(seen).reshape(-1, 3).numpy()  # what is ranked is what is handed over
    touched = ranked[ranked[:, 2] > 0.5]
    assert ((touched >= low) & (touched <= high)).all()
    planner.plan(z, goal, Half(), plan)


def test_a_bundle_by_its_folder(tmp_path):
    weight = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))

    def predictor(z, actions):
        return z + (actions @ weight).view(z.shape)

    # a bundle that ONNX Runtime runs, conditioned on a goal of 2 tokens of width 3
    bundle = make_bundle(tmp_path / "bundle")
    settings = {"provider": "cpu", "num_threads": 1, "num_candidates": 6, "num_inference_steps": 3}
    planner = VJ2GUIPlanner(bundle, layer_norm=False, action_form="flat", seed=0, **settings)
    z, goal = torch.zeros(1, 1, 2, 3), torch.ones(1, 2, 3)
    plan = planner.plan(z, goal, predictor)
    assert is_valid(plan.numpy(), planner.action_spec).all()
    assert planner.last_result.provider == "CPUExecutionProvider"
    last = predictor(z, plan.reshape(1, 1, 30))[:, 0]
    expected = (last - goal).abs().mean((1, 2)).numpy()
    assert planner.last_result.cost == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(plan, planner.plan(z, -goal, predictor))
    wider = torch.zeros(1, 1, 4, 6)
    with pytest.raises(ContextError, match="context 'goal' has shape"):
        planner.plan(wider, wider, lambda z, actions: z)
