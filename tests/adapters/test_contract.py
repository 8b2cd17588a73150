"""What holds for every adapter, whatever its host: one row a host, each in a world of its own."""

import numpy as np
import pytest
import torch
from builders.adapters import (
    RIGS,
    Answer,
    DINOWMRig,
    JEPAWMsRig,
    Recorder,
    VJEPA2Rig,
    gaussian_optimizer,
)

from vj2_ddim_plugin.adapters.base import HostPlanner
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.adapters.vj2_gui import VJ2GUIPlanner
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel

LOADED_BY_FOLDER = StableWorldModelSolver  # it takes no optimizer that is made already
SCORE_ACTIONS = ("stable-worldmodel", "DINO-WM", "jepa-wms")  # the others' cost is of latents
TAKE_A_WARM_START = ("VJ2-GUI", "stable-worldmodel", "DINO-WM")


@pytest.fixture(params=RIGS, ids=lambda rig: rig.host)
def rig(request):
    return request.param()


def test_the_cheapest_of_what_was_ranked_is_the_plan(rig):
    recorder = Recorder(gaussian_optimizer(rig.spec))
    planner = rig.make(recorder)
    assert isinstance(planner, HostPlanner)
    assert (planner.host, planner.action_spec, planner.last_result) == (rig.host, rig.spec, None)
    plan = rig.plan(planner)
    assert plan.shape == (rig.batch, rig.spec.length, rig.spec.num_channels)
    assert plan.dtype == np.float32
    assert np.ptp(recorder.costs, axis=1).min() > 0  # there was something to choose
    np.testing.assert_array_equal(planner.last_result.cost, recorder.costs.min(axis=1))
    if rig.host in SCORE_ACTIONS:
        with torch.no_grad():
            again = rig.scores(torch.tensor(plan)).numpy()
        np.testing.assert_allclose(again, recorder.costs.min(axis=1), rtol=1e-5)


def test_what_is_kept_of_a_plan_is_what_leaves(rig):
    limits = {"jepa-wms": {"max_norms": [0.2], "max_norm_dims": [[0, 3]]}}.get(rig.host, {})
    planner = rig.make(gaussian_optimizer(rig.spec), **limits)
    plan = rig.plan(planner)
    np.testing.assert_array_equal(planner.last_result.actions, plan)
    if rig.host in SCORE_ACTIONS:
        with torch.no_grad():
            cost = rig.scores(torch.tensor(plan)).numpy()
        np.testing.assert_allclose(planner.last_result.cost, cost, rtol=1e-5)


def test_the_same_seed_the_same_plan_another_seed_another(rig):
    planned = {
        seed: [rig.plan(rig.make(gaussian_optimizer(rig.spec, seed=seed))) for _ in range(2)]
        for seed in (4, 5)
    }
    for once, again in planned.values():
        np.testing.assert_array_equal(once, again)
    assert not np.array_equal(planned[4][0], planned[5][0])


def test_a_seed_of_the_planner_goes_before_the_optimizers(rig):
    if isinstance(rig.make(gaussian_optimizer(rig.spec)), LOADED_BY_FOLDER):
        return  # its seed is the optimizer's
    by_planner = rig.plan(rig.make(gaussian_optimizer(rig.spec, seed=1), seed=4))
    by_optimizer = rig.plan(rig.make(gaussian_optimizer(rig.spec, seed=4)))
    np.testing.assert_array_equal(by_planner, by_optimizer)


def test_a_warm_start_that_cannot_be_beaten_is_the_plan(rig):
    if rig.host not in TAKE_A_WARM_START:
        pytest.skip("it remembers its own last plan")
    warm = rig.plan(rig.make(gaussian_optimizer(rig.spec, num_candidates=64)))
    planner = rig.make(gaussian_optimizer(rig.spec, num_candidates=2, seed=9))
    np.testing.assert_array_equal(rig.plan(planner, torch.tensor(warm)), warm)
    assert rig.plan(planner, torch.tensor(warm[:, :0])).shape == warm.shape  # none is none


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_chunks_change_nothing_and_bound_the_batch(rig, rows):
    whole = rig.make(gaussian_optimizer(rig.spec))
    expected = rig.plan(whole)
    if isinstance(whole, LOADED_BY_FOLDER):
        return  # its batch is one environment
    rig.rows.clear()
    plan = rig.plan(rig.make(gaussian_optimizer(rig.spec), rows_per_chunk=rows))
    np.testing.assert_array_equal(plan, expected)
    assert max(rig.rows) == min(rows, 9 * rig.batch)


def test_the_deadline_is_passed_on_less_what_was_spent(rig):
    recorder = Recorder(gaussian_optimizer(rig.spec))
    planner = rig.make(recorder, deadline_s=5.0)
    rig.plan(planner)
    assert 4.0 < recorder.problem.deadline_s <= 5.0
    planner.deadline_s = np.float32(0.0)
    rig.plan(planner)
    assert recorder.problem.deadline_s == 0.0
    assert planner.last_result.stopped_because == "deadline"


