"""Measures of sequences: how well given ones were recreated, and generated ones match the data.

Numpy in, numbers out. Everything is in the data's own units, except where a distance is compared
with a threshold: there positions are scaled from the spec's bounds to [0, 1].
"""

from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import is_valid, pressed
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.gestures import (
    GESTURE_TYPES,
    blocks_of,
    find_gestures,
    gesture_type,
    scaled_coordinates,
    sketch_of,
)

__all__ = ["coverage_and_density", "gaussianity", "generation_measures", "memorisation_ratio"]
__all__ += ["recreation_measures", "variation_ratios"]

EPSILON = 1e-8  # added to denominators, as in the original script
NUM_NEIGHBOURS = 5
NEAR = 0.1  # spatial_accuracy: how far a recreated point may be from the original one
LARGEST_ABS_MEAN = 0.1
STD_RANGE = (0.8, 1.2)
Measures = dict[str, float]


def variation_ratios(reference: FloatArray, found: FloatArray, spec: ActionSpec) -> Measures:
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
            suffix = "p" if channel == spec.press_channel else channel
            measures[f"{name}_{suffix}"] = float(ratio)
    return measures


def recreation_measures(original: FloatArray, recreated: FloatArray, spec: ActionSpec) -> Measures:
    """Compare sequences with their recreations, pair by pair; names and formulas of the script.

    - `mse`, `mae`: over all elements; `coord_mse`, `press_mse`: over those channels.
    - `active_coord_mse`: over the coordinates of steps that either one presses; 0 if none.
    - `press_accuracy`: share of steps where both agree on the press.
    - `press_recall`: the script's formula, share of steps where "either one presses" equals "the
      recreation presses". False presses do not lower it.
    - `mean_snr_db`: mean over sequences of 10 log10(mean x0^2 / (mean error^2 + 1e-8)). Sequences
      that are 0 throughout have no signal and are left out; NaN if all are.
    - `variance_ratio_*`, `smoothness_ratio_*`: see `variation_ratios`.
    - `temporal_iou`: mean over sequences of pressed by both / by either; 1 if neither presses.
    - `spatial_accuracy`: share of the original's pressed steps whose recreated point is nearer than
      0.1; 1 if there are none.
    - `gesture_type_accuracy`: share of blocks whose gesture type is the same.

    Args:
        original: `[n, L, A]`, n >= 1.
        recreated: `[n, L, A]`, row by row the recreation of `original`.
        spec: What they are. Without a press channel the measures of presses are left out; without
            two coordinates, so is `gesture_type_accuracy`.

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
    measures = {
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
        "coord_mse": float(np.mean(error[..., spec.coordinate_indices] ** 2)),
        "mean_snr_db": float("nan"),
        **variation_ratios(original, recreated, spec),
    }
    signal, noise = np.mean(original**2, axis=(1, 2)), np.mean(error**2, axis=(1, 2))
    if (some := signal > 0.0).any():
        decibels = 10.0 * np.log10(signal[some] / (noise[some] + EPSILON))
        measures["mean_snr_db"] = float(np.mean(decibels))
    if spec.press_channel is None:
        return measures
    return measures | _press_agreement(original, recreated, spec)


def _press_agreement(original: FloatArray, recreated: FloatArray, spec: ActionSpec) -> Measures:
    """The measures of `recreation_measures` that ask where the press is."""
    error = recreated - original
    truth, found = pressed(original, spec), pressed(recreated, spec)
    either, both = truth | found, truth & found
    union = either.sum(axis=1)
    iou = np.where(union > 0, both.sum(axis=1) / np.maximum(union, 1), 1.0)
    active = error[..., spec.coordinate_indices][either]
    offset = scaled_coordinates(recreated, spec) - scaled_coordinates(original, spec)
    near = np.linalg.norm(offset, axis=-1) < NEAR
    measures = {
        "press_mse": float(np.mean(error[..., spec.press_index] ** 2)),
        "active_coord_mse": float(np.mean(active**2)) if either.any() else 0.0,
        "spatial_accuracy": float(np.mean(near[truth])) if truth.any() else 1.0,
        "press_accuracy": float(np.mean(truth == found)),
        "press_recall": float(np.mean(either == found)),
        "temporal_iou": float(np.mean(iou)),
    }
    if len(spec.coordinate_indices) == 2:
        same = gesture_type(original, spec) == gesture_type(recreated, spec)
        measures["gesture_type_accuracy"] = float(np.mean(same))
    return measures


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
    worst, lowest, highest = float(np.abs(mean).max()), float(std.min()), float(std.max())
    gaussian = worst < LARGEST_ABS_MEAN and lowest >= STD_RANGE[0] and highest <= STD_RANGE[1]
    scalars = {"worst_abs_mean": worst, "lowest_std": lowest, "highest_std": highest}
    return {"mean": mean.tolist(), "std": std.tolist(), **scalars, "degenerate": not gaussian}


def generation_measures(
    before_projection: FloatArray,
    generated: FloatArray,
    reference: FloatArray,
    training: FloatArray,
    spec: ActionSpec,
) -> Measures:
    """Compare generated sequences with held-out ones as a distribution, never pair by pair.

    - `variance_ratio_*`, `smoothness_ratio_*`: see `variation_ratios`; also of the sequences before
      projection, with `_before_projection` at the end.
    - `validity_before_projection`, `validity_after_projection`: shares of valid sequences.
    - `gesture_type_distance`: total variation between the histograms of types, 0 to 1.
    - `no_press_share`: share of sequences with a block that has no press. They are left out below.
    - `wasserstein_start_*`, `wasserstein_end_*` (positions, scaled to [0, 1]) and
      `wasserstein_duration` (steps): Wasserstein-1 between the distributions.
    - `coverage`, `density`, `memorisation_ratio`: of the sketches, see `coverage_and_density` and
      `memorisation_ratio`.

    Measures that need a press are NaN where no sequence has one.

    Args:
        before_projection: `[m, L, A]`, as decoded from the sampler.
        generated: `[m, L, A]`, the same after projection; most measures are of these.
        reference: `[n, L, A]`, held-out data.
        training: `[t, L, A]`, what the sampler was trained on.
        spec: What they are. Without a press channel only ratios and validity are measured; without
            two coordinates, no gesture types.

    Raises:
        ActionError: A set is empty or of a wrong shape.
    """
    for actions in (before_projection, generated, reference, training):
        blocks_of(actions, spec)  # checks the shape
        if not len(actions):
            raise ActionError("every set of actions needs at least one sequence; one is empty")
    before = variation_ratios(reference, before_projection, spec)
    measures = {
        **variation_ratios(reference, generated, spec),
        **{f"{name}_before_projection": value for name, value in before.items()},
        "validity_before_projection": float(np.mean(is_valid(before_projection, spec))),
        "validity_after_projection": float(np.mean(is_valid(generated, spec))),
    }
    if spec.press_channel is None:
        return measures
    if len(spec.coordinate_indices) == 2:
        measures["gesture_type_distance"] = _type_distance(generated, reference, spec)
        measures["gesture_type_distance_to_training"] = _type_distance(generated, training, spec)
        measures["gesture_type_distance_of_training"] = _type_distance(training, reference, spec)
    return measures | _press_measures(generated, reference, training, spec)


def _press_measures(
    generated: FloatArray, reference: FloatArray, training: FloatArray, spec: ActionSpec
) -> Measures:
    seen, held_out, found = (
        actions[find_gestures(actions, spec).has_press.reshape(-1, spec.horizon).all(axis=1)]
        for actions in (training, reference, generated)
    )
    sketches = [sketch_of(actions, spec) for actions in (seen, held_out, found)]
    coverage, density = coverage_and_density(sketches[1], sketches[2])
    return {
        "no_press_share": 1.0 - len(found) / len(generated),
        **_wasserstein_distances(found, held_out, spec),
        "coverage": coverage,
        "density": density,
        "memorisation_ratio": memorisation_ratio(*sketches),
    }


def _type_distance(one: FloatArray, other: FloatArray, spec: ActionSpec) -> float:
    types = gesture_type(one, spec), gesture_type(other, spec)
    shares = np.array([[np.mean(of == name) for name in GESTURE_TYPES] for of in types])
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def _wasserstein_distances(one: FloatArray, other: FloatArray, spec: ActionSpec) -> Measures:
    values = []
    for actions in (one, other):
        start, stop, start_point, end_point = find_gestures(actions, spec)
        values.append([*start_point.T, *end_point.T, stop - start])
    coordinates = [spec.channels[i] for i in spec.coordinate_indices]
    names = [f"{end}_{name}" for end in ("start", "end") for name in coordinates]
    missing = len(one) == 0 or len(other) == 0
    return {
        f"wasserstein_{name}": float("nan") if missing else float(wasserstein_distance(a, b))
        for name, a, b in zip([*names, "duration"], *values, strict=True)
    }


def coverage_and_density(
    reference: FloatArray, generated: FloatArray, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[float, float]:
    """Coverage and density (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics", eq. 3-4).

    Around every reference point lies a ball that reaches its k-th nearest other reference point.
    """
    k = min(num_neighbours, len(reference) - 1)
    if k < 1 or len(generated) == 0:
        return float("nan"), float("nan")
    distances, _ = cKDTree(reference).query(reference, k=k + 1)  # the first one is the point itself
    strictly_inside = np.nextafter(distances[:, -1], -1.0)
    inside = np.zeros(len(reference))
    real = strictly_inside >= 0.0  # a ball without extent holds nothing
    inside[real] = cKDTree(generated).query_ball_point(
        reference[real], strictly_inside[real], return_length=True
    )
    return float(np.mean(inside > 0)), float(inside.sum() / (k * len(generated)))


def memorisation_ratio(training: FloatArray, reference: FloatArray, generated: FloatArray) -> float:
    """How near generated points are to the training set, against points held out from it."""
    if min(len(training), len(reference), len(generated)) == 0:
        return float("nan")
    tree = cKDTree(training)
    near, usual = (float(np.median(tree.query(points)[0])) for points in (generated, reference))
    return near / (usual + EPSILON)
