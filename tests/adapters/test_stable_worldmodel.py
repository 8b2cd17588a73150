"""stable-worldmodel: what can be said of its solver without the host; `tests/hosts` has more."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.bundles import make_bundle

from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver, encode_last_frames
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.interface import PlanResult

HORIZON, ACTION_BLOCK, BATCH = 2, 5, 2  # the bundle makes 10 touches (x, y, press)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle conditioned on a goal of 2 tokens of width 3."""
    return make_bundle(tmp_path_factory.mktemp("worldmodel") / "bundle")


class Model:
    """Ranks by the mean distance of x to 0.3."""

    def __init__(self):
        self.infos, self.candidates = [], []

    def get_cost(self, info, candidates):
        self.infos.append(info)
        self.candidates.append(candidates.clone())
        return (candidates[..., 0::3] - 0.3).abs().mean(dim=(-1, -2))


class Listener:
    """The part of the host's callback that a solver calls."""

    output_key = "listener"

    def __init__(self):
        self.history, self.heard = [], []

    def reset(self):
        self.heard = []

    def start_batch(self):
        self.history = []

    def end_solve(self):
        self.history.append(len(self.heard))

    def __call__(self, step, candidates, costs):
        candidates += 0  # a callback may do with them what it likes
        self.heard.append((step, candidates.clone(), costs.clone()))


def encode(model, info):
    return {"goal": info["goal"][:, -1]}


def make_info():
    generator = torch.Generator().manual_seed(0)
    return {
        "pixels": torch.rand(BATCH, 1, 4, generator=generator),
        "goal": torch.rand(BATCH, 1, 2, 3, generator=generator),
    }


def make_solver(bundle, model=None, **settings):
    settings = {"num_candidates": 8, "num_inference_steps": 2, "encode": encode, **settings}
    solver = StableWorldModelSolver(
        bundle, model or Model(), provider="cpu", num_threads=1, **settings
    )
    solver.configure(
        action_space=SimpleNamespace(shape=(BATCH, 3)),
        n_envs=BATCH,
        config=SimpleNamespace(horizon=HORIZON, action_block=ACTION_BLOCK),
    )
    return solver


def test_the_cheapest_of_what_was_ranked_is_the_plan(bundle):
    model = Model()
    outputs = make_solver(bundle, model)(make_info())
    ranked = torch.cat(model.candidates)
    costs = Model().get_cost({}, ranked)
    torch.testing.assert_close(torch.tensor(outputs["costs"]), costs.min(1).values)
    best = ranked[torch.arange(BATCH), costs.argmin(1)]
    torch.testing.assert_close(outputs["actions"], best, rtol=0, atol=0)


def test_what_takes_over_may_use_gradients(bundle):
    class Descent:
        """The host's own optimizer, as it stands in the chain."""

        def optimize(self, problem):
            actions = torch.full((problem.batch_size, 10, 3), 0.9, requires_grad=True)
            (actions[..., 0] - 0.5).square().sum().backward()
            with torch.no_grad():
                actions -= 0.5 * actions.grad
            zeros = np.zeros(problem.batch_size)
            plan = actions.detach().numpy()
            return PlanResult(plan, zeros, zeros[None], 0, 0, {}, "torch", "finished", zeros)

    class Broken(Model):
        def get_cost(self, info, candidates):
            assert not torch.is_grad_enabled()
            raise RuntimeError("the world model broke")

    outputs = make_solver(bundle, Broken(), on_failure=[Descent()])(make_info())
    assert outputs["planned_by"] == "host"
    assert "the world model broke" in outputs["failures"][0]
    expected = torch.tensor([0.5, 0.9, 0.9]).repeat(BATCH, HORIZON, ACTION_BLOCK)
    torch.testing.assert_close(outputs["actions"], expected)


def test_constraints_that_are_not_kept_are_said(bundle, caplog):
    class Constrained(Model):
        def get_constraints(self, info, candidates):
            raise AssertionError("never asked")

    make_solver(bundle, Constrained())(make_info())
    (line,) = caplog.records
    assert "Constrained has constraints (get_constraints)" in line.message


@pytest.mark.parametrize("given_", [{}, {"device": "cpu"}, {"device": torch.device("cpu")}])
def test_the_device_is_that_of_the_models_weights(bundle, given_):
    model = torch.nn.Linear(1, 1, device="cpu" if given_ else "meta")
    model.get_cost = Model().get_cost
    solver = StableWorldModelSolver(bundle, model, provider="cpu", num_threads=1, **given_)
    assert str(solver.device) == ("cpu" if given_ else "meta")


class PreJEPA:
    """The host's, in what is asked of it: patches, fused with an embedding for each other input."""

    extra_encoders = {"proprio": None, "action": None}

    def encode(self, info, pixels_key="pixels", emb_keys=None, prefix=None, target="emb"):
        pixels = info[pixels_key]
        emb = pixels.flatten(2)[..., None].expand(-1, -1, -1, 3).contiguous()
        for key in self.extra_encoders if emb_keys is None else emb_keys:
            emb = torch.cat([emb, info[key]], dim=-1)
        return {**info, target: emb}


class LeWM:
    def encode(self, info):
        return {**info, "emb": info["pixels"].flatten(2)}


