"""Ray Serve for real: replicas that are killed, published clients, an end that leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders.serving import INFER, SHIPPED, as_json, make_context, outputs_of, post, shipped

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.remote import RemoteOptimizer
from vj2_ddim_plugin.serving import ServeSettings

TRITON = """
import sys
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient("127.0.0.1:" + sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("bundle")
shapes = {each["name"]: each["shape"][1:] for each in client.get_model_metadata("bundle")["inputs"]}
rng, inputs = np.random.default_rng(0), []
for name in ("state", "goal"):
    inputs.append(triton.InferInput(name, [1, *shapes[name]], "FP32"))
    inputs[-1].set_data_from_numpy(rng.standard_normal((1, *shapes[name]), np.float32))
inputs.append(triton.InferInput("seed", [1], "UINT64"))
inputs[-1].set_data_from_numpy(np.array([7], np.uint64))
result = client.infer("bundle", inputs, parameters={"num_candidates": 3})
np.save(sys.argv[2], result.as_numpy("candidates"))
"""


# Of Ray's own processes, where a machine is so busy that Ray has to start twice.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def running():
    """The port of two replicas, and what names the process of one of them."""
    from vj2_ddim_plugin.serving.server import serving

    port, folder = free_port(), tempfile.mkdtemp(prefix="t")  # short: sockets are in it
    on_sigterm = signal.getsignal(signal.SIGTERM)
    tempfile.tempdir, before = folder, tempfile.tempdir
    settings = ServeSettings(port=port, num_replicas=2)
    with serving(SHIPPED, settings, SessionSettings("cpu", num_threads=1)) as process_of_one:
        tempfile.tempdir = before
        yield port, process_of_one
    assert signal.getsignal(signal.SIGTERM) == on_sigterm
    assert os.listdir(folder) == []
    os.rmdir(folder)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1.0)


def test_a_request_written_by_hand_gets_the_local_candidates(running):
    seen = []
    context = make_context(1)

    def cost(candidates):
        seen.append(candidates.copy())
        return np.zeros(candidates.shape[:2])

    DDIMOptimizer(shipped()).optimize(PlanningProblem(context, cost, seed=7))
    arrays = {**context, "seed": np.array([7], np.uint64)}
    status, body = post(running[0], INFER, as_json(arrays))
    assert status == 200
    assert outputs_of(body)["candidates"].tobytes() == seen[0].tobytes()
    status, body = post(running[0], INFER, b"{")
    assert status == 400
    assert list(json.loads(body)) == ["error"]


def test_tritonclient_calls_it(running, tmp_path):
    """In a process of its own: it patches sockets."""
    out = tmp_path / "candidates.npy"
    command = [sys.executable, "-c", TRITON, str(running[0]), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    arrays = {**make_context(1), "seed": np.array([7], np.uint64)}
    body = post(running[0], INFER, as_json(arrays, parameters={"num_candidates": 3}))[1]
    assert np.load(out).tobytes() == outputs_of(body)["candidates"].tobytes()


def test_plans_are_the_local_ones_while_replicas_die(running):
    port, process_of_one = running
    problems = [PlanningProblem(make_context(1, seed), seed=seed) for seed in range(8)]
    local = DDIMOptimizer(shipped())
    plans = [local.optimize(problem).actions.tobytes() for problem in problems]
    with RemoteOptimizer.connect(f"http://127.0.0.1:{port}/bundle", timeout_s=120) as remote:

        def same(index):
            if index == 10:
                os.kill(process_of_one(), signal.SIGKILL)
            return remote.optimize(problems[index % 8]).actions.tobytes() == plans[index % 8]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(same, range(64)))


def test_a_port_that_is_taken_is_said_before_anything_starts(running):
    from vj2_ddim_plugin.serving.server import serving

    with (
        pytest.raises(ConfigError, match="listens on"),
        serving(SHIPPED, ServeSettings(port=running[0])),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="name must be"),
        serving(SHIPPED, ServeSettings(name="a/b")),
    ):
        pass
