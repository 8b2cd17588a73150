"""Execution providers: what was asked for, what runs, and what is said about it."""

import logging
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from builders.bundles import make_bundle, save_denoiser
from builders.runtime import CPU, CUDA, TENSORRT

from vj2_ddim_plugin.errors import BundleError, ProviderError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.onnx import SessionSettings, session
from vj2_ddim_plugin.onnx.session import OnnxGraph, available_providers, why_not
from vj2_ddim_plugin.optimizer import DDIMOptimizer


class FakeSession:
    """An `onnxruntime.InferenceSession` that runs on whatever it is told to."""

    running = [CUDA, CPU]
    failures = {}
    made = []

    def __init__(self, graph, options=None, providers=None, **others):
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        self.made.append((graph, options, providers))
        if first in self.failures:
            raise self.failures[first]
        self.listed = [CPU] if first == CPU else self.running

    def get_providers(self):
        return self.listed

    def get_inputs(self):
        return []

    def get_outputs(self):
        return []

    def run(self, names, feeds, options=None):
        raise self.failures["run"]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A machine whose driver and libraries are all there."""

    class Fake(FakeSession):
        made = []
        failures = {}

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fake)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(session, "why_not", lambda provider: "")
    return Fake


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "denoiser.onnx"
    save_denoiser(path, conditional=False)
    return path


@pytest.fixture
def no_gpu(graph):
    """Skip on a machine whose CUDA really runs."""
    if OnnxGraph(graph, "auto").provider == CUDA:
        pytest.skip("CUDA runs here")


def feeds(rows=2):
    return {"sample": np.ones((rows, 6, 1), np.float32), "timestep": np.zeros(rows, np.int64)}


# On this machine.


def test_the_cpu_is_taken_when_asked_for(graph):
    loaded = OnnxGraph(graph, SessionSettings("cpu", num_threads=1))
    assert loaded.provider == CPU
    assert list(loaded.input_names) == ["sample", "timestep"]
    assert list(loaded.output_names) == ["model_output"]
    (output,) = loaded.run(feeds())
    np.testing.assert_array_equal(output, 0.5 * feeds()["sample"])


def test_a_graph_may_be_given_as_bytes(graph):
    (output,) = OnnxGraph(graph.read_bytes(), "cpu").run(feeds())
    np.testing.assert_array_equal(output, 0.5 * feeds()["sample"])


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_that_does_not_run_is_an_error_with_its_cause(graph, no_gpu, provider):
    with pytest.raises(ProviderError, match=f"'{provider}' was asked for and") as caught:
        OnnxGraph(graph, SessionSettings(provider, allow_tf32=True))
    assert why_not(provider)
    assert why_not(provider) in str(caught.value).split("Cause: ")[1]
    assert "'auto' or 'cpu'" in str(caught.value)
    assert "undefined symbol" not in str(caught.value)


def test_auto_falls_to_the_cpu_and_the_plan_says_so(tmp_path, no_gpu, caplog):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    with caplog.at_level(logging.INFO):
        optimizer = DDIMOptimizer.from_bundle(folder, num_inference_steps=2)
    assert optimizer.optimize(PlanningProblem()).provider == CPU
    if CUDA in available_providers():
        assert "cuda is not usable here, running on the CPU" in caplog.text


@pytest.mark.parametrize("provider", ["auto", "cpu", "cuda"])
def test_nothing_is_printed_by_a_process_of_its_own(graph, provider, no_gpu):
    code = f"""
import numpy as np
from vj2_ddim_plugin.errors import ProviderError
from vj2_ddim_plugin.onnx.session import OnnxGraph
try:
    graph = OnnxGraph({str(graph)!r}, {provider!r})
    graph.run({{"sample": np.ones((2, 6, 1), np.float32), "timestep": np.zeros(2, np.int64)}})
except ProviderError:
    assert {provider!r} == "cuda"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_default_logger_is_the_callers_and_stays_as_it_is(graph, monkeypatch):
    touched = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", touched.append)
    OnnxGraph(graph, "auto")
    assert touched == []


def test_only_one_file_of_the_runtime_imports_onnxruntime():
    folder = session.Path(session.__file__).parent
    importers = [p.name for p in folder.rglob("*.py") if "import onnxruntime" in p.read_text()]
    assert importers == ["session.py"]


