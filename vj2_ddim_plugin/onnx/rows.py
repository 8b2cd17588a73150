"""Rows of a batch that do not depend on one another."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.onnx import PROVIDERS
from vj2_ddim_plugin.onnx.session import Array, Feeds, OnnxGraph

__all__ = ["IndependentRows", "example_feeds"]

BLOCKS = (64, 16, 4)  # rows of a run at most; where none of them is safe, rows run alone
BLOCK_NUMBERS = 2**20  # of its inputs: a larger one would be shared among threads within a row
MULTIPLES = (1, 2, 4, 8, 16)


def example_feeds(shapes: Mapping[str, tuple[int, ...]], num_timesteps: int, rows: int) -> Feeds:
    """Random input for a graph, always the same: timesteps, and standard normal numbers."""
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(num_timesteps, size=rows)
        if name == "timestep"
        else rng.standard_normal((rows, *shape), np.float32)
        for name, shape in shapes.items()
    }


class IndependentRows:
    """A graph whose rows do not depend on the rows beside them, to the last bit.

    ONNX Runtime's CPU kernels round differently at the edges of their work: a single row, what is
    left over after whole vectors of elements, the end of each thread's share. A batch filled up to
    a multiple of few rows, and cut into blocks too small to be shared, has no such edges. How few,
    and how small, depends on graph and processor, so it is found out once; rows of many numbers run
    one by one. GPU kernels are chosen by the batch's size in ways that no filling up cures: there
    rows agree to rounding only.
    """

    def __init__(
        self, graph: OnnxGraph, shapes: Mapping[str, tuple[int, ...]], num_timesteps: int
    ) -> None:
        self.graph, self.block, self.multiple = graph, 0, 0  # 0: batches as they are
        self._last: dict[str, tuple[Array, Array]] = {}
        if graph.provider == PROVIDERS["cpu"]:
            self.block, self.multiple = self._safe_size(shapes, num_timesteps)

    def run(self, feeds: Feeds) -> list[Array]:
        """Arrays `[B, ...]` by input name in, arrays `[B, ...]` in output order out."""
        rows = len(next(iter(feeds.values())))
        if not self.multiple:
            return self.graph.run(feeds)
        if rows <= self.block:
            return self._block(feeds, rows)
        starts = range(0, rows, self.block)
        blocks = [
            self._block({name: array[start:stop] for name, array in feeds.items()}, stop - start)
            for start, stop in zip(starts, [*starts[1:], rows], strict=True)
        ]
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    def _block(self, feeds: Feeds, rows: int) -> list[Array]:
        spare = -rows % self.multiple
        if not spare:
            return self.graph.run(feeds)
        filled = {name: self._filled(name, array, rows, spare) for name, array in feeds.items()}
        return [output[:rows] for output in self.graph.run(filled)]

    def _filled(self, name: str, array: Array, rows: int, spare: int) -> Array:
        """The array with its last row repeated; one that is constant is filled up once."""
        given, filled = self._last.get(name, (None, array))
        if given is not array:
            filled = array.take(_index(rows, spare), axis=0)
            if name in self.graph.constant:
                self._last[name] = array, filled
        return filled

    def _safe_size(
        self, shapes: Mapping[str, tuple[int, ...]], num_timesteps: int
    ) -> tuple[int, int]:
        """The largest block whose rows come out as in the smallest batches, and that batch."""
        most = BLOCK_NUMBERS // sum(map(math.prod, shapes.values()))
        for block in (size for size in BLOCKS if size <= most):
            feeds = example_feeds(shapes, num_timesteps, block)
            whole = self.graph.run(feeds)
            for multiple in (size for size in MULTIPLES if size < block):
                if self._agrees(feeds, whole, multiple):
                    return block, multiple
        return 1, 1

    def _agrees(self, feeds: Feeds, whole: Sequence[Array], size: int) -> bool:
        """Whether so many rows at a time give what they give in a whole block."""
        for at in range(0, len(whole[0]), size):
            part = slice(at, at + size)
            alone = self.graph.run({name: array[part] for name, array in feeds.items()})
            both = zip(alone, whole, strict=True)
            if any(found.tobytes() != rows[part].tobytes() for found, rows in both):
                return False
        return True


@lru_cache(maxsize=256)
def _index(rows: int, spare: int) -> NDArray[np.intp]:
    """Rows of a batch, and the last one again."""
    return np.minimum(np.arange(rows + spare), rows - 1)
