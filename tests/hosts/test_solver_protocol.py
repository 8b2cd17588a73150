"""Our solver where stable-worldmodel's own stand: what its protocol and its policy ask of one."""

from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from builders.hosts import QuadraticModel, box, make_info, plan_config
from stable_worldmodel.solver import Solver
from stable_worldmodel.solver.callbacks import BestCostRecorder, MeanCostRecorder

from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.errors import ConfigError, ContextError, CostError

BLOCKS = [(10, 1), (2, 5)]  # horizon, action_block: both are plans of 10 actions


@pytest.mark.parametrize(("horizon", "action_block"), BLOCKS)
def test_it_keeps_the_hosts_protocol_as_it_was_configured(make_solver, horizon, action_block):
    solver = make_solver(horizon=horizon, action_block=action_block, num_envs=3)
    assert isinstance(solver, Solver)
    assert (solver.n_envs, solver.horizon, solver.action_dim) == (3, horizon, 2 * action_block)


def test_it_must_be_configured_first(bundle):
    solver = StableWorldModelSolver(str(bundle), QuadraticModel(), provider="cpu")
    for ask in (lambda: solver.horizon, lambda: solver.solve(make_info(1, 2, 10))):
        with pytest.raises(ConfigError, match="call configure"):
            ask()


def test_a_bundle_for_other_actions_is_refused(make_solver):
    solver = make_solver()
    with pytest.raises(ConfigError, match="has 3 numbers, one of the bundle has 2"):
        solver.configure(action_space=box(1, 3), n_envs=1, config=plan_config(2, 5))
    with pytest.raises(ConfigError, match=r"3 x action_block 5 = 15 .* bundle makes 10.* to 2,"):
        solver.configure(action_space=box(1), n_envs=1, config=plan_config(3, 5))


@pytest.mark.parametrize(("horizon", "action_block"), BLOCKS)
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_plans_have_the_hosts_shape_and_their_cost(make_solver, horizon, action_block, batch):
    """B comes from the info dict and may be below `n_envs`; each cost is of exactly its plan."""
    model = QuadraticModel()
    solver = make_solver(model, horizon, action_block)
    info = make_info(batch, horizon, 2 * action_block)
    outputs = solver(info, init_action=None)
    actions = outputs["actions"]
    assert actions.shape == (batch, horizon, 2 * action_block)
    assert (actions.dtype, actions.device.type) == (torch.float32, "cpu")
    assert actions.abs().max() <= 1
    assert isinstance(outputs["costs"], list)
    wanted = model.cost(info["target"], actions)
    torch.testing.assert_close(torch.tensor(outputs["costs"]), wanted, check_dtype=False)
    assert outputs["cost"] == outputs["costs"]
    assert (outputs["planned_by"], outputs["failures"]) == ("optimizer", ())


def test_the_layouts_of_host_and_bundle_agree(make_solver):
    """Block after block, action after action: the same plan for action_block 1 and 5."""
    target = make_info(2, 10, 2)["target"]
    plans = []
    for horizon, action_block in BLOCKS:
        info = make_info(2, horizon, 2 * action_block)
        info["target"] = target.reshape(2, horizon, 2 * action_block)
        plans.append(make_solver(None, horizon, action_block)(info)["actions"].reshape(2, 10, 2))
    torch.testing.assert_close(*plans)


def test_the_best_candidate_is_chosen(make_solver):
    """More candidates include the fewer ones' (same noise), so the best is at least as good."""
    few, many = (make_solver(num_candidates=num)(make_info(3, 2, 10)) for num in (1, 32))
    assert (np.array(many["costs"]) <= np.array(few["costs"])).all()
    assert sum(many["costs"]) < sum(few["costs"])


def test_a_plan_does_not_depend_on_what_else_is_planned(make_solver):
    """Neither in a call of its own, nor in batches of one, three and all."""
    solver, info = make_solver(), make_info(4, 2, 10)
    together = solver(info)["actions"]
    for row in range(4):
        alone = solver({key: value[row : row + 1] for key, value in info.items()})["actions"]
        torch.testing.assert_close(alone[0], together[row])
    for size in (1, 3, 4):
        torch.testing.assert_close(make_solver(batch_size=size)(info)["actions"], together)


