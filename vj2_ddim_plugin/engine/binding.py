"""Runs with inputs and outputs at fixed addresses on the device (ONNX Runtime's IOBinding).

A GPU then allocates nothing while it runs, an input that did not change (the condition tokens of a
sampling loop) is copied to it once, and a CUDA graph, which replays recorded addresses, is
possible. Shown on a CPU to give what a plain run gives; not measured on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoundRuns"]

MAX_SHAPES = 8
NO_GRAPH = -1

Array = NDArray[Any]


class _Bound(NamedTuple):
    """One combination of input shapes: its buffers, and which array each input was copied from."""

    binding: Any
    inputs: Mapping[str, Any]
    outputs: Sequence[Any]
    copied: dict[str, Array]
    options: Any


class BoundRuns:
    """A session whose buffers are allocated once for each combination of input shapes.

    One run at a time: the buffers are shared, and CUDA graphs must not be replayed concurrently.

    Args:
        session: An `onnxruntime.InferenceSession`.
        place: Copies an array to the device and returns its `OrtValue`.
        run_options: `onnxruntime.RunOptions` for a CUDA graph's id, -1 for a run outside of any.
        constant: Inputs whose arrays are never changed in place: they are copied again only when
            another array is given.
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

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Arrays by input name in, new arrays in output order out."""
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
