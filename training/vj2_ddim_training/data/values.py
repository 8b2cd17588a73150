"""Checks of the numbers in an array that was read: finite, in bounds, of a float type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["out_of_range", "require_finite", "require_in_range", "to_float32"]

BOUND_TOLERANCE = 1e-6  # in the planner's units: float32 rounding, nothing more


def to_float32(array: NDArray[Any], file: Path) -> NDArray[np.float32]:
    """A float32 copy of a floating-point array; a value too large for float32 becomes inf.

    Raises:
        DataError: The array holds integers, complex numbers or anything else.
    """
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{file}: found dtype {array.dtype}, expected floating-point numbers. Convert the "
            f"array with .astype('float32') and save it again"
        )
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32)


def require_finite(rows: FloatArray, file: Path, what: str = "value") -> None:
    """Raise `DataError` unless every number is finite.

    Args:
        rows: `[..., A]`; a message counts rows over all leading axes.
        file: The file to name.
        what: What one number is, for the message.
    """
    finite = np.isfinite(rows).reshape(-1, rows.shape[-1]).all(axis=1)
    if not finite.all():
        count = int(np.size(rows) - np.isfinite(rows).sum())
        raise DataError(
            f"{file}: {count} {what}s are NaN or infinite, the first in row "
            f"{int(np.argmin(finite))}. Repair or remove these rows"
        )


def out_of_range(actions: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """Where `[..., A]` leaves the spec's bounds; zeros where the finger is up never do.

    NaN counts as inside: it has a check of its own.
    """
    outside = (actions < spec.low_array - BOUND_TOLERANCE) | (
        actions > spec.high_array + BOUND_TOLERANCE
    )
    if spec.press_channel is not None:
        at_rest = ~spec.pressed(actions)[..., None] & (actions == 0.0)
        outside &= ~at_rest
    return np.asarray(outside)


def require_in_range(actions: FloatArray, spec: ActionSpec, file: Path) -> None:
    """Raise `DataError` when any of `[..., A]` leaves the spec's bounds."""
    outside = out_of_range(actions, spec).reshape(-1, spec.num_channels)
    if not outside.any():
        return
    channel = int(np.argmax(outside.any(axis=0)))
    row = int(np.argmax(outside[:, channel]))
    found = actions.reshape(-1, spec.num_channels)[row, channel]
    raise DataError(
        f"{file}: {int(outside.sum())} values are out of bounds; the first in channel "
        f"{spec.channels[channel]!r} is {found:g} in row {row}, expected "
        f"{spec.action_low[channel]:g} to {spec.action_high[channel]:g}. Rescale the data, set "
        f"the bounds of the ActionSpec, or pass allow_out_of_range=True"
    )
