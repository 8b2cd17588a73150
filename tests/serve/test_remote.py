"""`RemoteOptimizer`: the local plan to the last bit, and what it does when a server does not."""

import pickle
import socket
import time

import numpy as np
import pytest
from builders.bundles import make_bundle
from builders.serving import http_server, make_context, shipped

from vj2_ddim_plugin.adapters.vj2_gui import VJ2GUIPlanner
from vj2_ddim_plugin.errors import ConfigError, ContextError, ServingError
from vj2_ddim_plugin.interface import PlanConstraints, PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.remote import RemoteModel, RemoteOptimizer, RemoteSettings


@pytest.fixture(scope="module")
def server():
    with http_server() as running:
        yield running


@pytest.fixture(autouse=True)
def as_new(server):
    server.failures.clear()
    server.asked.clear()


@pytest.fixture(scope="module")
def remote(server):
    with RemoteOptimizer.connect(server.address, num_candidates=4) as connected:
        yield connected


def cost(candidates):
    return np.abs(candidates[..., 0].mean(axis=2) - 0.4)


CONTEXT = make_context(2, 1)
EARLIER = DDIMOptimizer(shipped()).optimize(PlanningProblem(CONTEXT, seed=9)).actions
FIXED = np.full((250, 3), np.nan)
FIXED[0] = 0.0
PROBLEMS = {
    "a sample": PlanningProblem(CONTEXT, seed=3),
    "ranked": PlanningProblem(CONTEXT, cost, seed=4),
    "warm": PlanningProblem(CONTEXT, cost, EARLIER, seed=5),
    "begun": PlanningProblem(CONTEXT, cost, seed=6, frozen_action=EARLIER[:, :40]),
    "fixed": PlanningProblem(CONTEXT, cost, seed=6, constraints=PlanConstraints(fixed=FIXED)),
    "bounded": PlanningProblem(
        CONTEXT, cost, seed=7, constraints=PlanConstraints(forbidden=[(0.0, 0.0, 0.3, 0.3)])
    ),
    "deadline": PlanningProblem(CONTEXT, cost, seed=8, deadline_s=60.0),
}
WAYS = [
    {},
    {"guidance_scale": 1.3, "num_refinements": 1},
    {"eta": 0.5, "num_inference_steps": 3},
    {"num_ranked": 2, "num_robust": 2, "temperature": 0.5},
]


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_is_the_local_one_to_the_last_bit(server, remote, way):
    way = {"num_candidates": 4, "num_inference_steps": 4, **way}
    local, there = DDIMOptimizer(shipped(), **way), RemoteOptimizer(remote.model, **way)
    for name, problem in PROBLEMS.items():
        expected, found = local.optimize(problem), there.optimize(problem)
        for field in ("actions", "cost", "history", "projection_distance"):
            both = getattr(found, field), getattr(expected, field)
            assert both[0].tobytes() == both[1].tobytes(), (name, field)
        assert found.num_denoiser_evaluations == expected.num_denoiser_evaluations
        assert found.num_cost_evaluations == expected.num_cost_evaluations


def test_a_loop_is_one_request_and_a_connection_is_kept(server, remote):
    remote.optimize(PROBLEMS["ranked"])
    assert server.asked == ["/v2/models/bundle/infer"]
    remote.optimize(PROBLEMS["begun"])
    assert len(server.asked) == 1 + 10 * 3  # each step is one where a part is known
    assert len(remote.model._idle) == 1


def test_what_the_bundle_says_is_known_here(server, remote):
    assert remote.action_spec == shipped().action_spec
    assert remote.model.bundle.provenance == shipped().bundle.provenance
    assert remote.model.schedule == shipped().schedule
    with pytest.raises(ContextError, match="this model needs"):
        remote.optimize(PlanningProblem({}))
    with pytest.raises(ContextError, match="expected"):
        remote.optimize(PlanningProblem({**CONTEXT, "goal": CONTEXT["goal"][:, :3]}))
    with pytest.raises(ConfigError, match="num_inference_steps"):
        RemoteOptimizer(remote.model, num_inference_steps=5000)
    assert server.asked == []
    with pytest.raises(ConfigError, match="by RemoteOptimizer"):
        DDIMOptimizer(remote.model).optimize(PROBLEMS["a sample"])


