"""Whether inverted noise is Gaussian: only then does recreation by inversion mean anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["gaussianity"]

LARGEST_ABS_MEAN = 0.1
STD_RANGE = (0.8, 1.2)


def gaussianity(x_T: FloatArray, spec: ActionSpec) -> dict[str, Any]:
    """Mean and standard deviation of inverted noise, channel by channel, over the whole set.

    A channel is an action channel, over all sequences and steps; in the representation `path`,
    whose rows are different things (a coordinate of a knot, a time), every row is one.

    Args:
        x_T: `[n, M, C]`, n data inverted to the last timestep.
        spec: Names the representation.

    Returns:
        `mean` and `std` (lists, one number a channel), `worst_abs_mean`, `lowest_std`,
        `highest_std`, and `degenerate`: True unless every channel has abs(mean) < 0.1 and a std in
        [0.8, 1.2].

    Raises:
        ActionError: The shape is not `[n, *spec.diffused_shape]` with n >= 1.
    """
    if x_T.ndim != 3 or x_T.shape[1:] != spec.diffused_shape or len(x_T) == 0:
        raise ActionError(
            f"x_T has shape {x_T.shape}, expected [n, *{spec.diffused_shape}] for representation "
            f"{spec.representation!r}"
        )
    over = (0, 2) if spec.representation == "path" else (0, 1)
    mean, std = x_T.mean(axis=over, dtype=np.float64), x_T.std(axis=over, dtype=np.float64)
    gaussian = np.all(
        (np.abs(mean) < LARGEST_ABS_MEAN) & (std >= STD_RANGE[0]) & (std <= STD_RANGE[1])
    )
    return {
        "mean": mean.tolist(),
        "std": std.tolist(),
        "worst_abs_mean": float(np.abs(mean).max()),
        "lowest_std": float(std.min()),
        "highest_std": float(std.max()),
        "degenerate": not bool(gaussian),
    }
