"""From the planner's units to the sampler's, in which the diffused array is about 1 around 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vj2_ddim_plugin.gestures.representations import REPRESENTATIONS
from vj2_ddim_plugin.interface import FloatArray

if TYPE_CHECKING:
    from vj2_ddim_plugin.actions import ActionSpec

__all__ = ["Normalization"]


@dataclass(frozen=True)
class Normalization:
    """An affine map of the diffused array `[..., M, C]`.

    Attributes:
        centre: What becomes 0, in the planner's units, broadcastable to `[M, C]`.
        scale: What becomes 1.
        bounds: Lowest and highest valid value, in the sampler's units.
    """

    centre: FloatArray
    scale: FloatArray
    bounds: tuple[FloatArray, FloatArray]

    @classmethod
    def of(cls, spec: ActionSpec) -> Normalization:
        """That of a spec; one that is not `normalized` stays in the planner's units."""
        representation = REPRESENTATIONS[spec.representation]
        low, high = representation.bounds(spec)
        scale = representation.scale(spec)
        if low.ndim > 1:  # one value a row: the same in every block
            low, high, scale = (np.tile(part, (spec.horizon, 1)) for part in (low, high, scale))
        if not spec.normalized:
            return cls(np.zeros_like(scale), np.ones_like(scale), (low, high))
        reach = (high - low) / 2 / scale
        return cls((low + high) / 2, scale, (-reach, reach))

    def normalize(self, values: FloatArray) -> FloatArray:
        """From the planner's units to the sampler's."""
        return (values - self.centre) / self.scale

    def unnormalize(self, values: FloatArray) -> FloatArray:
        """The inverse of `normalize`."""
        return self.centre + self.scale * values
