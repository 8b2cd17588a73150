"""Execution providers: what was asked for, what runs, and what is said about it."""

import logging

import numpy as np
import onnxruntime
import pytest
from test_bundle import make_bundle, save_denoiser

from vj2_ddim_plugin import session
from vj2_ddim_plugin.errors import BundleError, ConfigError, ProviderError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.session import OnnxGraph, why_cuda_cannot_load

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class FakeSession:
    """An `onnxruntime.InferenceSession` that runs on whatever it is told to."""

    running = [CUDA, CPU]
    failure = None
    made = []

    def __init__(self, path, options=None, providers=None, **others):
        self.made.append((path, options, providers))
        if self.failure is not None:
            raise self.failure

    def get_providers(self):
        return self.running

    def get_inputs(self):
        return []

    def get_outputs(self):
        return []


@pytest.fixture
def fake(monkeypatch, tmp_path):
    class Fake(FakeSession):
        made = []

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"graph")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fake)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
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


def test_the_cpu_is_taken_when_asked_for(graph):
    loaded = OnnxGraph(graph, "cpu", num_threads=1)
    assert loaded.provider == CPU
    assert list(loaded.input_names) == ["sample", "timestep"]
    assert list(loaded.output_names) == ["model_output"]
    sample = np.ones((2, 6, 1), np.float32)
    (output,) = loaded.run({"sample": sample, "timestep": np.zeros(2, np.int64)})
    np.testing.assert_array_equal(output, 0.5 * sample)


def test_cuda_that_does_not_run_is_an_error_with_its_cause(graph, no_gpu):
    with pytest.raises(
        ProviderError, match=f"'cuda' was asked for, but {CPU} is running"
    ) as caught:
        OnnxGraph(graph, "cuda")
    cause = str(caught.value).split("Cause: ")[1]
    assert why_cuda_cannot_load() in cause
    assert "'auto' or 'cpu'" in cause


def test_cuda_that_is_listed_and_not_loadable_gives_the_loaders_words(graph, no_gpu):
    if CUDA not in onnxruntime.get_available_providers():
        assert "onnxruntime-gpu" in why_cuda_cannot_load()
    else:
        assert why_cuda_cannot_load()


def test_cuda_that_was_not_built_in_is_said_so(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert "onnxruntime-gpu" in why_cuda_cannot_load()


def test_auto_falls_to_the_cpu_and_the_plan_says_so(tmp_path, no_gpu, caplog):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    with caplog.at_level(logging.INFO):
        optimizer = DDIMOptimizer.from_bundle(folder, num_inference_steps=2)
    assert optimizer.optimize(PlanningProblem()).provider == CPU
    if CUDA in onnxruntime.get_available_providers():
        assert "CUDA is not usable here" in caplog.text


@pytest.mark.parametrize("provider", ["auto", "cpu", "cuda"])
def test_nothing_is_printed(graph, provider, capfd, no_gpu):
    capfd.readouterr()
    try:
        OnnxGraph(graph, provider)
    except ProviderError:
        assert provider == "cuda"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("provider", ["gpu", "CPU", "", CUDA])
def test_an_unknown_provider_is_refused_with_the_known_ones(graph, provider):
    with pytest.raises(ConfigError, match="'auto', 'cpu', 'cuda'"):
        OnnxGraph(graph, provider)


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_cuda_that_runs_is_taken_without_tf32(fake, provider):
    assert OnnxGraph("a.onnx", provider).provider == CUDA
    ((_, options, providers),) = fake.made
    assert providers == [(CUDA, {"use_tf32": "0"}), CPU]
    assert options.log_severity_level == 4


def test_the_callers_options_reach_cuda_and_win(fake):
    OnnxGraph("a.onnx", "cuda", provider_options={"use_tf32": "1", "device_id": "1"})
    assert fake.made[0][2][0] == (CUDA, {"use_tf32": "1", "device_id": "1"})


def test_the_cpu_is_all_that_is_asked_for_when_asked_for(fake):
    fake.running = [CPU]
    assert OnnxGraph("a.onnx", "cpu", provider_options={"device_id": "1"}).provider == CPU
    assert fake.made[0][2] == [CPU]


def test_auto_without_cuda_built_in_asks_for_the_cpu_alone(fake, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    fake.running = [CPU]
    OnnxGraph("a.onnx", "auto")
    assert fake.made[0][2] == [CPU]


def test_listed_cuda_that_falls_back_in_silence_is_found_out(fake):
    fake.running = [CPU]
    assert OnnxGraph("a.onnx", "auto").provider == CPU
    with pytest.raises(ProviderError, match="Cause"):
        OnnxGraph("a.onnx", "cuda")


@pytest.mark.parametrize(("provider", "error"), [("cuda", ProviderError), ("cpu", BundleError)])
def test_a_session_that_cannot_be_made_is_one_of_our_errors(fake, provider, error):
    fake.failure = RuntimeError("out of memory on the device")
    with pytest.raises(error, match="out of memory on the device") as caught:
        OnnxGraph("a.onnx", provider)
    assert caught.value.__cause__ is fake.failure


def test_the_threads_of_an_operator_are_set_and_do_not_spin(fake):
    OnnxGraph("a.onnx", "cuda", num_threads=3)
    options = fake.made[0][1]
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_only_one_file_of_the_runtime_imports_onnxruntime():
    folder = session.Path(session.__file__).parent
    importers = [p.name for p in folder.rglob("*.py") if "import onnxruntime" in p.read_text()]
    assert importers == ["session.py"]
