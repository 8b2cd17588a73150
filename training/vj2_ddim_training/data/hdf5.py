"""Arrays in HDF5 files: of the file itself, written whole, and no longer than it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from vj2_ddim_plugin.arrays import MAX_LOADED_BYTES, readable
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import require_regular_file
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = ["Hdf5Array", "Layout", "hdf5_arrays", "hdf5_type"]

MAX_NAMES = 10  # in a message
BFLOAT16 = (15, 7, 8, 0, 7)  # where its sign, exponent and mantissa lie, and their bits
SLOW_CHUNK_BYTES = 32 * 2**20  # of a compressed array: as much is decompressed for each step


class Layout(NamedTuple):
    """Where the steps of `[n, T, ...]` lie: in chunks of a trajectories by b steps."""

    chunk: tuple[int, ...]  # a, b
    offsets: IntArray  # [n / a, T / b], where each begins in the file
    step_bytes: int

    def addresses(self, trajectories: IntArray, times: IntArray) -> IntArray:
        """Where these steps begin in the file."""
        (row, i), (column, t) = (
            np.divmod(of, size) for of, size in zip((trajectories, times), self.chunk, strict=True)
        )
        return self.offsets[row, column] + (i * self.chunk[1] + t) * self.step_bytes


@dataclass(frozen=True)
class Hdf5Array:
    """A data set of which nothing but its description was read."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # as h5py reads it
    bfloat16: bool  # of that type in HDF5, or two bytes whose attribute `dtype` says so
    chunks: tuple[int, ...] | None
    filtered: bool  # compressed

    @property
    def chunk_bytes(self) -> int:
        """Bytes that are read at once where it is compressed, else 0."""
        return math.prod(self.chunks or ()) * self.dtype.itemsize if self.filtered else 0

    @property
    def slow(self) -> bool:
        """Whether every step takes the decompression of a large chunk."""
        return self.chunk_bytes > SLOW_CHUNK_BYTES

    def open(self) -> Any:  # noqa: ANN401
        """The data set, read where it is indexed; its file is open for as long as it is held."""
        require_regular_file(self.path, DataError)
        with readable(self.path, DataError):
            # room for one chunk, and only where it is compressed: a cache of others is a waste
            found = h5py.File(self.path, "r", rdcc_nbytes=self.chunk_bytes)[self.name]
            if (found.shape, found.dtype, found.chunks) != (self.shape, self.dtype, self.chunks):
                raise ValueError(f"{self.name} has changed since it was opened")
            return found

    def layout(self) -> Layout | None:
        """Where its steps lie in the file, as they are; None where HDF5 has to read them."""
        if self.filtered or (self.chunks or self.shape)[2:] != self.shape[2:]:
            return None
        with readable(self.path, DataError):
            found = self.open()
            with found.file as file:
                kind = found.id.get_type()
                as_it_is = kind == h5py.h5t.py_create(self.dtype)
                if file.userblock_size or not (as_it_is or self.bfloat16):
                    return None
                offsets = np.full([-(-self.shape[i] // of) for i, of in enumerate(self._unit)], -1)
                if self.chunks is None:
                    offsets[0, 0] = found.id.get_offset()
                else:

                    def note(chunk: Any) -> None:  # noqa: ANN401
                        i, t = np.floor_divide(chunk.chunk_offset[:2], self._unit)
                        offsets[i, t] = chunk.byte_offset

                    found.id.chunk_iter(note)
                return Layout(self._unit, offsets, math.prod(self.shape[2:]) * kind.get_size())

    @property
    def _unit(self) -> tuple[int, ...]:
        return (self.chunks or self.shape)[:2]


def hdf5_arrays(path: Path, names: Sequence[str]) -> list[Hdf5Array]:
    """The data sets of these names.

    Raises:
        DataError: There is no such file, a data set is missing, lies in another file, is a group,
            or was not written whole.
    """
    require_regular_file(path, DataError, "an HDF5 file")
    with readable(path, DataError), h5py.File(path, "r") as file:
        return [_checked(file, name, path) for name in names]


def _checked(file: Any, name: str, path: Path) -> Hdf5Array:  # noqa: ANN401
    link = file.get(name, getlink=True)
    if link is None:
        found = ", ".join(islice(file, MAX_NAMES)) or "nothing"
        raise ValueError(f"{name!r} is missing, found {found}")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name!r} is a link, expected a data set of this file itself")
    array = file[name]
    if not isinstance(array, h5py.Dataset):
        raise ValueError(f"{name!r} is no data set but a {type(array).__name__.lower()}")
    if array.is_virtual or array.external:
        raise ValueError(f"{name!r} lies in other files, expected numbers in this file itself")
    shape, chunks, length = array.shape or (), array.chunks, path.stat().st_size
    chunk_bytes = math.prod(chunks or ()) * array.dtype.itemsize
    if chunk_bytes > MAX_LOADED_BYTES:
        raise ValueError(
            f"{name!r} has chunks of {chunk_bytes:,} bytes, {MAX_LOADED_BYTES:,} may be"
        )
    if chunks:
        asked = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
        written, unit = array.id.get_num_chunks(), "chunks"
    else:
        asked = (array.size or 0) * array.id.get_type().get_size()
        written, unit = array.id.get_storage_size(), "bytes"
    if written < asked or array.id.get_storage_size() > length:
        raise ValueError(
            f"{name!r} was not written whole: {written:,} of the {asked:,} {unit} of {shape} are "
            f"there, in {length:,} bytes"
        )
    filtered = array.id.get_create_plist().get_nfilters() > 0
    return Hdf5Array(path, name, shape, array.dtype, _is_bfloat16(array), chunks, filtered)


def _is_bfloat16(array: Any) -> bool:  # noqa: ANN401
    """Whether a data set is of HDF5's 16-bit float with 8 bits of exponent, or says that it is."""
    kind = array.id.get_type()
    if isinstance(kind, h5py.h5t.TypeFloatID):
        little = kind.get_order() == h5py.h5t.ORDER_LE
        return kind.get_size() == 2 and kind.get_fields() == BFLOAT16 and little
    if array.dtype not in (np.dtype("V2"), np.dtype("<u2")):
        return False
    return array.attrs.get("dtype") in ("bfloat16", b"bfloat16")


def hdf5_type(array: Any) -> Any:  # noqa: ANN401
    """What a copy of an array is stored as: its own type, or HDF5's 16-bit float of bfloat16."""
    if not array.bfloat16:
        return array.dtype
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(*BFLOAT16)
    kind.set_ebias(127)
    return h5py.Datatype(kind)