@pytest.mark.parametrize(
    ("model", "shape"), [(PreJEPA(), (2, 4, 3)), (LeWM(), (2, 1, 4)), ("held", (2, 1, 4))]
)
def test_what_the_hosts_models_encode(model, shape):
    info = {"pixels": torch.rand(2, 3, 1, 2, 2), "goal": torch.rand(2, 1, 1, 2, 2)}
    holder = SimpleNamespace(model=LeWM())
    found = encode_last_frames(holder if model == "held" else model, info)
    assert {name: tuple(z.shape) for name, z in found.items()} == {"state": shape, "goal": shape}
    for name, frames in (("state", info["pixels"]), ("goal", info["goal"])):
        expected = frames[:, -1].flatten(1)
        patches = found[name][..., 0] if len(shape) == 3 and shape[2] == 3 else found[name][:, 0]
        torch.testing.assert_close(patches, expected)


def test_a_model_that_encodes_more_than_pictures_is_named():
    class Greedy(LeWM):
        def encode(self, info):
            return info["touch"]

    info = {"pixels": torch.rand(2, 3, 1, 2, 2), "goal": torch.rand(2, 1, 1, 2, 2)}
    with pytest.raises(ContextError, match=r"Greedy.encode .*KeyError: 'touch'.*pass encode="):
        encode_last_frames(Greedy(), info)


@pytest.mark.parametrize("deadline_s", [None, float("inf")])
def test_callbacks_hear_of_each_round(bundle, deadline_s):
    listener, model = Listener(), Model()
    settings = {"num_refinements": 2, "callbacks": [listener], "deadline_s": deadline_s}
    solver = make_solver(bundle, model, **settings)
    for _ in range(2):
        assert solver(make_info())["callbacks"] == {"listener": [3]}
    assert [step for step, _, _ in listener.heard] == [0, 1, 2]
    for _, candidates, costs in listener.heard:
        assert candidates.shape == (BATCH, 8, HORIZON, ACTION_BLOCK * 3)
        torch.testing.assert_close(costs, Model().get_cost({}, candidates))


def test_with_a_deadline_callbacks_hear_once_of_all_that_was_ranked(bundle):
    listener, model = Listener(), Model()
    solver = make_solver(bundle, model, num_refinements=2, callbacks=[listener], deadline_s=60.0)
    for _ in range(2):
        outputs = solver(make_info())
    ((step, candidates, costs),) = listener.heard
    assert step == 0
    total = solver.last_result.num_cost_evaluations // BATCH
    assert candidates.shape == (BATCH, total, HORIZON, ACTION_BLOCK * 3)
    assert total == 3 * 8
    torch.testing.assert_close(costs, Model().get_cost({}, candidates))
    torch.testing.assert_close(costs.min(1).values, torch.tensor(outputs["costs"]))
    solver.deadline_s = 0.0
    assert solver(make_info())["callbacks"] == {"listener": [0]}  # nothing was ranked


def test_an_info_dict_for_no_problem_is_refused(bundle):
    with pytest.raises(ContextError, match=r"B at least 1; found .*'pixels': '\(0, 1, 4\)'"):
        make_solver(bundle)({"pixels": torch.zeros(0, 1, 4)})


@pytest.mark.parametrize(
    ("info", "batch"),
    [({}, BATCH), ({"task": "push", "step": torch.tensor(3.0)}, BATCH), ({"names": ["left"]}, 1)],
)
def test_an_info_dict_without_arrays_is_of_its_list_or_for_all_environments(tmp_path, info, batch):
    """The host's LagrangianSolver and PGDSolver take the number of environments so."""
    outputs = make_solver(make_bundle(tmp_path / "bundle", conditional=False))(dict(info))
    assert outputs["actions"].shape == (batch, HORIZON, ACTION_BLOCK * 3)
    assert len(outputs["costs"]) == batch


def test_a_callback_that_reads_what_we_do_not_have_is_named(bundle):
    class Greedy(Listener):
        def __call__(self, **state):
            self.heard.append(state["topk_vals"])

    with pytest.raises(Exception, match="Greedy reads 'topk_vals'"):
        make_solver(bundle, callbacks=[Greedy()])(make_info())


def test_what_is_no_array_is_handed_on_as_it_is(bundle):
    model, expected = Model(), make_solver(bundle)(make_info())
    extra = {"task": "push", "id": 7, "mask": None, "time": torch.tensor(3.0)}
    arrays = {"pose": np.arange(BATCH * 2).reshape(BATCH, 2), "names": ["left", "right"]}
    outputs = make_solver(bundle, model)({**extra, **make_info(), **arrays})
    torch.testing.assert_close(outputs["actions"], expected["actions"], rtol=0, atol=0)
    for problem, info in enumerate(model.infos):
        assert {name: info[name] for name in extra} == extra
        assert info["names"] == [arrays["names"][problem]]
        assert info["pixels"].shape == (1, 8, 1, 4)
        np.testing.assert_array_equal(info["pose"], np.tile(arrays["pose"][problem], (1, 8, 1)))


def test_a_warm_start_in_half_precision(bundle):
    start = torch.zeros(BATCH, HORIZON, ACTION_BLOCK * 3, dtype=torch.float16)
    assert make_solver(bundle)(make_info(), start)["actions"].dtype == torch.float32
    assert make_solver(bundle)(make_info(), start[:, :0])["actions"].shape == start.shape
    with pytest.raises(ContextError, match=r"init_action has shape \(2, 2, 14\)"):
        make_solver(bundle)(make_info(), start[..., :-1])
