"""One graph on the provider that really runs.

ONNX Runtime lists CUDA as available on machines without a GPU and falls back to the CPU in silence.
So the driver is asked before and the session afterwards; a provider asked for by name and not
running is an error. The GPU code was tested as far as a CPU allows, and not measured.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import BundleError, ProviderError
from vj2_ddim_plugin.graph_file import require_self_contained
from vj2_ddim_plugin.onnx import PROVIDERS, TELEMETRY, SessionSettings
from vj2_ddim_plugin.process import available_cores, leak, tell_of_forks

__all__ = ["BoundRuns", "Feeds", "OnnxGraph", "available_providers", "onnxruntime", "why_not"]

Array = NDArray[Any]
Feeds = dict[str, Array]

DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
LIBRARIES = Path(onnxruntime.__file__).parent / "capi"
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_DEVICE = 100
MAX_SHAPES = 8
NO_GRAPH = -1
LIMIT_PARTS = 10

if os.environ.get(TELEMETRY) == "1":  # for Windows, and where another imported it before
    onnxruntime.disable_telemetry_events()

logger = logging.getLogger(__name__)


def available_providers() -> list[str]:
    """The providers ONNX Runtime was built with, by its own names; not those that run."""
    return list(onnxruntime.get_available_providers())


def why_not(provider: str) -> str:
    """What keeps `cuda` or `tensorrt` from running here, in one line; empty if nothing is known."""
    if PROVIDERS[provider] not in available_providers():
        return (
            f"this ONNX Runtime was built without {PROVIDERS[provider]}; install onnxruntime-gpu "
            f"in its place"
        )
    return "; ".join(filter(None, (_driver_problem(), _library_problem(provider))))


def _driver_problem() -> str:
    """Ask the NVIDIA driver for its devices."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        return f"the NVIDIA driver is missing ({error})"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == NO_DEVICE or (status == 0 and count.value == 0):
        return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)"
    return f"the NVIDIA driver does not start (CUDA error {status})" if status else ""


def _library_problem(provider: str) -> str:
    """What keeps the provider's own library from loading."""
    for library in sorted(LIBRARIES.glob(f"libonnxruntime_providers_{provider}.so*")):
        try:
            _load_dependencies(str(library))
        except OSError as error:
            return str(error)
    return ""


@lru_cache  # which does not keep what was raised: a library may be installed meanwhile
def _load_dependencies(library: str) -> None:
    """Raise `OSError` naming the first dependency that is missing.

    The provider's library finds its host through a symbol of ONNX Runtime's. It must not be
    initialised before that host exists, and is not: until ONNX Runtime itself has loaded it, the
    symbol is undefined, so that loading stops there, after all dependencies were found.
    """
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            onnxruntime.preload_dlls()
    try:
        ctypes.CDLL(library)
    except OSError as error:
        if "undefined symbol: Provider_" not in str(error):
            raise