@pytest.mark.parametrize("seconds", [float("nan"), "soon", False, True])
def test_a_deadline_that_is_no_number_is_refused(rig, seconds):
    with pytest.raises(ConfigError, match="deadline_s must be a number of seconds"):
        rig.make(gaussian_optimizer(rig.spec), deadline_s=seconds)
    planner = rig.make(gaussian_optimizer(rig.spec), deadline_s=1)
    with pytest.raises(ConfigError, match="deadline_s must be a number of seconds"):
        planner.deadline_s = seconds
    assert planner.deadline_s == 1.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda plan: plan[:, 1:], r"has shape .*; expected"),
        (lambda plan: plan * np.nan, "has .* values that are NaN"),
        (lambda plan: plan + 1e3, "leaves the bounds of channel"),
    ],
    ids=["another shape", "NaN", "out of bounds"],
)
def test_a_plan_that_is_no_plan_is_not_handed_over(rig, spoil, message):
    good = rig.plan(rig.make(gaussian_optimizer(rig.spec)))
    planner = rig.make(Answer(rig.spec, spoil(good)))
    with pytest.raises(ActionError, match=f"the plan for {rig.host} {message}"):
        rig.plan(planner)
    assert planner.last_result is None


@pytest.mark.parametrize("broken", ["nan", "shape"])
def test_a_cost_that_is_none_is_named_and_the_last_result_forgotten(rig, broken):
    planner = rig.make(gaussian_optimizer(rig.spec))
    rig.plan(planner)
    assert planner.last_result is not None
    named = {"nan": "NaN or infinite for every candidate", "shape": rig.wrong_shape}
    with pytest.raises(ContextError, match=named[broken].format(host=rig.host)):
        rig.plan(planner, broken=broken)
    assert planner.last_result is None  # not the one before


def test_no_gradient_is_kept(rig):
    with torch.enable_grad():
        plan = torch.tensor(rig.plan(rig.make(gaussian_optimizer(rig.spec))))
    assert not plan.requires_grad  # and `Rig.scores` saw that none was being recorded


def test_an_optimizer_that_wants_what_the_host_has_not(rig):
    optimizer = DDIMOptimizer(GaussianModel(rig.spec, NoiseSchedule(), conditional=True))
    message = rf"conditioned on \['mean'\], which {rig.host} does not have"
    with pytest.raises(ContextError, match=message):
        rig.plan(rig.make(optimizer))


def test_what_is_no_optimizer_and_settings_of_another_are_refused(rig):
    with pytest.raises(ConfigError, match="found object"):
        rig.make(object())
    if isinstance(rig.make(gaussian_optimizer(rig.spec)), LOADED_BY_FOLDER):
        return
    own = {"num_candidates": 3}
    own = {"settings": own} if rig.host in ("DINO-WM", "jepa-wms") else own
    with pytest.raises(ConfigError, match=r"\['num_candidates'\] belong to a bundle"):
        rig.make(gaussian_optimizer(rig.spec), **own)
    with pytest.raises(ConfigError, match="rows_per_chunk must be at least 1"):
        VJ2GUIPlanner(gaussian_optimizer(rig.spec), rows_per_chunk=0)


@pytest.mark.parametrize(
    ("kind", "settings", "forget", "sent"),
    [
        (JEPAWMsRig, {"num_act_stepped": 1}, lambda it: it.set_objective(it.objective), 2),
        (VJEPA2Rig, {}, lambda it: it.forget(), 1),
    ],
)
def test_the_rest_of_a_plan_starts_the_next_one_until_a_new_goal(kind, settings, forget, sent):
    rig, recorder = kind(), Recorder(gaussian_optimizer(kind.spec))
    warm, cold = (rig.make(recorder, warm_start=is_warm, **settings) for is_warm in (True, False))
    rig.plan(warm)
    assert recorder.problem.init_action is None
    rest = warm.last_result.actions[:, sent:]
    rig.plan(warm)
    np.testing.assert_array_equal(recorder.problem.init_action, rest)
    forget(warm)
    for planner in (warm, cold, cold):
        rig.plan(planner)
        assert recorder.problem.init_action is None


CONFIGURED = pytest.mark.parametrize("kind", [DINOWMRig, JEPAWMsRig], ids=lambda rig: rig.host)


@CONFIGURED
@pytest.mark.parametrize("name", ["num_candidates", "provider", "eta", "num_threads"])
def test_a_setting_of_the_bundle_outside_settings_is_refused(kind, name):
    with pytest.raises(ConfigError, match=rf"\['{name}'\] .*settings=") as raised:
        kind().make(gaussian_optimizer(kind.spec), **{name: 64, "topk": 30})
    assert "topk" not in str(raised.value)
