"""Arrays in HDF5 files: of the file itself, written whole, and no longer than it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vj2_ddim_plugin.arrays import MAX_LOADED_BYTES, readable
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import require_regular_file

__all__ = ["Hdf5Array", "hdf5_arrays"]

MAX_NAMES = 10  # in a message
SLOW_CHUNK_BYTES = 32 * 2**20  # of a compressed array: as much is decompressed for each step


@dataclass(frozen=True)
class Hdf5Array:
    """A data set of which nothing but its description was read."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slow: bool  # every step takes the decompression of a large chunk

    def open(self) -> Any:  # noqa: ANN401
        """The data set, read where it is indexed; its file is open for as long as it is held."""
        require_regular_file(self.path, DataError)
        with readable(self.path, DataError):
            found = h5py.File(self.path, "r")[self.name]
            if (found.shape, found.dtype) != (self.shape, self.dtype):
                raise ValueError(f"{self.name} has changed since it was opened")
            return found


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
        asked = math.prod(shape) * array.dtype.itemsize
        written, unit = array.id.get_storage_size(), "bytes"
    if written < asked or array.id.get_storage_size() > length:
        raise ValueError(
            f"{name!r} was not written whole: {written:,} of the {asked:,} {unit} of {shape} are "
            f"there, in {length:,} bytes"
        )
    filtered = array.id.get_create_plist().get_nfilters() > 0
    return Hdf5Array(path, name, shape, array.dtype, filtered and chunk_bytes > SLOW_CHUNK_BYTES)