class OnnxGraph(AbstractContextManager["OnnxGraph"]):
    """One ONNX graph, ready to run; a context manager that closes it.

    Threads may share it. It can be pickled into another process, with the graph inside, and goes on
    working after a fork, where the session is made anew (a forked process that used CUDA before
    cannot: spawn it). Nothing is printed.

    `source` is the `.onnx` file, or its bytes; weights beside it are refused, since only this file
    was hashed. `settings` may be the name of a provider; for `constant` see `BoundRuns`.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
        ConfigError: A setting is unknown or out of range.
        ProviderError: The provider asked for is not the one that runs.
    """

    _run: Any
    _opening: threading.Lock

    def __init__(
        self,
        source: Path | str | bytes,
        settings: SessionSettings | str = "auto",
        constant: Sequence[str] = (),
        name: str = "a graph in memory",
    ) -> None:
        self.settings = SessionSettings(settings) if isinstance(settings, str) else settings
        if isinstance(source, bytes):
            self.name, self._graph = name, source
        else:
            self.name, self._graph = str(source), Path(source).read_bytes()
        require_self_contained(self._graph, self.name)
        self.constant, self._closed = tuple(constant), False
        self._begin()

    def run(self, feeds: Feeds, options: Any = None) -> list[Array]:  # noqa: ANN401
        """Run once: arrays by input name in, arrays in output order out; or a `ProviderError`.

        `options` are ONNX Runtime's, for this run.
        """
        run = self._run or self._reopen()
        try:
            outputs: list[Array] = run(feeds) if options is None else run(feeds, options)
        except Exception as error:  # ONNX Runtime raises a dozen private types
            raise ProviderError(
                f"{self.name} failed while running on {self.provider}: {error}"
            ) from error
        return outputs

    def first_run(self, feeds: Feeds) -> list[Any]:
        """Run a graph that is not trusted yet: one that takes too long is stopped.

        A graph may give anything: an array, a list of texts, None.

        Raises:
            BundleError: It took longer than the settings' `load_limit_s`.
            ProviderError: It failed.
        """
        options = self._run_options(NO_GRAPH) or onnxruntime.RunOptions()
        options.log_severity_level, limit_s = 4, self.settings.load_limit_s
        ended = threading.Event()

        def end_it() -> None:  # counted in parts: a process that is stopped loses one of them
            if not any(ended.wait(limit_s / LIMIT_PARTS) for _ in range(LIMIT_PARTS)):
                options.terminate = True

        threading.Thread(target=end_it, daemon=True).start()
        try:
            return self.run(feeds, options)
        except ProviderError as error:
            if not options.terminate:
                raise
            raise BundleError(
                f"{self.name} was stopped: its first run had not ended after load_limit_s, "
                f"{limit_s:g} s. Export the checkpoint again, or raise load_limit_s if the graph "
                f"is so slow here"
            ) from error
        finally:
            ended.set()

    def close(self) -> None:
        """Free the session, its threads and its device memory. Closing twice is fine."""
        with self._opening:
            self._closed, self._run = True, None

    def after_fork(self) -> None:
        """Leave the parent's session as it is; the first run here makes another one."""
        leak(self._run)
        self._run, self._opening = None, threading.Lock()

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """All but the session: the graph and how to run it."""
        state = self.__dict__.copy()
        del state["_run"], state["_opening"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A session of this process, as strict as the first."""
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        self._run, self._opening = None, threading.Lock()
        tell_of_forks(self)
        if not self._closed:
            self._open()

    def _reopen(self) -> Any:  # noqa: ANN401
        """The session of this process, made now if another one made it; an error if closed."""
        with self._opening:
            if self._closed:
                raise ProviderError(
                    f"{self.name} was closed and cannot run any more. Load the bundle again, for "
                    f"example with DDIMOptimizer.from_bundle"
                )
            if self._run is None:
                self._open()
            return self._run

    def _open(self) -> None:
        session = self._session()
        self.provider: str = session.get_providers()[0]
        inputs = session.get_inputs()
        self.input_names: Sequence[str] = [entry.name for entry in inputs]
        self.input_shapes: Mapping[str, Sequence[Any]] = {e.name: e.shape for e in inputs}
        self.input_dtypes = {entry.name: DTYPES.get(entry.type, entry.type) for entry in inputs}
        self.output_names: Sequence[str] = [entry.name for entry in session.get_outputs()]
        if self.provider == PROVIDERS["cpu"]:
            self._run = partial(session.run, self.output_names)
        else:
            place = onnxruntime.OrtValue.ortvalue_from_numpy
            to_device = partial(place, device_type="cuda", device_id=self.settings.device_id)
            self._run = BoundRuns(session, to_device, self._run_options, self.constant).run

    def _session(self) -> Any:  # noqa: ANN401
        """A session on the provider asked for, or on the CPU where that is allowed."""
        wanted = self.settings.wanted
        if wanted != "cpu":
            reason = why_not(wanted)
            if not reason:
                try:
                    session = self._create(wanted)
                except Exception as error:
                    reason = str(error)
                else:
                    if session.get_providers()[0] == PROVIDERS[wanted]:
                        return session
                    reason = why_not(wanted) or "ONNX Runtime left it out and does not say why"
            if self.settings.provider != "auto":
                raise ProviderError(
                    f"provider {wanted!r} was asked for and cannot run. Cause: {reason}. Install "
                    f"the driver and libraries that onnxruntime-gpu {onnxruntime.__version__} "
                    f"needs, or use provider 'auto' or 'cpu'; 'vj2-ddim doctor' tells more"
                )
            if PROVIDERS[wanted] in available_providers():
                logger.info("%s is not usable here, running on the CPU: %s", wanted, reason)
        try:
            return self._create("cpu")
        except Exception as error:
            raise BundleError(f"{self.name}: ONNX Runtime cannot load it: {error}") from error

    def _create(self, provider: str) -> Any:  # noqa: ANN401
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Spinning threads of two runtimes on few cores slow each other down many times over.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = self.settings.num_threads or available_cores()
        requested = self.settings.requested(provider)
        return onnxruntime.InferenceSession(  # its own way to fall back prints
            self._graph, options, providers=requested, enable_fallback=0
        )

    def _run_options(self, graph_id: int) -> Any:  # noqa: ANN401
        if not self.settings.cuda_graph:
            return None
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph_id))
        return options


class _Bound(NamedTuple):
    """One combination of input shapes: its buffers, and which array each input was copied from."""

    binding: Any
    inputs: Mapping[str, Any]
    outputs: Sequence[Any]
    copied: dict[str, Array]
    options: Any


class BoundRuns:
    """A session whose buffers are allocated once for each combination of input shapes (IOBinding).

    A CUDA graph, which replays recorded addresses, is then possible. One run at a time, because the
    buffers are shared. Inputs that are `constant` are never changed in place, and copied once:
    another array is needed for another copy.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401
        place: Callable[[Array], Any],
        run_options: Callable[[int], Any],
        constant: Sequence[str] = (),
    ) -> None:
        self._session, self._place, self._run_options = session, place, run_options
        self._constant = frozenset(constant)
        self._output_names = [entry.name for entry in session.get_outputs()]
        self._bound: dict[tuple[Any, ...], _Bound] = {}
        self._graphs_recorded = 0
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array], options: Any = None) -> list[Array]:  # noqa: ANN401
        """Arrays by input name in, new arrays in output order out.

        A run with options of its own is a plain one, which leaves the buffers alone.
        """
        if options is not None:
            with self._lock:
                return list(self._session.run(self._output_names, dict(feeds), options))
        key = tuple((name, array.shape, array.dtype) for name, array in feeds.items())
        with self._lock:
            bound = self._bound.get(key) or self._bind(key, feeds)
            for name, array in feeds.items():
                if name in self._constant and bound.copied.get(name) is array:
                    continue
                bound.inputs[name].update_inplace(np.ascontiguousarray(array))
                bound.copied[name] = array
            bound.binding.synchronize_inputs()
            self._session.run_with_iobinding(bound.binding, bound.options)
            bound.binding.synchronize_outputs()
            return [value.numpy().copy() for value in bound.outputs]

    def _bind(self, key: tuple[Any, ...], feeds: Mapping[str, Array]) -> _Bound:
        """Buffers for new shapes; a plain run tells those of the outputs."""
        shapes = self._session.run(self._output_names, dict(feeds), self._run_options(NO_GRAPH))
        inputs = {name: self._place(np.array(array, order="C")) for name, array in feeds.items()}
        outputs = [self._place(np.zeros_like(array)) for array in shapes]
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(self._output_names, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        while len(self._bound) >= MAX_SHAPES:
            del self._bound[next(iter(self._bound))]
        self._graphs_recorded += 1  # an id is never used again: its graph holds freed addresses
        bound = _Bound(binding, inputs, outputs, {}, self._run_options(self._graphs_recorded))
        self._bound[key] = bound
        return bound