# On a machine with everything, played by a fake.


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_cuda_that_runs_is_taken_without_tf32(fake, provider):
    assert OnnxGraph("a.onnx", provider).provider == CUDA
    ((graph, options, providers),) = fake.made
    assert graph == b"\x08\x08"
    assert providers == [(CUDA, {"use_tf32": "0"}), CPU]
    assert options.log_severity_level == 4


def test_tensorrt_that_runs_is_taken(fake):
    fake.running = [TENSORRT, CUDA, CPU]
    assert OnnxGraph("a.onnx", SessionSettings("tensorrt", allow_tf32=True)).provider == TENSORRT


def test_tensorrt_that_leaves_the_graph_to_cuda_is_an_error(fake):
    with pytest.raises(ProviderError, match=r"'tensorrt' was asked for .* does not say why"):
        OnnxGraph("a.onnx", SessionSettings("tensorrt", allow_tf32=True))


def test_the_callers_options_reach_cuda_and_win(fake):
    given = {"use_tf32": "1", "device_id": "1"}
    OnnxGraph("a.onnx", SessionSettings("cuda", provider_options=given))
    assert fake.made[0][2][0] == (CUDA, given)


def test_the_cpu_is_all_that_is_asked_for_when_asked_for(fake):
    settings = SessionSettings("cpu", provider_options={"device_id": "1"})
    assert OnnxGraph("a.onnx", settings).provider == CPU
    assert [providers for _, _, providers in fake.made] == [[CPU]]


def test_cuda_is_not_asked_for_where_something_lacks(fake, monkeypatch):
    monkeypatch.setattr(session, "why_not", lambda provider: "no driver")
    assert OnnxGraph("a.onnx", "auto").provider == CPU
    with pytest.raises(ProviderError, match="Cause: no driver"):
        OnnxGraph("a.onnx", "cuda")
    assert [providers for _, _, providers in fake.made] == [[CPU]]


def test_cuda_that_falls_back_in_silence_is_found_out(fake):
    fake.running = [CPU]
    assert OnnxGraph("a.onnx", "auto").provider == CPU
    with pytest.raises(ProviderError, match="Cause: ONNX Runtime left it out"):
        OnnxGraph("a.onnx", "cuda")


def test_cuda_that_refuses_to_start_is_told_in_its_own_words(fake, caplog):
    fake.failures[CUDA] = RuntimeError("CUDA driver version is insufficient")
    with caplog.at_level(logging.INFO):
        assert OnnxGraph("a.onnx", "auto").provider == CPU
    assert "driver version is insufficient" in caplog.text
    with pytest.raises(ProviderError, match="driver version is insufficient"):
        OnnxGraph("a.onnx", "cuda")


def test_a_graph_that_no_provider_loads_is_a_bundle_error(fake):
    fake.failures[CPU] = RuntimeError("not a protobuf")
    with pytest.raises(BundleError, match=r"a.onnx: .*not a protobuf") as caught:
        OnnxGraph("a.onnx", "cpu")
    assert caught.value.__cause__ is fake.failures[CPU]


def test_the_threads_of_an_operator_are_set_and_do_not_spin(fake):
    OnnxGraph("a.onnx", SessionSettings("cuda", num_threads=3))
    options = fake.made[0][1]
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


# Runs that fail.


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", [RuntimeError, ValueError, MemoryError])
def test_whatever_a_run_dies_of_is_a_provider_error_that_says_it(fake, provider, kind):
    loaded = OnnxGraph("a.onnx", provider)
    fake.failures["run"] = kind("CUDA failure 700: illegal memory access")
    where = {"cpu": CPU, "cuda": CUDA}[provider]
    with pytest.raises(
        ProviderError, match=f"a.onnx failed .* {where}: CUDA failure 700"
    ) as caught:
        loaded.run({})
    assert caught.value.__cause__ is fake.failures["run"]


@pytest.mark.parametrize("change", [{"sample": np.ones((2, 5, 1), np.float32)}, {"nothing": 0}])
def test_a_private_error_of_onnx_runtimes_does_not_get_out(graph, change):
    with pytest.raises(ProviderError, match=r"denoiser.onnx failed while running on CPU"):
        OnnxGraph(graph, "cpu").run({**feeds(), **change})
