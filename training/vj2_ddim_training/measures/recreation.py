"""How well given sequences were recreated: the original script's names and formulas.

- `mse`, `mae`: over all elements; `coord_mse`, `press_mse`: over those channels.
- `active_coord_mse`: over the coordinates of steps that either one presses; 0 if none.
- `press_accuracy`: share of steps where both agree on the press.
- `press_recall`: the script's formula, share of steps where "either one presses" equals "the
  recreation presses". False presses do not lower it.
- `mean_snr_db`: mean over sequences of 10 log10(mean x0^2 / (mean error^2 + 1e-8)). Sequences that
  are 0 throughout have no signal and are left out; NaN if all are.
- `variance_ratio_*`, `smoothness_ratio_*`: see `variation_ratios`.
- `temporal_iou`: mean over sequences of pressed by both / pressed by either; 1 if neither presses.
- `spatial_accuracy`: share of the original's pressed steps whose recreated point is nearer than
  0.1; 1 if there are none.
- `gesture_type_accuracy`: share of blocks whose gesture type is the same.

Everything is in the data's own units, except where a distance is compared with a threshold: there
positions are scaled from the spec's bounds to [0, 1], which for touches changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import pressed
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.measures.gestures import blocks_of, gesture_type, scaled_coordinates

__all__ = ["EPSILON", "gaussianity", "recreation_measures", "variation_ratios"]

EPSILON = 1e-8  # added to denominators, as in the original script
NEAR = 0.1  # spatial_accuracy: how far a recreated point may be from the original one
LARGEST_ABS_MEAN = 0.1
STD_RANGE = (0.8, 1.2)


def channel_suffix(channel: str, spec: ActionSpec) -> str:
    """The name a channel has in the names of measures: `p` for the press, else its own."""
    return "p" if channel == spec.press_channel else channel


def variation_ratios(
    reference: FloatArray, found: FloatArray, spec: ActionSpec
) -> dict[str, float]:
    """Ratios of variance over time, and of variance of first differences, for each channel.

    The unbiased variance over time of every sequence, averaged over the sequences; that of `found`
    divided by that of `reference` plus 1e-8.
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


Mask = NDArray[np.bool_]


def recreation_measures(
    original: FloatArray, recreated: FloatArray, spec: ActionSpec
) -> dict[str, float]:
    """Compare sequences with their recreations, pair by pair.

    Args:
        original: `[n, L, A]`, n >= 1.
        recreated: `[n, L, A]`, row by row the recreation of `original`.
        spec: What they are. Without a press channel the measures of presses are left out; without
            two coordinates, so is `gesture_type_accuracy`.

    Returns:
        One number for each measure in this module's docstring.

    Raises:
        ActionError: The arrays are empty or their shapes differ from the spec or each other.
    """
    blocks_of(original, spec)  # checks the shape
    if original.shape != recreated.shape or len(original) == 0:
        raise ActionError(
            f"original {original.shape} and recreated {recreated.shape} must be equally many "
            f"sequences, at least one"
        )
    original, recreated = original.astype(np.float64), recreated.astype(np.float64)
    error = recreated - original
    coordinates = error[..., spec.coordinate_indices]
    measures = {
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
        "coord_mse": float(np.mean(coordinates**2)),
        "mean_snr_db": _mean_snr_db(original, error),
        **variation_ratios(original, recreated, spec),
    }
    if spec.press_channel is None:
        return measures
    truth, found = pressed(original, spec), pressed(recreated, spec)
    measures["press_mse"] = float(np.mean(error[..., spec.press_index] ** 2))
    measures["active_coord_mse"] = _mean_where(coordinates**2, truth | found, nothing=0.0)
    measures["spatial_accuracy"] = _spatial_accuracy(original, recreated, truth, spec)
    measures |= _press_measures(truth, found)
    if len(spec.coordinate_indices) == 2:
        same = gesture_type(original, spec) == gesture_type(recreated, spec)
        measures["gesture_type_accuracy"] = float(np.mean(same))
    return measures


def _mean_snr_db(original: FloatArray, error: FloatArray) -> float:
    """Mean signal-to-noise ratio of the sequences that have a signal, in decibels."""
    signal, noise = np.mean(original**2, axis=(1, 2)), np.mean(error**2, axis=(1, 2))
    some = signal > 0.0
    if not some.any():
        return float("nan")
    return float(np.mean(10.0 * np.log10(signal[some] / (noise[some] + EPSILON))))


def _mean_where(values: FloatArray, mask: Mask, nothing: float) -> float:
    """Mean of the values whose leading indices the mask picks, or `nothing` if it picks none."""
    return float(np.mean(values[mask])) if mask.any() else nothing


def _spatial_accuracy(
    original: FloatArray, recreated: FloatArray, down: Mask, spec: ActionSpec
) -> float:
    """Share of pressed steps whose recreated point is near the original one."""
    offset = scaled_coordinates(recreated, spec) - scaled_coordinates(original, spec)
    near = np.linalg.norm(offset, axis=-1) < NEAR
    return _mean_where(near.astype(np.float64), down, nothing=1.0)


def _press_measures(truth: Mask, found: Mask) -> dict[str, float]:
    """Agreement of two press masks `[n, L]`."""
    either, both = truth | found, truth & found
    union = either.sum(axis=1)
    iou = np.where(union > 0, both.sum(axis=1) / np.maximum(union, 1), 1.0)
    return {
        "press_accuracy": float(np.mean(truth == found)),
        "press_recall": float(np.mean(either == found)),
        "temporal_iou": float(np.mean(iou)),
    }


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