@pytest.mark.parametrize("length", [1, 2])
def test_the_warm_start_is_a_candidate(make_solver, length):
    """A perfect warm start is kept to the number; one block of it is continued."""
    info = make_info(3, 2, 10)
    start = info["target"][:, :length].clone()
    outputs = make_solver()(info, init_action=start)
    if length == 2:
        torch.testing.assert_close(outputs["actions"], start)
        np.testing.assert_allclose(outputs["costs"], 0, atol=1e-6)
    without = make_solver(warm_start_share=0.0)(info)
    with_start = make_solver(warm_start_share=0.0)(info, init_action=start)
    assert (np.array(with_start["costs"]) <= np.array(without["costs"]) + 1e-6).all()


def test_an_empty_warm_start_is_none(make_solver):
    info, solver = make_info(2, 2, 10), make_solver()
    torch.testing.assert_close(
        solver(info, init_action=torch.zeros(2, 0, 10))["actions"], solver(info)["actions"]
    )


@pytest.mark.parametrize("shape", [(2, 3, 10), (1, 2, 10), (2, 2, 9), (2, 10)])
def test_a_warm_start_of_another_shape_is_refused(make_solver, shape):
    with pytest.raises(ContextError, match=r"shape|actions long"):
        make_solver()(make_info(2, 2, 10), init_action=torch.zeros(shape))


def test_the_info_dict_is_left_alone(make_solver):
    """The model writes into what it is given, and `QuadraticModel` refuses a used dict."""
    info, before = make_info(3, 2, 10), make_info(3, 2, 10)
    make_solver(num_refinements=2)(info)
    assert list(info) == list(before)
    for key in ("pixels", "goal", "target"):
        torch.testing.assert_close(info[key], before[key])


@pytest.mark.parametrize("names", [{}, {"model": QuadraticModel(), "cost": QuadraticModel()}])
def test_one_cost_model_must_be_given(bundle, names):
    with pytest.raises(ConfigError, match="either model= or cost="):
        StableWorldModelSolver(str(bundle), **names)


class Evaluator(torch.nn.Module):
    """The newer layout's cost: it has no `encode`, the world model inside it has."""

    def __init__(self):
        super().__init__()
        self.model = QuadraticModel()

    def get_cost(self, info, candidates):
        return self.model.get_cost(info, candidates)


@pytest.mark.parametrize("cost", [QuadraticModel, Evaluator])
def test_either_name_and_layout_of_the_cost_model(make_solver, cost):
    info = make_info(2, 2, 10)
    torch.testing.assert_close(
        make_solver(cost=cost())(info)["actions"], make_solver()(info)["actions"]
    )


def test_hydra_makes_one_from_plain_values(bundle):
    config = {
        "_target_": "vj2_ddim_plugin.adapters.stable_worldmodel.StableWorldModelSolver",
        "bundle": str(bundle),
        "num_candidates": 4,
        "seed": 7,
        "device": "cpu",
        "provider": "cpu",
    }
    solver = hydra.utils.instantiate(config, model=QuadraticModel())
    assert isinstance(solver, StableWorldModelSolver)
    assert solver.optimizer.settings.num_candidates == 4


def test_callbacks_hear_of_every_round(make_solver):
    best, mean = BestCostRecorder(reduction="none"), MeanCostRecorder()
    solver = make_solver(num_refinements=2, callbacks=[best, mean])
    for _ in range(2):  # a recorder begins anew with each solve
        outputs = solver(make_info(3, 2, 10))
        recorded = outputs["callbacks"]
        assert set(recorded) == {"BestCostRecorder", "MeanCostRecorder"}
        (rounds,) = recorded["BestCostRecorder"]
        assert np.shape(rounds) == (3, 3)
        np.testing.assert_allclose(np.min(rounds, axis=0), outputs["costs"], rtol=1e-5)
        assert np.shape(recorded["MeanCostRecorder"]) == (1, 3)


