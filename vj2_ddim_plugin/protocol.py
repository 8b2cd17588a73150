"""The Open Inference Protocol (KServe v2) in HTTP bodies: named arrays, in JSON or as plain bytes.

A body is a JSON object whose `inputs` (of a request) or `outputs` (of a response) describe arrays.
Those in the binary form follow it in the same order; the header `Inference-Header-Content-Length`
then says where the JSON ends. A client and a server of ours share this module; it knows no models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ServingError
from vj2_ddim_plugin.files import parse_json
from vj2_ddim_plugin.settings import shown

__all__ = ["HEADER_LENGTH", "Message", "Tensor", "read_message", "write_message"]

HEADER_LENGTH = "Inference-Header-Content-Length"
DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "UINT64": "<u8"}
NAMES = {np.dtype(of): name for name, of in DTYPES.items()}
SIZE = "binary_data_size"
MOST_AXES = 8

Array = NDArray[Any]


class Tensor(NamedTuple):
    """What an array may be: its shape, -1 where an axis is free, and its types, the usual first."""

    shape: tuple[int, ...]
    datatypes: tuple[str, ...] = ("FP32",)

    def described(self, name: str) -> dict[str, Any]:
        """As a model's metadata say it."""
        return {"name": name, "datatype": self.datatypes[0], "shape": list(self.shape)}

    def check(self, name: str, datatype: object, shape: tuple[int, ...]) -> None:
        """Raise `ServingError` for an array that this is not."""
        if datatype not in self.datatypes:
            raise ServingError(
                f"{name!r} has datatype {shown(datatype)}; expected {' or '.join(self.datatypes)}"
            )
        fits = len(shape) == len(self.shape) and all(
            size == wanted or (wanted < 0 and size > 0)
            for size, wanted in zip(shape, self.shape, strict=True)
        )
        if not fits:
            raise ServingError(
                f"{name!r} has shape {shown(list(shape))}; expected {list(self.shape)} (-1: any)"
            )


class Message(NamedTuple):
    """A body that was read: its JSON, and the arrays of its `inputs` or `outputs` by name."""

    fields: Mapping[str, Any]
    arrays: Mapping[str, Array]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Those of the whole message."""
        return _parameters(self.fields, "the request")


def write_message(
    key: str,
    arrays: Mapping[str, Array],
    fields: Mapping[str, Any] | None = None,
    in_binary: Callable[[str], bool] = lambda name: True,
) -> tuple[dict[str, str], bytes]:
    """HTTP headers and a body that says `arrays` under `key`, and `fields` besides."""
    entries, parts = [], []
    for name, array in arrays.items():
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype]}
        entry["shape"] = list(array.shape)
        if in_binary(name):
            parts.append(array.tobytes())
            entry["parameters"] = {SIZE: len(parts[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    head = json.dumps({**(fields or {}), key: entries}, separators=(",", ":")).encode()
    if not parts:
        return {"Content-Type": "application/json"}, head
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return headers, b"".join([head, *parts])


def read_message(
    key: str, body: bytes, head_bytes: str | None, expected: Mapping[str, Tensor], most: int
) -> Message:
    """A body of arrays under `key`, each one of `expected`; none is made before its size is known.

    Args:
        key: `inputs` or `outputs`.
        body: The HTTP body.
        head_bytes: The header `HEADER_LENGTH`, None where there is none.
        expected: What each array may be, by name.
        most: Numbers that one of them may hold.

    Raises:
        ServingError: The body is none, or an array is unknown, twice there, or not as expected.
    """
    length = len(body)
    if head_bytes is not None:
        length = int(head_bytes) if head_bytes.isdecimal() and len(head_bytes) < 12 else -1
        if not 0 < length <= len(body):
            raise ServingError(
                f"{HEADER_LENGTH} is {shown(head_bytes)}; expected 1 to {len(body)}, the body's "
                f"length"
            )
    fields = parse_json(body[:length], "the body", ServingError)
    entries = fields.get(key)
    if not isinstance(entries, list):
        raise ServingError(f"{key!r} must be a list of arrays; found {shown(entries)}")
    arrays: dict[str, Array] = {}
    rest = memoryview(body)[length:]
    for entry in entries:
        name, shape = _described(key, entry, expected, arrays)
        if (count := math.prod(shape)) > most:
            raise ServingError(f"{name!r} has {count} numbers; at most {most} are taken", 413)
        array, rest = _content(name, entry, np.dtype(DTYPES[entry["datatype"]]), count, rest)
        arrays[name] = array.reshape(shape)
    if len(rest):
        raise ServingError(f"{len(rest)} bytes follow the last array that is said to be binary")
    return Message(fields, arrays)


def _described(
    key: str, entry: object, expected: Mapping[str, Tensor], known: Mapping[str, Array]
) -> tuple[str, tuple[int, ...]]:
    """The name and the shape of an array, checked."""
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
        raise ServingError(f"each of {key!r} must be an object with a name; found {shown(entry)}")
    if name not in expected or name in known:
        what = "stands twice" if name in known else "is unknown"
        raise ServingError(f"{shown(name)} {what}; use {', '.join(expected)}, each once")
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > MOST_AXES
        or not all(type(size) is int and 0 <= size < 2**40 for size in shape)
    ):
        raise ServingError(f"{name!r} has no such shape: {shown(shape)}")
    expected[name].check(name, entry.get("datatype"), tuple(shape))
    return name, tuple(shape)


def _content(
    name: str, entry: Mapping[str, Any], dtype: np.dtype[Any], count: int, rest: memoryview
) -> tuple[Array, memoryview]:
    """The numbers of one array, flat, and the bytes that follow them."""
    size = _parameters(entry, repr(name)).get(SIZE)
    if (size is None) == ("data" not in entry):
        raise ServingError(f"{name!r} needs either 'data' or the parameter {SIZE!r}")
    if size is None:
        return _numbers(name, entry["data"], dtype, count), rest
    if size != count * dtype.itemsize or size > len(rest):
        raise ServingError(
            f"{name!r} has {SIZE} {shown(size)}; its shape takes {count * dtype.itemsize} bytes, "
            f"and {len(rest)} are left of the body"
        )
    return np.frombuffer(rest[:size], dtype), rest[size:]


def _numbers(name: str, data: Any, dtype: np.dtype[Any], count: int) -> Array:  # noqa: ANN401
    """Numbers of a JSON list, which may be nested as the shape is."""
    level = [data]
    while level and isinstance(level[0], list):
        if not all(isinstance(each, list) for each in level):
            raise ServingError(f"the data of {name!r} are lists of unequal depth")
        level = [number for each in level for number in each]
    kinds = (int,) if dtype.kind in "iu" else (int, float)
    if not isinstance(data, list) or len(level) != count:
        raise ServingError(f"{name!r} has {len(level)} numbers as data; its shape takes {count}")
    if wrong := [number for number in level if type(number) not in kinds]:
        raise ServingError(f"the data of {name!r} hold {shown(wrong[0])}, which is no {dtype.name}")
    try:
        with np.errstate(over="raise"):
            return np.array(level, dtype)
    except (OverflowError, FloatingPointError) as error:
        raise ServingError(f"the data of {name!r} do not fit {dtype.name}: {error}") from None


def _parameters(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise ServingError(f"the parameters of {where} must be an object; found {shown(found)}")
    return found