@pytest.mark.parametrize("failure", ["hang up", 503, 502, (200, 0), (200, 500)])
def test_lost_requests_are_sent_again(server, remote, failure):
    expected = remote.optimize(PROBLEMS["ranked"]).actions
    server.failures[:] = [failure, failure]
    assert remote.optimize(PROBLEMS["ranked"]).actions.tobytes() == expected.tobytes()


def test_retries_are_bounded_and_the_chain_answers(server):
    quick = {"max_retries": 2, "num_candidates": 4}
    with RemoteOptimizer.connect(server.address, on_failure=["previous"], **quick) as there:
        server.failures[:] = [503] * 3
        plan = there.optimize(PROBLEMS["warm"])
        assert (plan.planned_by, plan.actions.tobytes()) == ("previous", EARLIER.tobytes())
        assert "refused the request (503)" in plan.failures[0] or "status 503" in plan.failures[0]
        server.failures[:] = [500]
        with pytest.raises(ServingError, match="status 500") as raised:
            there.optimize(PROBLEMS["ranked"])
        assert raised.value.status == 500
        assert server.failures == []


def test_a_deadline_ends_a_request(server, remote):
    slow = [lambda: time.sleep(0.5)] * 2
    server.failures[:] = slow
    begun = time.perf_counter()
    plan = remote.optimize(PlanningProblem(CONTEXT, cost, EARLIER, deadline_s=0.2, seed=1))
    assert time.perf_counter() - begun < 0.5
    assert plan.stopped_because == "deadline"
    assert plan.actions.tobytes() == EARLIER.tobytes()
    server.failures[:] = slow
    with pytest.raises(ServingError, match="no answer"):
        remote.optimize(PlanningProblem(CONTEXT, cost, deadline_s=0.2))
    time.sleep(0.5)  # until the server has woken


def test_nobody_there_is_an_error_after_the_retries():
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        with pytest.raises(ServingError, match="does not answer"):
            RemoteOptimizer.connect(f"http://127.0.0.1:{gone.getsockname()[1]}/b", max_retries=1)


def test_a_bundle_that_was_replaced_is_noticed(server, tmp_path):
    with RemoteOptimizer.connect(server.address, num_candidates=2) as there:
        served = server.served
        with BundleModel(make_bundle(tmp_path / "bundle"), "cpu") as other, http_server(other) as b:
            server.served = b.served
            try:
                with pytest.raises(ServingError, match="Connect anew") as raised:
                    there.model.infer({}, "candidates", np.zeros((1, 1)), {}, 5.0)
            finally:
                server.served = served
        assert raised.value.status == 409


def test_it_needs_the_token_where_there_is_one():
    with http_server(token="t" * 20) as guarded:
        with pytest.raises(ServingError, match="Authorization"):
            RemoteOptimizer.connect(guarded.address)
        with RemoteOptimizer.connect(guarded.address, token="t" * 20) as there:
            assert there.optimize(PROBLEMS["a sample"]).provider == "CPUExecutionProvider"


def test_it_can_be_pickled_forked_and_closed(server, remote):
    expected = remote.optimize(PROBLEMS["ranked"]).actions
    with pickle.loads(pickle.dumps(remote)) as copy:
        assert copy.optimize(PROBLEMS["ranked"]).actions.tobytes() == expected.tobytes()
    copy.close()
    with pytest.raises(ServingError, match="closed"):
        copy.optimize(PROBLEMS["ranked"])
    assert remote.model._idle
    remote.model.after_fork()
    assert not remote.model._idle


@pytest.mark.parametrize(
    "address",
    [
        "",
        "bundle",
        "http://",
        "http://host/bundle",
        "http://host:1",
        "ftp://host:1/a",
        "http://h:1/a/b",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="http://host:port/NAME"):
        RemoteOptimizer.connect(address)


def test_what_serves_no_bundle_is_refused(server):
    with pytest.raises(ServingError, match="refused the request \\(404\\)"):
        RemoteModel(server.address.replace("bundle", "other"), RemoteSettings())
    with pytest.raises(ConfigError, match="provider"):
        RemoteOptimizer.connect(server.address, provider="cpu")


def test_an_adapter_takes_an_address_where_a_folder_is(server):
    planner = VJ2GUIPlanner(server.address, num_candidates=2)
    assert isinstance(planner.optimizer, RemoteOptimizer)
    assert planner.provenance == shipped().bundle.provenance
    planner.optimizer.close()
