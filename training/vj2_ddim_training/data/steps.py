"""Single steps of an array `[n, T, ...]`, read where they lie in the file: nothing stays in memory.

A mapped file, or HDF5's cache of chunks, would: what they have touched counts as the process's own.
"""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vj2_ddim_plugin.arrays import StoredArray, bfloat16_as_float32, readable
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_training.data.hdf5 import Hdf5Array, Layout

__all__ = ["Steps"]

PART_NUMBERS = 2**22  # in one part of a pass through a file, 16 MiB
SERIAL = 2**14  # numbers that torch converts without threads, which a forked process lacks


class Steps:
    """The steps of an array, numbered trajectory by trajectory; open for as long as it is held.

    `layout` is where they lie in the file, if that is known from before; None asks the file.
    """

    def __init__(self, array: StoredArray | Hdf5Array, layout: Layout | None = None) -> None:
        self.array, self.layout, self._descriptor = array, layout, -1
        self._stored = np.dtype("u2") if array.bfloat16 else array.dtype
        self._numbers = int(np.prod(array.shape[2:]))
        if layout is None and hasattr(os, "preadv"):  # not on Windows
            self.layout = _layout_of(array)
        if self.layout is None:
            self._opened = array.open()
        else:
            self._descriptor = os.open(array.path, os.O_RDONLY)

    def __del__(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, steps: IntArray, out: NDArray[np.float32], rows: IntArray | None = None) -> None:
        """Read the steps of these numbers as float32 into `[m, ...]`, or into those rows of it."""
        rows = np.arange(len(steps)) if rows is None else rows
        out = out.reshape(len(out), self._numbers)
        trajectories, times = np.divmod(steps, self.array.shape[1])
        if self.layout is None:
            for row, i, t in zip(rows, trajectories, times, strict=True):
                found = np.asarray(self._opened[i, t]).reshape(-1)
                halves = self.array.bfloat16 and found.dtype.itemsize == 2
                out[row] = bfloat16_as_float32(found) if halves else found
            return
        at, size = self.layout.addresses(trajectories, times), self._numbers * self._itemsize
        breaks = np.flatnonzero((np.diff(at) != size) | (np.diff(rows) != 1)) + 1
        for first, last in zip([0, *breaks], [*breaks, len(at)], strict=True):
            if first < last:
                self._read_run(int(at[first]), out[rows[first] : rows[first] + last - first])

    def parts(
        self, shape: Sequence[int], chosen: IntArray | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Those of these numbers, or all, as float32 `[m, *shape]`, a bounded part at a time."""
        steps = np.arange(math.prod(self.array.shape[:2])) if chosen is None else chosen
        at_once = max(1, PART_NUMBERS // math.prod(shape))
        for first in range(0, len(steps), at_once):
            here = steps[first : first + at_once]
            part = np.empty((len(here), *shape), np.float32)
            with readable(self.array.path, DataError), np.errstate(over="ignore"):
                self.read(here, part)
            yield part

    def raw(self, step: int) -> bytes:
        """The bytes of one step as they are stored."""
        i, t = divmod(step, self.array.shape[1])
        if self.layout is None:
            read = np.ascontiguousarray(self._opened[i, t])
            if self.array.bfloat16 and read.dtype.itemsize == 4:  # as HDF5 has converted it
                read = (read.view(np.uint32) >> 16).astype(np.uint16)
            return read.tobytes()
        found = np.empty(self._numbers, self._stored)
        self._fill(found, int(self.layout.addresses(np.array([i]), np.array([t]))[0]))
        return found.tobytes()

    @property
    def _itemsize(self) -> int:
        return self._stored.itemsize

    def _read_run(self, at: int, out: NDArray[np.float32]) -> None:
        """Steps that follow one another in the file, into contiguous memory."""
        if self._stored == np.float32 and self._stored.isnative:
            self._fill(out, at)
            return
        found = np.empty(out.shape, self._stored)
        self._fill(found, at)
        if self._itemsize > 2 or not self._stored.isnative:
            np.copyto(out, found, casting="same_kind")
            return
        halves = torch.from_numpy(found.view(np.int16).reshape(-1))  # several times numpy's speed
        halves = halves.view(torch.bfloat16 if self.array.bfloat16 else torch.float16)
        wide = torch.from_numpy(out.reshape(-1))
        size = len(wide) if torch.get_num_threads() == 1 else SERIAL
        for first in range(0, len(wide), size):
            wide[first : first + size].copy_(halves[first : first + size])

    def _fill(self, buffer: NDArray[Any], at: int) -> None:
        """Fill an array with what lies there in the file."""
        left = buffer.reshape(-1).view(np.uint8).data
        while len(left):
            count = os.preadv(self._descriptor, [left], at)
            if not count:
                raise EOFError("it ends early")
            left, at = left[count:], at + count


def _layout_of(array: StoredArray | Hdf5Array) -> Layout | None:
    if isinstance(array, Hdf5Array):
        return array.layout()
    at = array.position()
    return None if at is None else Layout(array.shape[:2], np.array([[at]]), array.step_bytes)
