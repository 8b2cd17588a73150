"""How much actions vary over time, and how much their steps do."""

from __future__ import annotations

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["EPSILON", "channel_suffix", "variation_ratios"]

EPSILON = 1e-8  # added to denominators, as in the original script


def channel_suffix(channel: str, spec: ActionSpec) -> str:
    """The name a channel has in the names of measures: `p` for the press, else its own."""
    return "p" if channel == spec.press_channel else channel


def variation_ratios(
    reference: FloatArray, found: FloatArray, spec: ActionSpec
) -> dict[str, float]:
    """Ratios of variance over time, and of variance of first differences, for each channel.

    The unbiased variance over time of every sequence, averaged over the sequences; that of `found`
    divided by that of `reference` plus 1e-8.

    Args:
        reference: `[n, L, A]`.
        found: `[m, L, A]`; 1 means that it varies as the reference does.
        spec: Names the channels.

    Returns:
        `variance_ratio_{x,y,p}` (needs L >= 2) and `smoothness_ratio_{x,y,p}` (needs L >= 3).
    """
    measures = {}
    for name, order in (("variance_ratio", 0), ("smoothness_ratio", 1)):
        if spec.length < 2 + order:
            continue
        of_reference, of_found = (
            np.diff(array.astype(np.float64), n=order, axis=1).var(axis=1, ddof=1).mean(axis=0)
            for array in (reference, found)
        )
        for channel, ratio in zip(spec.channels, of_found / (of_reference + EPSILON), strict=True):
            measures[f"{name}_{channel_suffix(channel, spec)}"] = float(ratio)
    return measures
