"""What a graph's file says, read from its bytes before ONNX Runtime sees them.

An ONNX file is protocol buffers: fields, each a number, a wire type and a value, nested. A tensor
may say that its numbers lie in another file, which no hash of the bundle covers; an operator of
another maker may read files of its own; one with a graph of its own, as Loop, may never end. So
every field that can hold a tensor or an operator is followed, by its number in `onnx.proto`, and
what export never writes is refused.
"""

from collections.abc import Iterator

from vj2_ddim_plugin.errors import BundleError
from vj2_ddim_plugin.settings import shown

__all__ = ["require_self_contained"]

# The fields of each message that are followed, and what they hold; or why they are refused.
ELSEWHERE = "numbers that lie in another file, which no hash covers"
ENDLESS = "a graph in its graph, or a function, which might never end, and which no bundle needs"
FOLLOWED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: ENDLESS, 25: ENDLESS},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: ENDLESS, 10: "tensor", 11: ENDLESS, 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: ELSEWHERE, 14: ELSEWHERE},
}
OPERATOR, DOMAIN = 4, 7  # of a node
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
OTHER_FORMAT = b"ORTM"  # at byte 4 of ONNX Runtime's own format, to which no rule here applies
MOST_FIELDS, VARINT_BYTES = 250_000, 10

Message = dict[int, list[int | memoryview]]


def require_self_contained(content: bytes, name: str) -> None:
    """Refuse a graph that is more than its own bytes, or that cannot be read.

    Args:
        content: The bytes of an `.onnx` file.
        name: What to call it in an error.

    Raises:
        BundleError: It is no ONNX model, a tensor's numbers lie in another file, or an operator is
            not ONNX's own or has a graph of its own, so that it might run for ever.
    """
    try:
        if content[4:8] == OTHER_FORMAT:
            raise ValueError("it is in ONNX Runtime's own format")
        _follow(memoryview(content))
    except (ValueError, IndexError) as cause:
        why = "it ends too early" if isinstance(cause, IndexError) else cause
        raise BundleError(
            f"{name} is no ONNX model of this project: {why}. Export the checkpoint again"
        ) from None


def _follow(content: memoryview) -> None:
    """Visit every message that can hold a tensor or an operator."""
    waiting, fields_left = [("model", content)], MOST_FIELDS
    while waiting:
        kind, part = waiting.pop()
        message: Message = {}
        for number, value in _fields(part):
            message.setdefault(number, []).append(value)
            fields_left -= 1
            if fields_left < 0:
                raise ValueError(f"it has more than {MOST_FIELDS} fields")
        domain = _text(message, DOMAIN) if kind == "node" else ""
        if domain not in DOMAINS:
            name = shown(_text(message, OPERATOR))
            raise ValueError(f"it needs the operator {name} of {shown(domain)}, not of ONNX")
        for number, holds in FOLLOWED[kind].items():
            for value in message.get(number, ()):
                if holds not in FOLLOWED and value != 0:
                    raise ValueError(f"it holds {holds}")
                if not isinstance(value, int):
                    waiting.append((holds, value))
                elif holds in FOLLOWED:
                    raise ValueError(f"field {number} of a {kind} is no message")


def _fields(part: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message in order: numbers as they are, everything longer as bytes."""
    at = 0
    while at < len(part):
        tag, at = _varint(part, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or wire_type not in (VARINT, FIXED64, BYTES, FIXED32):
            raise ValueError("it is not written as protocol buffers are")
        size = {FIXED64: 8, FIXED32: 4}.get(wire_type, 0)
        if not size:  # a number, which may be the length of what follows
            size, at = _varint(part, at)
        if wire_type == VARINT:
            yield number, size
            continue
        if size > len(part) - at:
            raise IndexError
        yield number, part[at : at + size]
        at += size


def _varint(part: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a byte, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(VARINT_BYTES):
        byte = part[at + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("it holds a number of more than ten bytes")


def _text(message: Message, number: int) -> str:
    """The last value of a field, which is the one that counts."""
    values = [value for value in message.get(number, ()) if not isinstance(value, int)]
    return str(values[-1][:1000], "utf-8", "replace") if values else ""