def test_callbacks_are_given_what_was_ranked(make_solver):
    heard, model, info = [], QuadraticModel(), make_info(3, 2, 10)

    class Listener(BestCostRecorder):
        def compute(self, **state):
            heard.append(state)

    make_solver(model, num_refinements=1, callbacks=[Listener()])(info)
    assert [state["step"] for state in heard] == [0, 1]
    for state in heard:
        assert state["candidates"].shape == (3, 8, 2, 10)
        wanted = model.cost(info["target"][:, None], state["candidates"])
        torch.testing.assert_close(state["costs"], wanted)


def test_without_ranking_the_cost_is_not_asked(make_solver):
    model = QuadraticModel()
    outputs = make_solver(model, ranked=False)(make_info(2, 2, 10))
    assert model.calls == []
    assert np.isnan(outputs["costs"]).all()
    assert outputs["actions"].isfinite().all()


def test_the_seed_decides(make_solver):
    info = make_info(2, 2, 10)
    same, again, other = (make_solver(seed=seed)(info)["actions"] for seed in (1, 1, 2))
    torch.testing.assert_close(same, again, rtol=0, atol=0)
    assert not torch.equal(same, other)


def test_the_models_precision_is_used(make_solver):
    """`QuadraticModel` asserts it."""
    outputs = make_solver(QuadraticModel(torch.float64))(make_info(2, 2, 10))
    assert outputs["actions"].dtype == torch.float32


def test_own_latents(make_solver):
    """`encode` replaces what the default knows; here the state is swapped with the goal."""

    def swapped(model, info):
        names = {"state": "goal", "goal": "pixels"}
        return {
            name: model.encode({"pixels": info[key]})["emb"][:, -1:] for name, key in names.items()
        }

    info = make_info(2, 2, 10)
    turned = {**info, "pixels": info["goal"], "goal": info["pixels"]}
    torch.testing.assert_close(
        make_solver(encode=swapped)(info)["actions"], make_solver()(turned)["actions"]
    )


def test_what_cannot_be_encoded_is_refused(make_solver):
    """A model without `encode` and without a hook; an info dict without a goal."""
    info = make_info(1, 2, 10)
    only_cost = SimpleNamespace(get_cost=lambda info, candidates: candidates.sum(dim=(-1, -2)))
    with pytest.raises(ConfigError, match="no method 'encode'"):
        make_solver(only_cost)(info)
    del info["goal"]
    with pytest.raises(ContextError, match="goal"):
        make_solver()(info)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda candidates: candidates, "returned .* expected a tensor"),
        (lambda candidates: candidates.sum(dim=(-1, -2)).numpy(), "expected a tensor"),
        (lambda candidates: candidates.sum(dim=(-1, -2)) * float("nan"), "NaN or infinite"),
    ],
)
def test_costs_that_rank_nothing_are_refused(make_solver, cost, message):
    model = QuadraticModel()
    model.get_cost = lambda info, candidates: cost(candidates)
    with pytest.raises(CostError, match=message):
        make_solver(model)(make_info(2, 2, 10))


def test_a_failure_is_told(make_solver):
    """With a chain of answers set, the host gets the last plan, and hears why."""
    model = QuadraticModel()
    model.get_cost = lambda info, candidates: candidates.sum(dim=(-1, -2)) * float("nan")
    start = torch.full((2, 2, 10), 0.25)
    outputs = make_solver(model, on_failure=("previous",))(make_info(2, 2, 10), init_action=start)
    assert outputs["planned_by"] == "previous"
    assert "NaN" in outputs["failures"][0]
    torch.testing.assert_close(outputs["actions"], start)


def test_the_whole_result_is_kept(make_solver):
    solver = make_solver()
    assert solver.last_result is None
    outputs = solver(make_info(2, 2, 10))
    result = solver.last_result
    np.testing.assert_array_equal(result.actions.reshape(2, 2, 10), outputs["actions"])
    assert result.num_cost_evaluations == 2 * 8
    with pytest.raises(ContextError):
        solver(make_info(2, 2, 10), init_action=torch.zeros(2, 3, 10))
    assert solver.last_result is None


def test_no_gradient_is_asked(make_solver):
    model, grads = QuadraticModel(), []
    ask = model.get_cost

    def noting(info, candidates):
        grads.append(torch.is_grad_enabled())
        return ask(info, candidates)

    model.get_cost = noting
    make_solver(model)(make_info(1, 2, 10))
    assert grads == [False]
