"""Files of trained weights, held against themselves before anything is made of them.

What `torch.save` writes is a zip archive, nothing in it compressed: a pickle, and beside it the
numbers of each tensor. `torch.load(weights_only=True)` runs no code of the file, but it believes
sizes, checks no sums, and explains itself by the page. So an archive is first held against its own
length and check sums, and a network is built only as far as the file has weights to fill it.
"""

import math
import os
import pickle
import platform
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vj2_ddim_plugin
from vj2_ddim_plugin.errors import CheckpointError, VJ2DDIMError
from vj2_ddim_plugin.files import atomic_path, require_regular_file

__all__ = ["MISFITS", "built_with", "one_line", "open_saved", "require_weights", "save_atomically"]
__all__ += ["versions"]

LARGEST_WEIGHT = 1e6
BEGINNING = b"PK\x03\x04"
MOST_PICKLED = 2**24  # bytes of everything but the tensors' numbers
# Calls that torch allows, and that take whatever memory the file asks for.
SIZED = re.compile(rb"c(builtins|__builtin__)\nbytearray\n|ctorch[\w.]*\n\w*(Tensor|dStorage)\n")
MOST_REPEATED = 10_000  # dicts and lists that stand in several places
FOLLOWED = (dict, list, tuple, set, Tensor)
LONGEST_REASON = 300
SPARE = 8  # numbers a network may make while it is built, for each number of its file
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
# What reading fields that do not fit one another may raise.
MISFITS = (
    *(VJ2DDIMError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RuntimeError, OverflowError),
)

M = TypeVar("M", bound=nn.Module)


def one_line(error: BaseException) -> str:
    """The beginning of another package's message, which may be pages long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def versions() -> dict[str, str]:
    """What made a file, for its provenance."""
    return {
        "vj2_ddim_plugin": vj2_ddim_plugin.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def open_saved(path: Path, what: str, hint: str) -> Any:  # noqa: ANN401
    """What `save_atomically` wrote; a missing or a broken file is a `CheckpointError`.

    `what` is what the file should be, and `hint` says where one comes from.
    """
    require_regular_file(path, CheckpointError, f"a {what}; {hint}")
    try:
        with path.open("rb") as stream:
            _require_sound(stream)
            content = torch.load(stream, map_location="cpu", weights_only=True)
        _require_plain(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # pickle, zip, and torch errors of many kinds
        why = one_line(error)
        if isinstance(error, pickle.UnpicklingError):  # torch's is a page of advice to trust it
            why = "it holds more than plain values and tensors, and no code of a file is run"
        raise CheckpointError(
            f"{path}: cannot be opened as a {what} ({why}). It may be truncated, or not a {what} "
            f"at all"
        ) from error
    return content


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write what `torch.load(weights_only=True)` opens, whole or not at all."""
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a short write
        why = error.__cause__ or error  # without the name of the file, which `atomic_path` says too
        raise CheckpointError(
            f"{path}: cannot be written ({why}). What was there before is untouched; free some "
            f"space and run again"
        ) from error


def _require_sound(stream: IO[bytes]) -> None:
    """Refuse an archive that claims more than it has, or whose bytes are not those written."""
    length = os.fstat(stream.fileno()).st_size
    if stream.read(len(BEGINNING)) != BEGINNING:
        raise ValueError("it does not begin as what torch.save writes")
    with zipfile.ZipFile(stream) as archive:
        parts = archive.infolist()
        pickled = sum(part.file_size for part in parts if part.filename.endswith(".pkl"))
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        claimed = sum(part.file_size for part in parts)
        if not stored or claimed > length or len({part.filename for part in parts}) < len(parts):
            raise ValueError(f"its parts claim {claimed} bytes, of {length}, or are not plain")
        if pickled > MOST_PICKLED:
            raise ValueError(f"{pickled} bytes of it are no tensors, more than {MOST_PICKLED}")
        if any(
            SIZED.search(archive.read(part)) for part in parts if part.filename.endswith(".pkl")
        ):
            raise ValueError("it makes arrays of a size that it only claims")
        if changed := archive.testzip():
            raise ValueError(f"the check sum of its part {changed!r} is wrong: it was changed")
    stream.seek(0)


def _require_plain(content: object) -> None:
    """Refuse what would grow when it is followed: values within themselves, tensors of no size."""
    waiting, met, left = [content], set(), MOST_REPEATED
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list | tuple | set):
            left -= id(value) in met
            if left < 0:
                raise ValueError(f"it repeats values within values more than {MOST_REPEATED} times")
            met.add(id(value))
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [each for each in inner if isinstance(each, FOLLOWED)]
        elif isinstance(value, Tensor) and value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"a tensor claims the shape {tuple(value.shape)} of fewer numbers")


def built_with(weights: Any, build: Callable[[], M]) -> M:  # noqa: ANN401
    """What `build` makes, with these weights; `CheckpointError` unless they are just what it has.

    Sizes that the weights cannot fill are refused before memory is taken for them.
    """
    require_weights(weights)
    with _Room(sum(weight.numel() for weight in weights.values())):
        model = build()
    model.load_state_dict(weights)
    return model


def require_weights(weights: Any) -> None:  # noqa: ANN401
    """Refuse what is no dict of float32 tensors with finite numbers of a size that computes."""
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"the weights are no dict; found {type(weights).__name__}")
    for name, weight in weights.items():
        if not (isinstance(name, str) and isinstance(weight, Tensor)) or weight.is_meta:
            raise CheckpointError(f"weight {name!r} is no tensor")
        if weight.dtype != torch.float32 or not weight.is_contiguous():
            found = f"{weight.dtype} of shape {tuple(weight.shape)}"
            raise CheckpointError(f"weight {name!r} is no plain array of float32; found {found}")
        low, high = torch.aminmax(weight) if weight.numel() else weight.new_zeros(2)
        least = 1e-12 if name.endswith("_std") else -LARGEST_WEIGHT  # it is divided by
        if not (least <= low and high <= LARGEST_WEIGHT):  # nor NaN
            raise CheckpointError(
                f"weight {name!r} has values from {low:g} to {high:g}; expected finite ones within "
                f"{LARGEST_WEIGHT:g}, and a std above 0. The training went wrong: train again"
            )


class _Room(TorchFunctionMode):
    """Refuses to make many more numbers than there are weights."""

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.weights, self.left = weights, SPARE * (weights + 1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Count what is about to be made."""
        if func in FACTORIES:
            self.left -= math.prod(args[0] if args and isinstance(args[0], Sequence) else args)
            if self.left < 0:
                raise CheckpointError(
                    f"its sizes ask for a larger network than its {self.weights} weights are"
                )
        return func(*args, **(kwargs or {}))
