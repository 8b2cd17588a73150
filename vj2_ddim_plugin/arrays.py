"""Arrays in `.npy` and `.npz` files, held against the file's own length before memory is taken.

At first only headers are read. What is stored as it is, in an archive too, is then memory-mapped;
what is compressed is read whole, up to a limit, or item by item.
"""

import math
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import VJ2DDIMError
from vj2_ddim_plugin.files import require_regular_file

__all__ = ["MAX_LOADED_BYTES", "StoredArray", "bfloat16_as_float32", "npy_array", "npz_arrays"]
__all__ += ["readable", "stamp_of"]

MAX_LOADED_BYTES = 2**30  # of a compressed array, decompressed
MAKERS = {".npy": " with numpy.save", ".npz": " with numpy.savez"}
MAX_HEADER_BYTES, MAX_AXES, MAX_REASON = 10_240, 32, 200
MAX_INFLATION = 1032  # no deflated bytes become more
LOCAL_HEADER_BYTES = 30  # of a zip archive's member, before its name and extra field


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which the header was read and found to fit the file's length."""

    path: Path
    error: type[VJ2DDIMError]  # raised when it cannot be read
    stamp: tuple[int, int]  # the file's length, and when it was last written
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    header_bytes: int
    offset: int | None = 0  # of its numbers in the file; None where they are compressed
    member: str = ""  # of an archive
    bfloat16: bool = False  # the header says `<V2`, as that of an array of ml_dtypes does

    @property
    def compressed(self) -> bool:
        """Whether it cannot be mapped, and `open` reads it whole."""
        return self.offset is None

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def step_bytes(self) -> int:
        """Bytes of one item along the first two axes."""
        return math.prod(self.shape[2:]) * self.dtype.itemsize

    def position(self) -> int | None:
        """Where its numbers begin in the file, in C's order; None where they are stored otherwise.

        The file is looked at as `open` does.
        """
        if self.offset is None or self.fortran_order:
            return None
        with readable(self.path, self.error):
            self._require_sound()
        return self.offset

    def open(self) -> NDArray[Any]:
        """The array, read-only: memory-mapped, or read whole where it is compressed."""
        order: Any = "F" if self.fortran_order else "C"
        with readable(self.path, self.error):
            self._require_unchanged()
            if not self.nbytes:
                return np.empty(self.shape, self.dtype, order)
            if self.offset is None:
                content = b"".join(self._chunks(self.nbytes))
                return np.frombuffer(content, self.dtype).reshape(self.shape, order=order)
            self._require_sound()
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)

    def items(self, axes: int = 1) -> Iterator[NDArray[Any]]:
        """Its items along the first axes, one after another, without reading it whole."""
        if self.offset is not None or self.fortran_order or not self.nbytes:
            opened = self.open()
            yield from (opened[index] for index in np.ndindex(self.shape[:axes]))
            return
        shape = self.shape[axes:]
        with readable(self.path, self.error):
            self._require_unchanged()
            for chunk in self._chunks(math.prod(shape) * self.dtype.itemsize):
                yield np.frombuffer(chunk, self.dtype).reshape(shape)

    def _chunks(self, size: int) -> Iterator[bytes]:
        """The numbers of a compressed array, so many bytes at a time; the check sum is checked."""
        if size > MAX_LOADED_BYTES:
            raise self.error(
                f"{self.path}: {self.member} is compressed and takes {size:,} bytes when read, at "
                f"most {MAX_LOADED_BYTES:,} may be. Write it with numpy.savez, which does not "
                f"compress; `vj2-ddim data convert` does it for trajectories"
            )
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
            stream.read(self.header_bytes)
            for _ in range(self.nbytes // size):
                if len(chunk := stream.read(size)) < size:
                    raise EOFError(f"{self.member} ends early")
                yield chunk
            stream.read(1)  # at the end the check sum is looked at

    def _require_sound(self) -> None:
        self._require_unchanged()
        if self.member:
            _verify(self.path, self.member, self.stamp)

    def _require_unchanged(self) -> None:
        if stamp_of(self.path) != self.stamp:
            raise self.error(f"{self.path}: has changed since it was opened. Start again")


def npy_array(path: Path | str, error: type[VJ2DDIMError]) -> StoredArray:
    """The array of a `.npy` file, not yet read.

    Raises:
        VJ2DDIMError: Of the kind `error`: no regular file, not one of `numpy.save`, of Python
            objects, or of another length than its header says.
    """
    path = require_regular_file(path, error, "a file of numpy.save")
    with readable(path, error), open(path, "rb") as stream:
        stamp = stamp_of(path)
        shape, order, dtype, offset, half = _read_header(stream)
        array = StoredArray(path, error, stamp, shape, dtype, order, offset, offset, "", half)
        if offset + array.nbytes != stamp[0]:
            raise ValueError(f"{shape} of {dtype} is not the file's length, {stamp[0]} bytes")
    return array


def npz_arrays(
    path: Path | str, error: type[VJ2DDIMError], names: Sequence[str] = ()
) -> dict[str, StoredArray]:
    """The arrays of an `.npz` file, not yet read: all of them, or those named.

    Raises:
        VJ2DDIMError: Of the kind `error`: no regular file, no archive of `numpy.savez`, one that
            lacks an array or has it twice, or an array of another length than its header says.
    """
    path = require_regular_file(path, error, "a file of numpy.savez")
    with readable(path, error), zipfile.ZipFile(path) as archive:
        found = Counter(each[:-4] for each in archive.namelist() if each.endswith(".npy"))
        wanted = names or list(found)
        if wrong := [name for name in wanted if found[name] != 1]:
            what = "stands twice" if found[wrong[0]] else "is missing"
            raise ValueError(f"{wrong[0]!r} {what}, found {', '.join(found) or 'no array'}")
        return {name: _npz_array(archive, f"{name}.npy", path, error) for name in wanted}


def _npz_array(
    archive: zipfile.ZipFile, member: str, path: Path, error: type[VJ2DDIMError]
) -> StoredArray:
    stamp, info = stamp_of(path), archive.getinfo(member)
    with archive.open(info) as stream:
        shape, order, dtype, header_bytes, half = _read_header(stream)
    offset, room = None, info.compress_size
    if info.compress_type == zipfile.ZIP_DEFLATED:
        room *= MAX_INFLATION
    elif info.compress_type == zipfile.ZIP_STORED:
        with open(path, "rb") as raw:
            raw.seek(info.header_offset)
            name, extra = struct.unpack("<26x2H", raw.read(LOCAL_HEADER_BYTES))
        offset = info.header_offset + LOCAL_HEADER_BYTES + name + extra + header_bytes
    else:
        raise ValueError(f"{member} is compressed in a way that numpy does not write")
    array = StoredArray(path, error, stamp, shape, dtype, order, header_bytes, offset, member, half)
    end = info.header_offset + info.compress_size
    if end > stamp[0] or not header_bytes + array.nbytes == info.file_size <= room:
        raise ValueError(f"{shape} of {dtype} is not the length of {member} in the archive")
    return array


def bfloat16_as_float32(halves: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers of an array whose two bytes each are bfloat16, the upper half of a float32."""
    return (halves.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int, bool]:
    """Shape, whether in Fortran's order, type, the header's length, and whether it is bfloat16.

    All that it says is data.
    """
    content = stream.read(MAX_HEADER_BYTES)
    if content.startswith(b"PK"):
        raise ValueError("it is an .npz archive")
    head = BytesIO(content)
    old = np.lib.format.read_magic(head) == (1, 0)
    formats = np.lib.format
    read = formats.read_array_header_1_0 if old else formats.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Python 2 wrote
        shape, fortran_order, dtype = read(head)
    if len(shape) > MAX_AXES or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a shape of {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    half = dtype == np.dtype("V2") and b"'descr': '<V2'" in content[: head.tell()]
    return shape, fortran_order, dtype, head.tell(), half


@contextmanager
def readable(path: Path, error: type[VJ2DDIMError]) -> Iterator[None]:
    """Turn whatever a broken file raises, which may be anything, into an error that names it."""
    try:
        yield
    except VJ2DDIMError:
        raise
    except Exception as cause:
        kind = "" if type(cause) is ValueError else f"{type(cause).__name__}: "
        why = f"{kind}{cause}"[:MAX_REASON]
        raise error(
            f"{path} is not a readable {path.suffix or 'array'} file ({why}). It may be truncated, "
            f"changed, or of another format: write it again{MAKERS.get(path.suffix, '')}"
        ) from cause


@lru_cache(2**16)
def _verify(path: Path, member: str, stamp: tuple[int, int]) -> None:
    """Hold an archive's array against its check sum, once for as long as it is not changed."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        while stream.read(2**20):
            pass


def stamp_of(path: Path) -> tuple[int, int]:
    """A file's bytes and the time of its last change: as long as they stay, it is as it was."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
