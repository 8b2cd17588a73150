"""What a served bundle answers, without any server: samples, limits, refusals."""

import asyncio
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from builders.bundles import make_bundle
from builders.serving import INFER, as_json, make_context, outputs_of, respond, shipped

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.protocol import HEADER_LENGTH, Tensor, read_message, write_message
from vj2_ddim_plugin.serving import TOKEN, ServeSettings
from vj2_ddim_plugin.serving.app import Batcher, InferenceApp
from vj2_ddim_plugin.serving.sampling import answer_all
from vj2_ddim_plugin.serving.service import ServedModel

LENGTH = HEADER_LENGTH.lower().replace("-", "_")
GOAL = np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 2, 3)


@pytest.fixture(scope="module")
def served():
    return ServedModel(shipped(), "bundle", ServeSettings(max_candidates=64))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A bundle of tiny graphs: conditioned on `goal` [B, 2, 3], without a ranker."""
    folder = make_bundle(tmp_path_factory.mktemp("small") / "bundle")
    with BundleModel(folder, "cpu", num_threads=1) as model:
        yield ServedModel(model, "bundle", ServeSettings(max_request_bytes=4096))


def candidates_of(context, seed, **settings):
    """What a local optimizer shows its cost: all K candidates."""
    seen = []

    def cost(candidates):
        seen.append(candidates.copy())
        return np.zeros(candidates.shape[:2])

    problem = PlanningProblem(context, cost, seed=seed)
    DDIMOptimizer(shipped(), **settings).optimize(problem)
    return seen[0]


WAYS = [
    {},
    {"num_candidates": 3, "guidance_scale": 1.5},
    {"num_candidates": 5, "num_inference_steps": 4, "temperature": 0.5},
    {"num_candidates": 4, "timestep_spacing": "leading", "project": False},
]


@pytest.mark.parametrize("way", WAYS)
def test_candidates_are_the_local_ones_to_the_last_bit(served, way):
    context = make_context(1, 3)
    arrays = {**context, "seed": np.array([7], np.uint64)}
    response = respond(served, "POST", INFER, as_json(arrays, parameters=way))
    assert response.status == 200, response.body
    found, local = outputs_of(response.body), candidates_of(context, 7, **way)
    assert found["candidates"].tobytes() == local.tobytes()
    assert found["predicted_cost"].shape == local.shape[:2]


def test_a_request_gets_what_it_would_get_alone(served):
    """Many at once, of mixed seeds, sizes and settings, one of which fails."""
    bodies = [
        as_json(
            {**make_context(1 + number % 3, number), "seed": np.arange(1 + number % 3) + number},
            parameters={**WAYS[number % len(WAYS)], "num_candidates": 1 + number % 4},
        )
        for number in range(12)
    ]
    broken = {name: np.float32(1e37) * array for name, array in make_context(2, 5).items()}
    bodies.insert(4, as_json(broken))
    asked = [served.open("POST", INFER, {}, body) for body in bodies]
    together = [
        served.close(request, answer)
        for request, answer in zip(asked, answer_all(shipped(), asked), strict=True)
    ]
    for body, response in zip(bodies, together, strict=True):
        assert respond(served, "POST", INFER, body) == response
    assert [response.status for response in together] == [200] * 4 + [400] + [200] * 8
    assert "NaN or infinite" in json.loads(together[4].body)["error"]


def test_binary_and_json_say_the_same(served):
    context = make_context(2)
    plain = respond(served, "POST", INFER, as_json(context))
    headers, body = write_message("inputs", context, {"id": "7"})
    binary = {"parameters": {"binary_data_output": True}, "id": "7"}
    headers, body = write_message("inputs", context, binary)
    length = {LENGTH: headers[HEADER_LENGTH]}
    response = respond(served, "POST", INFER, body, **length)
    expected = {"candidates": Tensor((-1, -1, 250, 3)), "predicted_cost": Tensor((-1, -1))}
    given = response.headers[HEADER_LENGTH]
    message = read_message("outputs", response.body, given, expected, 2**20)
    assert message.fields["id"] == "7"
    for name, array in outputs_of(plain.body).items():
        assert array.tobytes() == message.arrays[name].tobytes()
    one = [{"name": "predicted_cost", "parameters": {"binary_data": False}}]
    only = respond(served, "POST", INFER, as_json(context, outputs=one))
    assert list(outputs_of(only.body)) == ["predicted_cost"]


def test_metadata_say_what_is_asked_and_what_is_served(served):
    for path in ("/v2/models/bundle", "/v2/models/bundle/versions/1"):
        told = json.loads(respond(served, "GET", path).body)
    inputs = {each["name"]: (each["datatype"], each["shape"]) for each in told["inputs"]}
    assert inputs["state"] == ("FP32", [-1, 64, 32])
    assert inputs["seed"] == ("UINT64", [-1])
    assert {each["name"] for each in told["outputs"]} >= {"candidates", "predicted_cost"}
    assert told["parameters"]["manifest"]["action_spec"] == shipped().action_spec.to_dict()
    assert told["versions"] == ["1"]
    assert json.loads(respond(served, "GET", "/v2").body)["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/bundle/ready"):
        assert respond(served, "GET", path).status == 200


def goal(**changes):
    entry = {"name": "goal", "datatype": "FP32", "shape": [1, 2, 3], "data": GOAL.tolist()}
    return {**entry, **changes}


def asked(*inputs, **fields):
    return json.dumps({"inputs": list(inputs), **fields}).encode()


SAMPLE = {"name": "sample", "datatype": "FP32", "shape": [1, 1, 6, 1], "data": [0.0] * 6}
STEPS = {"name": "timesteps", "datatype": "INT64", "shape": [1, 2], "data": [9, -1]}
SEED = {"name": "seed", "datatype": "UINT64", "shape": [1], "data": [1]}
REFUSED = [
    (b"", 400, "JSON"),
    (b"[]", 400, "expected a JSON object"),
    (b"{}", 400, "'inputs' must be a list"),
    (b'{"inputs": NaN}', 400, "JSON"),
    (b"[" * 5000, 400, "JSON"),
    (asked(), 400, "context has []"),
    (asked("goal"), 400, "an object with a name"),
    (asked(goal(name="state")), 400, "'state' is unknown; use goal, seed"),
    (asked(goal(), goal()), 400, "stands twice"),
    (asked(goal(datatype="BYTES")), 400, "expected FP32 or FP16"),
    (asked(goal(datatype=["FP32"])), 400, "datatype"),
    (asked(goal(shape=[1, 2, 4])), 400, "expected [-1, 2, 3]"),
    (asked(goal(shape=[-1, 2, 3])), 400, "no such shape"),
    (asked(goal(shape=[2**39, 2, 3])), 413, "at most"),
    (asked(goal(shape=[2, 2, 3])), 400, "6 numbers as data; its shape takes 12"),
    (asked(goal(data=["1"] * 6)), 400, "no float32"),
    (asked(goal(data=[True] * 6)), 400, "no float32"),
    (asked(goal(data=[[1, 2, 3], 4, 5, 6])), 400, "unequal depth"),
    (asked(goal(data=7)), 400, "as data"),
    (asked(goal(data=[10**400] * 6)), 400, "integer of 401 digits"),
    (asked(goal(data=None, parameters=[])), 400, "parameters"),
    (asked(goal(parameters={"binary_data_size": 24})), 400, "either 'data' or"),
    (asked({**SEED, "data": [-1]}, goal()), 400, "do not fit uint64"),
    (asked({**SEED, "data": [1.5]}, goal()), 400, "no uint64"),
    (asked({**SEED, "datatype": "INT64", "data": [-1]}, goal()), 400, "at least 0"),
    (asked({**SEED, "shape": [2], "data": [1, 2]}, goal()), 400, "batch sizes disagree"),
    (asked(goal(), parameters={"steps": 3}), 400, "parameter 'steps' is unknown; use"),
    (asked(goal(), parameters={"num_candidates": 0}), 400, "num_candidates must be at least 1"),
    (asked(goal(), parameters={"num_candidates": 2000}), 400, "at most 1024"),
    (asked(goal(), parameters={"num_inference_steps": 101}), 400, "at most 100 here"),
    (asked(goal(), parameters={"eta": 0.5}), 400, "parameter 'eta' is unknown"),
    (asked(goal(), parameters={"temperature": "1"}), 400, "temperature must be a number"),
    (asked(goal(), parameters={"timeout": -1}), 400, "timeout"),
    (asked(goal(), parameters={"manifest_sha256": "0"}), 409, "Connect anew"),
    (asked(goal(), outputs=[{"name": "cost"}]), 400, "use candidates"),
    (asked(goal(), outputs=[{"name": "predicted_cost"}]), 400, "unknown"),
    (asked(goal(), outputs=7), 400, "a list of names"),
    (asked(goal(), outputs=[{"name": "model_output"}]), 400, "one step"),
    (asked(goal(), SAMPLE), 400, "come together"),
    (asked(goal(), SAMPLE, {**STEPS, "data": [9, 9]}), 400, "timestep > prev_timestep"),
    (asked(goal(), SAMPLE, {**STEPS, "data": [20, 1]}), 400, "with 20 > timestep"),
    (asked(goal(), {**SAMPLE, "data": [1e39] * 6}, STEPS), 400, "do not fit float32"),
]


@pytest.mark.parametrize(("body", "status", "words"), REFUSED)
def test_bad_requests_get_one_clear_error(small, body, status, words):
    response = respond(small, "POST", INFER, body)
    said = json.loads(response.body)
    assert (response.status, list(said)) == (status, ["error"]), said
    assert words in said["error"]
    assert respond(small, "POST", INFER, asked(goal())).status == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda head, rest: (len(head), head + rest[:-1]), "23 are left"),
        (lambda head, rest: (len(head), head + rest + b"x"), "1 bytes follow"),
        (lambda head, rest: (len(head) + 25, head + rest), "expected 1 to"),
        (lambda head, rest: ("-1", head + rest), "expected 1 to"),
        (lambda head, rest: (len(head), head.replace(b":24}", b":20}") + rest), "takes 24 bytes"),
    ],
)
def test_bad_binary_bodies_are_refused(small, change, words):
    headers, body = write_message("inputs", {"goal": GOAL})
    at = int(headers[HEADER_LENGTH])
    length, changed = change(body[:at], body[at:])
    response = respond(small, "POST", INFER, changed, **{LENGTH: str(length)})
    assert response.status == 400
    assert words in json.loads(response.body)["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/v2/models", {}, 404),
        ("GET", "/v2/models/other", {}, 404),
        ("GET", "/v2/models/bundle/versions/2", {}, 404),
        ("GET", "/v2/models/bundle/stats", {}, 404),
        ("GET", INFER, {}, 405),
        ("POST", INFER, {"content_encoding": "gzip"}, 415),
    ],
)
def test_what_is_not_there_is_said(small, method, path, headers, status):
    response = respond(small, method, path, b"{}", **headers)
    assert response.status == status
    assert list(json.loads(response.body)) == ["error"]


def test_a_token_guards_all_but_health(small, tmp_path, monkeypatch):
    guarded = ServedModel(small.model, "bundle", ServeSettings(), "s" * 20)
    assert respond(guarded, "GET", "/v2/health/ready").status == 200
    for wrong in ({}, {"authorization": "Bearer no"}, {"authorization": "é" * 9}):
        assert respond(guarded, "GET", "/v2/models/bundle", **wrong).status == 401
    right = {"authorization": f"Bearer {'s' * 20}"}
    assert respond(guarded, "GET", "/v2/models/bundle", **right).status == 200
    (tmp_path / "token").write_text("from a file, long\n")
    settings = ServeSettings(token_file=tmp_path / "token")
    assert settings.read_token() == "from a file, long"
    (tmp_path / "token").write_text("short")
    monkeypatch.setenv(TOKEN, "of the environment")
    assert ServeSettings().read_token() == "of the environment"
    with pytest.raises(ConfigError, match="5 characters; expected 16"):
        settings.read_token()


def call(app, body=b"", path=INFER, method="POST", headers=(), leave=False):
    """One request to an ASGI application; its status and its JSON."""
    sent, parts = [], [body[:50], body[50:]]

    async def receive():
        if leave and len(parts) == 1:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}

    async def whole():
        await app(scope, receive, send)
        return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else None

    return whole()


def app_of(served, answer=None, told=None, **settings):
    served = ServedModel(served.model, "bundle", replace(served.settings, **settings))
    answer = answer or (lambda requests: answer_all(served.model, requests))
    return InferenceApp(served, Batcher(answer, served.settings), told)


def test_bodies_that_are_too_long_are_not_read(small):
    app, told = app_of(small, told=lambda status, seconds: statuses.append(status)), asked(goal())
    statuses = []
    assert asyncio.run(call(app, told))[0] == 200
    assert asyncio.run(call(app, told, headers=[(b"content-length", b"5000")]))[0] == 413
    assert asyncio.run(call(app, b" " * 5000))[0] == 413
    assert asyncio.run(call(app, told, leave=True)) is None
    assert statuses == [200, 413, 413]


def test_requests_gather_while_others_run_and_late_ones_are_refused(small):
    sizes, first, all_wait = [], threading.Event(), threading.Event()

    def answer(requests):
        sizes.append(len(requests))
        if len(sizes) == 1:
            first.set()
            all_wait.wait(60)
        return answer_all(small.model, requests)

    async def whole():
        app = app_of(small, answer, max_batch_size=4, max_waiting=6)
        lone = asyncio.create_task(call(app, asked(goal())))
        await asyncio.to_thread(first.wait)
        late = [call(app, asked(goal(), parameters={"timeout": 1000}))]
        rest = [call(app, asked(goal())) for _ in range(6)]
        waiting = asyncio.gather(*late, *rest)
        await asyncio.sleep(0.2)
        all_wait.set()
        return [await lone, *await waiting]

    statuses = [status for status, _ in asyncio.run(whole())]
    assert statuses == [200, 504, 200, 200, 200, 200, 200, 503]
    assert sizes == [1, 3, 2]


def test_a_batch_that_fails_is_said_without_a_trace(small, caplog):
    def broken(requests):
        raise RuntimeError("a secret place")

    status, said = asyncio.run(call(app_of(small, broken), asked(goal())))
    assert (status, list(said)) == (500, ["error"])
    assert "secret" not in said["error"]
    assert "a secret place" in caplog.text
