"""What is asked of ONNX Runtime for each setting, and what is said when a GPU is not there."""

import ctypes
import dataclasses
from types import SimpleNamespace

import onnxruntime
import pytest
from builders.runtime import CPU, CUDA, TENSORRT

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.onnx import SessionSettings, session
from vj2_ddim_plugin.onnx.session import why_not


@pytest.fixture
def no_override(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)


def cuda(**settings):
    (name, options), last = SessionSettings("cuda", **settings).requested("cuda")
    assert (name, last) == (CUDA, CPU)
    return options


def tensorrt(**settings):
    trt, cuda, last = SessionSettings("tensorrt", allow_tf32=True, **settings).requested("tensorrt")
    assert (trt[0], cuda[0], last) == (TENSORRT, CUDA, CPU)
    return trt[1], cuda[1]


def test_the_cpu_takes_no_options():
    everything = SessionSettings("cpu", 2, {"device_id": "1"}, True, 1000, True)
    assert everything.requested("cpu") == [CPU]


def test_auto_wants_cuda_and_never_tensorrt():
    assert SessionSettings().wanted == "cuda"
    assert SessionSettings("cpu").wanted == "cpu"
    assert TENSORRT not in str(SessionSettings().requested("cuda"))


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {"use_tf32": "0"}),
        ({"allow_tf32": True}, {"use_tf32": "1"}),
        ({"memory_limit_bytes": 2**31}, {"use_tf32": "0", "gpu_mem_limit": "2147483648"}),
        ({"cuda_graph": True}, {"use_tf32": "0", "enable_cuda_graph": "1"}),
        (
            {"provider_options": {"device_id": "1", "use_tf32": "1", "gpu_mem_limit": 5}},
            {"device_id": "1", "use_tf32": "1", "gpu_mem_limit": 5},
        ),
    ],
)
def test_cuda_gets_its_options_and_the_callers_win(settings, options):
    assert cuda(**settings) == options


def test_tensorrt_gets_its_own_names_and_cuda_behind_it_the_same_limits():
    assert tensorrt() == ({}, {"use_tf32": "1"})
    trt, behind = tensorrt(
        provider_options={"device_id": 1, "trt_fp16_enable": True},
        memory_limit_bytes=1000,
        cuda_graph=True,
    )
    assert trt == {
        "trt_cuda_graph_enable": "1",
        "trt_max_workspace_size": "1000",
        "device_id": 1,
        "trt_fp16_enable": True,
    }
    assert behind == {"use_tf32": "1", "gpu_mem_limit": "1000", "device_id": "1"}


def test_tensorrt_without_tf32_needs_the_environments_word(no_override, monkeypatch):
    with pytest.raises(ConfigError, match="NVIDIA_TF32_OVERRIDE=0"):
        SessionSettings("tensorrt")
    assert SessionSettings("tensorrt", allow_tf32=True).wanted == "tensorrt"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert SessionSettings("tensorrt").requested("tensorrt")[1] == (CUDA, {"use_tf32": "0"})


@pytest.mark.parametrize("name", ["num_threads", "memory_limit_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_a_number_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        SessionSettings(**{name: value})


@pytest.mark.parametrize("provider", ["gpu", "CPU", "", CUDA, None])
def test_an_unknown_provider_is_refused_with_the_known_ones(provider):
    with pytest.raises(ConfigError, match="auto, cpu, cuda, tensorrt"):
        SessionSettings(provider)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SessionSettings().provider = "cpu"


# What a machine lacks.


class Loader:
    """Stands in for `ctypes`: a machine that has a driver and libraries, or lacks some."""

    c_int = ctypes.c_int

    def __init__(self, status=0, devices=1, driver="", library=""):
        self.status, self.devices = status, devices
        self.problems = {session.DRIVER: driver, "onnxruntime_providers": library}
        self.loaded = []

    def byref(self, number):
        return number

    def count(self, number):
        number.value = self.devices
        return 0

    def CDLL(self, name):
        self.loaded.append(name)
        for part, problem in self.problems.items():
            if part in name and problem:
                raise OSError(problem)
        return SimpleNamespace(cuInit=lambda flags: self.status, cuDeviceGetCount=self.count)


def built_with(monkeypatch, *providers):
    monkeypatch.setattr(session, "available_providers", lambda: [*providers])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for provider in ("cuda", "tensorrt"):
        (tmp_path / f"libonnxruntime_providers_{provider}.so").touch()
    monkeypatch.setattr(session, "LIBRARIES", tmp_path)
    built_with(monkeypatch, TENSORRT, CUDA, CPU)
    session._load_dependencies.cache_clear()
    yield tmp_path
    session._load_dependencies.cache_clear()


def reason(monkeypatch, folder, provider="cuda", **machine):
    loader = Loader(**machine)
    monkeypatch.setattr(session, "ctypes", loader)
    return why_not(provider), loader


@pytest.mark.parametrize(("provider", "name"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_provider_that_was_not_built_in_is_said_so(monkeypatch, folder, provider, name):
    built_with(monkeypatch, CPU)
    assert f"without {name}; install onnxruntime-gpu" in why_not(provider)


def test_a_machine_that_has_all_lacks_nothing(monkeypatch, folder):
    assert reason(monkeypatch, folder)[0] == ""
    assert reason(monkeypatch, folder, "tensorrt")[0] == ""


@pytest.mark.parametrize(
    ("machine", "cause"),
    [
        ({"driver": "libcuda.so.1: cannot open"}, "driver is missing (libcuda.so.1: cannot open)"),
        ({"status": 100}, "sees no GPU"),
        ({"devices": 0}, "sees no GPU"),
        ({"status": 803}, "does not start (CUDA error 803)"),
        ({"library": "libcublasLt.so.12: cannot open"}, "libcublasLt.so.12: cannot open"),
    ],
)
def test_the_cause_is_named(monkeypatch, folder, machine, cause):
    assert cause in reason(monkeypatch, folder, **machine)[0]


def test_all_that_lacks_is_told_at_once(monkeypatch, folder):
    told, _ = reason(monkeypatch, folder, driver="libcuda.so.1", library="libcudnn.so.9")
    assert "libcuda.so.1" in told
    assert "libcudnn.so.9" in told


def test_a_symbol_of_onnx_runtimes_own_is_no_cause(monkeypatch, folder):
    # the provider's library was loaded outside of ONNX Runtime: all it depends on was found
    own = "x.so: undefined symbol: Provider_GetHost"
    assert reason(monkeypatch, folder, library=own)[0] == ""
    assert "cuGraphX" in reason(monkeypatch, folder, "tensorrt", library="undefined: cuGraphX")[0]


def test_what_was_missing_is_looked_for_again_and_what_was_found_is_not(monkeypatch, folder):
    assert "libcudnn" in reason(monkeypatch, folder, library="libcudnn")[0]
    told, loader = reason(monkeypatch, folder)
    assert told == ""
    assert len(loader.loaded) == 2
    told, loader = reason(monkeypatch, folder)
    assert (told, loader.loaded) == ("", [session.DRIVER])


def test_onnx_runtime_loads_what_nvidias_wheels_brought_and_prints_nothing(
    monkeypatch, folder, capsys
):
    loaded = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append(1) or print("Failed"))  # noqa: T201
    assert reason(monkeypatch, folder)[0] == ""
    assert loaded == [1]
    assert capsys.readouterr() == ("", "")


def test_the_real_loader_names_the_missing_driver(monkeypatch, folder):
    monkeypatch.setattr(session, "DRIVER", "libcuda-that-is-not-there.so.1")
    assert "libcuda-that-is-not-there.so.1" in why_not("cuda")
