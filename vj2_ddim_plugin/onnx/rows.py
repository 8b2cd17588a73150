"""Rows that do not depend on the rows beside them, to the last bit.

ONNX Runtime's CPU kernels round differently at the edges of their work: a single row is multiplied
by another kernel, and what is left over after whole vectors of elements goes through scalar code,
at the end of the batch or, in large batches, of each thread's share. A batch filled up to a
multiple of few rows, and cut into blocks too small to be shared so, has no such edges. How few,
depends on the graph and the processor, so it is found out once, when the graph is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.onnx import PROVIDERS
from vj2_ddim_plugin.onnx.session import OnnxGraph

__all__ = ["Feeds", "IndependentRows"]

Feeds = dict[str, NDArray[Any]]

BLOCK_ROWS = 64
MULTIPLES = (1, 2, 4, 8)


class IndependentRows:
    """A graph that is given batches of a safe number of rows.

    GPU kernels are chosen by the batch's size in ways that no filling up cures: there the rows of
    different batches agree to rounding only.
    """

    def __init__(
        self, graph: OnnxGraph, shapes: Mapping[str, tuple[int, ...]], num_timesteps: int
    ) -> None:
        self.graph, self.multiple = graph, 0  # 0: batches as they are
        self._last: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        if graph.provider == PROVIDERS["cpu"]:
            self.multiple = self._safe_multiple(shapes, num_timesteps)

    def run(self, feeds: Feeds) -> list[FloatArray]:
        """Arrays `[B, ...]` by input name in, arrays `[B, ...]` in output order out."""
        rows = len(next(iter(feeds.values())))
        if not self.multiple:
            return self.graph.run(feeds)
        if rows <= BLOCK_ROWS:
            return self._block(feeds, rows)
        starts = range(0, rows, BLOCK_ROWS)
        blocks = [
            self._block({name: array[start:stop] for name, array in feeds.items()}, stop - start)
            for start, stop in zip(starts, [*starts[1:], rows], strict=True)
        ]
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    def _block(self, feeds: Feeds, rows: int) -> list[FloatArray]:
        spare = -rows % self.multiple
        if not spare:
            return self.graph.run(feeds)
        filled = {name: self._filled(name, array, rows, spare) for name, array in feeds.items()}
        return [output[:rows] for output in self.graph.run(filled)]

    def _filled(self, name: str, array: NDArray[Any], rows: int, spare: int) -> NDArray[Any]:
        """The array with its last row repeated; one that is constant is filled up once."""
        last = self._last.get(name)
        if last is not None and last[0] is array:
            return last[1]
        filled = array.take(_index(rows, spare), axis=0)
        if name in self.graph.constant:
            self._last[name] = array, filled
        return filled

    def _safe_multiple(self, shapes: Mapping[str, tuple[int, ...]], num_timesteps: int) -> int:
        """The smallest batch whose rows come out as they do in a whole block."""
        rng = np.random.default_rng(0)
        feeds: Feeds = {
            name: rng.integers(num_timesteps, size=BLOCK_ROWS)
            if name == "timestep"
            else rng.standard_normal((BLOCK_ROWS, *shape), np.float32)
            for name, shape in shapes.items()
        }
        expected = self.graph.run(feeds)
        for multiple in MULTIPLES:
            if all(
                part.tobytes() == whole[start : start + multiple].tobytes()
                for start in range(0, BLOCK_ROWS, multiple)
                for part, whole in zip(
                    self.graph.run({n: a[start : start + multiple] for n, a in feeds.items()}),
                    expected,
                    strict=True,
                )
            ):
                return multiple
        return 2 * MULTIPLES[-1]


@lru_cache(maxsize=256)
def _index(rows: int, spare: int) -> NDArray[np.intp]:
    """Rows of a batch, and the last one again."""
    return np.minimum(np.arange(rows + spare), rows - 1)
